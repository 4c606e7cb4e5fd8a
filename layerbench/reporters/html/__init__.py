"""One self-contained HTML page, to open from disk or attach.

Records with rows of layers are shown by a page with tree, icicle, details and search. Of the others
it says what the Markdown report says.
"""

from __future__ import annotations

import re
from html import escape

from layerbench.records.workload import Frozen
from layerbench.reporters import markdown
from layerbench.reporters.html.assets import report
from layerbench.reporters.html.document import bundled, of
from layerbench.text import shown

NAME = "html"
SUFFIX = ".html"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""

_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { border-bottom: 1px solid #8886; padding: .2rem .7rem; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
code { font-size: .95em; }
blockquote { border-left: 3px solid #8886; margin: 1rem 0; padding-left: 1rem; }"""


def render(record: Frozen) -> str:
    """The page; it loads nothing from anywhere, and names in it are text, never markup."""
    bundle = bundled(record)
    return _text_page(record) if bundle is None else report(of(bundle))


def _text_page(record: Frozen) -> str:
    """Without any script."""
    from markdown_it import MarkdownIt

    text = markdown.composed(shown(record))
    # "html": False makes markup in a layer's name visible text; __init__ is a name, not bold.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    body = parser.disable(["emphasis", "link", "image", "autolink", "entity"]).render(text)
    body = re.sub(r"<(/?)h3>", r"<\1h1>", body)
    title = text.partition("\n")[0].lstrip("# ")
    return _PAGE.format(title=escape(title), style=_STYLE, body=body)
