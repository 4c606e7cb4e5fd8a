"""Tests on the simulated accelerator, run by a process that has it.

A process that has registered `sim` has it as *the* accelerator from then on, which would change
other tests. So one process, forked from one that has loaded torch, runs them all, one after the
other.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, reduce, wraps
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
import torch

from layerbench.environment import watch
from layerbench.instruments import warm_up
from tests.simulated import CannotBuildError, built, load
from tests.support.prepared import forks

# `.ci/run` sets it: there a missing compiler is a failure.
REQUIRED = "LAYERBENCH_SIM_REQUIRED"
PATIENCE_S = 240
# Characters of a local variable that a failure shows.
SHOWN = 300
# What a test asks for by these names is made in the process itself.
OWN = ("sim", "monkeypatch")


def on_sim(test: Callable[..., None]) -> Callable[..., None]:
    """Let this test run in the process that has `sim`.

    Its parameter ``sim`` is the `Simulator`, under the usual rules. ``monkeypatch`` is the
    process's own. Other parameters come from pytest and have to be picklable. A failure shows the
    values of local variables, because pytest does not rewrite assertions there.
    """
    signature = inspect.signature(test)
    from_pytest = [own for name, own in signature.parameters.items() if name not in OWN]

    @wraps(test)
    def asked(**given: object) -> None:
        library_or_skip()
        _process().run(test, given)

    asked.__signature__ = signature.replace(parameters=from_pytest)  # type: ignore[attr-defined]
    asked.on_sim = test  # type: ignore[attr-defined]
    return asked


@cache
def _cannot_build() -> str | None:
    try:
        built()
    except CannotBuildError as error:
        return str(error)
    return None


def library_or_skip() -> None:
    """Without a compiler the test is skipped, or fails where one must be."""
    missing = _cannot_build()
    if missing and (os.environ.get(REQUIRED) or "failed" in missing):
        pytest.fail(missing, pytrace=False)
    if missing:
        pytest.skip(missing)


class Process:
    """Runs tests one after the other; begun anew after one that broke it."""

    def __init__(self) -> None:
        self._process: ForkServerProcess | None = None

    def _start(self) -> ForkServerProcess:
        self._connection, its_own = forks().Pipe()
        process = forks().Process(target=_serve, args=(its_own,), daemon=True)
        process.start()
        its_own.close()
        return process

    def run(self, test: Callable[..., None], given: Mapping[str, object]) -> None:
        """Pass, fail or skip as the test does there."""
        self._process = self._process or self._start()
        outcome, text = "failed", f"no answer within {PATIENCE_S} s"
        try:
            self._connection.send((test.__module__, test.__qualname__, dict(given)))
            if self._connection.poll(PATIENCE_S):
                outcome, text = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            text = f"the process ended with {self._process.exitcode}"
        finally:
            if outcome == "failed":
                self._process.kill()
                self._process = None
        if outcome == "skipped":
            pytest.skip(text)
        if outcome != "passed":
            pytest.fail(text, pytrace=False)


@cache
def _process() -> Process:
    return Process()


def _serve(connection: Connection) -> None:
    """In the process."""
    watch.LOOK_S = 0.01  # as for every test
    warm_up.LEAST_S = warm_up.LONGEST_S = 0.0  # the simulated clock is up at once
    load()
    gc.collect()
    gc.freeze()
    with suppress(EOFError):
        while True:
            connection.send(_outcome(*connection.recv()))


def _outcome(module: str, name: str, given: dict[str, object]) -> tuple[str, str]:
    try:
        test: Any = reduce(getattr, name.split("."), importlib.import_module(module))
        _run(test.on_sim, given)
    except pytest.skip.Exception as skipped:
        return "skipped", str(skipped)
    except BaseException as error:
        return "failed", _shown(error)
    return "passed", ""


def _shown(error: BaseException) -> str:
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    del shown.stack[:2]  # of this file
    for frame in shown.stack:
        frame.locals = {name: text[:SHOWN] for name, text in (frame.locals or {}).items()}
    return "".join(shown.format())


def _run(test: Callable[..., None], given: dict[str, object]) -> None:
    simulator = load()
    simulator.rules()
    torch.accelerator.set_device_index(0)
    gc.collect()
    torch.accelerator.empty_cache()
    asked = inspect.signature(test).parameters
    with pytest.MonkeyPatch.context() as monkeypatch:
        own = {"sim": simulator, "monkeypatch": monkeypatch}
        test(**given, **{name: made for name, made in own.items() if name in asked})
    simulator.rules()
