"""The estimation service: what a model will need, asked over HTTP before it runs.

``uvicorn layerbench.service:app`` serves it.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    # Made on first use: the worker is in this package too, and needs no web framework.
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerbench.service.web.app import app

    return app
