"""One self-contained HTML page, to open from disk or attach.

Records with rows of layers are shown by a page with tree, icicle, details and search, others as
their documents are.
"""

from __future__ import annotations

from layerbench.records.trace_profile import TraceProfile
from layerbench.records.view import USUAL, View
from layerbench.records.workload import Frozen
from layerbench.reporters.html.assets import report
from layerbench.reporters.html.document import bundled, of
from layerbench.reporters.html.plain import page
from layerbench.reporters.html.traced import of as of_trace

NAME = "html"
SUFFIX = ".html"


def render(record: Frozen, view: View = USUAL) -> str:
    """The page; it loads nothing from anywhere, and names in it are text, never markup.

    Args:
        record: of any kind.
        view: what its first screen shows.
    """
    if isinstance(record, TraceProfile):
        return report(of_trace(record, view))
    bundle = bundled(record)
    return page(record) if bundle is None else report(of(bundle, view))
