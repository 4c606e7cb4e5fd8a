"""Runs that exchange parts of PyTorch itself come one at a time. Loads no torch.

A run on tensors without memory replaces functions of `torch.nn.functional`, seeds the generators of
the process and looks through its objects afterwards. Another such run, in another thread, would see
all of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


class _Turn:
    """Who has it; a child of a fork begins anew, as no other thread is left that could end one."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.lock = RLock()


_TURN = _Turn()


def one_at_a_time(call: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function that waits while another thread is in any function made so.

    Within its own thread it may call others of them.
    """

    @wraps(call)
    def in_turn(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        with _TURN.lock:
            return call(*args, **kwargs)

    return in_turn


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_TURN.renew)
