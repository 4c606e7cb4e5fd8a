"""The page of a record inside another page, such as a notebook: in a frame of its own.

The frame's text is part of the notebook: nothing is loaded, and neither page's styles nor scripts
reach the other's. The page is compressed, since a notebook keeps it in every output; browsers
unpack it.
"""

from __future__ import annotations

import base64
import gzip
from html import escape

from layerbench.records.workload import Frozen
from layerbench.reporters import html

# A part of the window, so that the notebook can be scrolled beside it.
HEIGHT = "min(56rem,85vh)"

# No module: a page that has loaded one takes no import map any more.
_UNPACK = """<!DOCTYPE html><meta charset="utf-8"><script>(async()=>{
const packed=Uint8Array.from(atob("%s"),c=>c.charCodeAt(0));
const page=new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const text=await new Response(page).text();
document.open();document.write(text);document.close()})()</script>"""

# The page in a frame is light or dark as the frame is. Notebooks say it in ways of their own:
# Jupyter, Visual Studio Code, websites that Sphinx made.
_THEME = (
    "<style>"
    "[data-jp-theme-light=true] .layerbench,.vscode-light .layerbench,"
    "[data-theme=light] .layerbench{color-scheme:light}"
    "[data-jp-theme-light=false] .layerbench,.vscode-dark .layerbench,"
    "[data-theme=dark] .layerbench{color-scheme:dark}"
    "</style>"
)
# Scripts, but no origin: they reach neither the notebook nor what its server holds.
_FRAME = (
    '<iframe class="layerbench" sandbox="allow-scripts allow-downloads" title="{title}" '
    'loading="lazy" style="border:1px solid #8886;width:100%;height:{height};resize:vertical" '
    "srcdoc='{page}'></iframe>"
)
_TEXT = "<details><summary>{title}, as text</summary><pre>{text}</pre></details>"


def frame(record: Frozen, title: str, text: str) -> str:
    """Markup for a notebook.

    Args:
        record: of any kind.
        title: what the frame shows.
        text: for where no script runs, such as a notebook that a website displays.
    """
    packed = gzip.compress(html.render(record).encode(), mtime=0)
    page = _UNPACK % base64.b64encode(packed).decode()
    shown = _FRAME.format(title=escape(title), height=HEIGHT, page=_in_quotes(page))
    return _THEME + shown + _TEXT.format(title=escape(title), text=escape(text))


def _in_quotes(page: str) -> str:
    """Escaped as an attribute between single quotes needs, which keeps the page's own short."""
    return page.replace("&", "&amp;").replace("'", "&#39;")
