"""The files of the page: as the service hands them out, and all in one.

Modules are named by bare specifiers (``layerbench/table``, ``uplot``); an import map says where
each lies: under ``/static/`` in the service, in ``data:`` addresses in a file of its own, which may
not load others.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from html import escape
from importlib import resources
from urllib.parse import quote

from layerbench.reporters.html.schema import PageData

_FOLDER = "static"
# Vendored as they are (vendor/SHA256SUMS); what they lack to be modules is added when they are
# handed out.
_VENDORED = {
    "uplot": ("uplot/uPlot.iife.min.js", "\nexport default uPlot;\n"),
    "d3-hierarchy": ("d3-hierarchy/d3-hierarchy.min.mjs", ""),
    "dagre": ("dagre/dagre.esm.js", ""),
}
# In the place of the layout, a fifth of a page, where there is no graph to lay out.
_NO_LAYOUT = "export class Graph {}\nexport function layout() {}\n"
_STYLES = ("vendor/uplot/uPlot.min.css", f"{_FOLDER}/page.css")
_LIVE_ONLY = ("live", "settings")
# On lines of their own; a page is a tenth smaller without.
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*\*(?:(?!\*/).)*\*/[ \t]*)\n", re.M | re.S)
# All that prints, but for what ends an address's path or begins an escape.
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).translate({ord("%"): None, ord("#"): None})
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

# Inline modules and styles, and nothing from anywhere: it opens from disk without a network.
REPORT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
"""
_NO_SCRIPT = (
    "<noscript><p>This page needs JavaScript; the text report needs nothing.</p></noscript>"
)
# What is there without scripts can be read; the rest would be empty.
_READABLE = (
    "<noscript><style>.tools, .legend, .panes, .help { display: none; }</style></noscript>\n"
)
_MORE = "<noscript><p>Its layers and pictures need JavaScript.</p></noscript>\n"


def report(document: PageData) -> str:
    """One self-contained HTML file that shows a document; names in it are text, never markup."""
    modules = {
        f"layerbench/{name}": _COMMENT.sub("", _module(name))
        for name in _modules()
        if name not in _LIVE_ONLY
    }
    modules |= {name: _vendored(name) for name in _VENDORED}
    if not document.graphs:
        modules["dagre"] = _NO_LAYOUT
    imports = {name: _data_address(text) for name, text in modules.items()}
    parts = [
        _HEAD,
        f'<meta http-equiv="Content-Security-Policy" content="{REPORT_POLICY}">\n',
        f"<title>{escape(document.title)}: layerbench</title>\n",
        f"<style>\n{_style()}</style>\n",
        _READABLE,
        _import_map(imports),
        '</head>\n<body>\n<main class="viewer">\n',
        _viewer(document),
        _MORE,
        "</main>\n",
        f'<script type="application/json" id="document">{_embedded(document)}</script>\n',
        '<script type="module">import "layerbench/report";</script>\n',
        "</body>\n</html>\n",
    ]
    return "".join(parts)


@functools.cache
def live_page() -> tuple[bytes, str]:
    """The page that the service shows, and the content-security policy that goes with it."""
    names = [f"layerbench/{name}" for name in _modules()]
    imports = {name: f"/static/{name}.js" for name in (*names, *_VENDORED)}
    mapped = json.dumps({"imports": imports})
    digest = base64.b64encode(hashlib.sha256(mapped.encode()).digest()).decode()
    body = _read(f"{_FOLDER}/live.html").replace("{viewer}", _viewer())
    page = (
        f"{_HEAD}<title>layerbench</title>\n"
        '<link rel="stylesheet" href="/static/page.css">\n'
        f'<script type="importmap">{mapped}</script>\n'
        f"</head>\n<body>\n{_NO_SCRIPT}{body}"
        '<script type="module" src="/static/layerbench/live.js"></script>\n</body>\n</html>\n'
    )
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page.encode(), policy


def _viewer(document: PageData | None = None) -> str:
    """What shows a document; what can be read without scripts stands in it."""
    begun = [] if document is None else [document.title, document.subtitle]
    title, subtitle = (escape(text) for text in begun or ("", ""))
    parts = {"title": title, "subtitle": subtitle, "head": document.head if document else ""}
    before, *pieces = re.split(r"\{(title|subtitle|head)\}", _read(f"{_FOLDER}/viewer.html"))
    filled = (parts[name] + after for name, after in zip(pieces[::2], pieces[1::2], strict=True))
    return "".join([before, *filled])


def static(name: str) -> tuple[bytes, str] | None:
    """A file under ``/static/`` with its media type; ``None`` if there is none of that name."""
    return _files().get(name)


@functools.cache
def _files() -> dict[str, tuple[bytes, str]]:
    texts = {f"layerbench/{name}.js": _module(name) for name in _modules()}
    texts |= {f"{name}.js": _vendored(name) for name in _VENDORED}
    texts["page.css"] = _style()
    return {name: (text.encode(), _TYPES[name[name.rindex(".") :]]) for name, text in texts.items()}


def _modules() -> list[str]:
    """The page's own modules, each in a file."""
    folder = resources.files(__package__).joinpath(_FOLDER)
    return sorted(file.name[:-3] for file in folder.iterdir() if file.name.endswith(".js"))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _module(name: str) -> str:
    return _read(f"{_FOLDER}/{name}.js")


def _vendored(name: str) -> str:
    place, ending = _VENDORED[name]
    return _read(f"vendor/{place}") + ending


def _style() -> str:
    return "".join(_read(name) for name in _STYLES)


def _data_address(text: str) -> str:
    """Escaped where an address must be: a quarter shorter than in base64, and read by people."""
    return f"data:text/javascript;charset=utf-8,{quote(text, safe=_PLAIN)}"


def _import_map(imports: dict[str, str]) -> str:
    mapped = json.dumps({"imports": imports}).replace("<", "\\u003c")
    return f'<script type="importmap">{mapped}</script>\n'


def _embedded(document: PageData) -> str:
    """JSON in which nothing can end the element that it stands in; the head is in the page."""
    return document.model_dump_json(exclude={"head"}).replace("<", "\\u003c")
