from __future__ import annotations

import cProfile
import sys
from contextlib import suppress
from types import SimpleNamespace

from layerbench.environment.python_watchers import unwatched


class Monitoring:
    """What `sys.monitoring` has of it, also before Python 3.12."""

    def __init__(self) -> None:
        self.tools = {1: "coverage", 4: "mine"}
        self.events = {1: 0b101, 4: 0}

    def get_tool(self, tool):
        return self.tools.get(tool)

    def get_events(self, tool):
        return self.events[tool]

    def set_events(self, tool, events):
        assert tool in self.tools, "ValueError in Python"
        self.events[tool] = events


def test_tools_hear_nothing_meanwhile_and_the_same_afterwards(monkeypatch):
    monitoring = Monitoring()
    monkeypatch.setattr(sys, "monitoring", monitoring, raising=False)
    with suppress(KeyError), unwatched():
        assert monitoring.events == {1: 0, 4: 0}
        raise KeyError
    assert monitoring.events == {1: 0b101, 4: 0}
    with unwatched():
        del monitoring.tools[1]
    assert monitoring.events == {1: 0, 4: 0}


def called() -> None:
    """What is to be seen, or not."""


def test_the_profiler_of_python_is_suspended():
    profiler = cProfile.Profile()
    profiler.enable()
    called()
    with unwatched():
        called()
    called()
    profiler.disable()
    profiler.create_stats()
    counts = {name: calls for (_, _, name), (calls, *_) in profiler.stats.items()}
    assert counts["called"] == 2


def test_what_could_not_be_put_back_stays(monkeypatch):
    watcher = object()
    monkeypatch.setattr(sys, "getprofile", lambda: watcher)
    monkeypatch.setattr(sys, "setprofile", lambda _: 1 / 0)
    with unwatched():
        pass


def test_a_tracer_is_suspended(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "monitoring", SimpleNamespace(get_tool=lambda _: None), raising=False)
    before = sys.gettrace()
    sys.settrace(lambda frame, *_: seen.append(frame.f_code.co_name))
    try:
        with unwatched():
            called()
        called()
    finally:
        sys.settrace(before)
    assert seen.count("called") == 1
