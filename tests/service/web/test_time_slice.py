"""The time slice of the thread that answers."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from layerbench.service.web import time_slice
from layerbench.service.web.time_slice import RESET_ON_FORK, SHORT_NS, short_time_slice

USUAL = time_slice._read()
# Where the kernel tells none, it lets nobody choose one either.
on_linux_6_12 = pytest.mark.skipif(
    USUAL is None or USUAL.policy != 0 or USUAL.runtime <= SHORT_NS, reason="takes Linux 6.12"
)
TOLD = "from layerbench.service.web import time_slice; print(time_slice._read().runtime)"


def in_a_thread(function):
    """What it returns; a thread's flag stays with it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@on_linux_6_12
def test_a_thread_has_a_short_slice_until_the_end():
    def seen():
        with short_time_slice():
            within = time_slice._read()
        return within, time_slice._read()

    within, after = in_a_thread(seen)
    assert within == USUAL._replace(runtime=SHORT_NS, flags=USUAL.flags | RESET_ON_FORK)
    assert after._replace(flags=USUAL.flags) == USUAL


@on_linux_6_12
def test_what_it_starts_has_the_usual_slice():
    """A measuring process, and its threads."""

    def seen():
        with short_time_slice():
            return in_a_thread(time_slice._read), subprocess.check_output(
                [sys.executable, "-c", TOLD]
            )

    thread, process = in_a_thread(seen)
    assert thread == USUAL
    assert int(process) == USUAL.runtime


@on_linux_6_12
def test_the_thread_that_answers_has_it_while_it_serves(client):
    assert client.portal.call(time_slice._read).runtime == SHORT_NS


def test_a_flag_that_cannot_be_taken_back_is_kept(monkeypatch):
    """As of a process without privilege."""
    wanted = []
    before = time_slice._Attributes(48, 0, 0, 5, 0, 3_000_000, 0, 0)

    def set_unless_without_the_flag(attributes):
        wanted.append(attributes)
        return bool(attributes.flags)

    monkeypatch.setattr(time_slice, "_read", lambda: before)
    monkeypatch.setattr(time_slice, "_set", set_unless_without_the_flag)
    with short_time_slice():
        pass
    flag = before._replace(flags=RESET_ON_FORK)
    assert wanted == [flag._replace(runtime=SHORT_NS), before, flag]


@pytest.mark.parametrize(
    "before",
    [
        None,
        # Linux before 6.12; a policy that somebody chose; a slice as short.
        time_slice._Attributes(48, 0, 0, 0, 0, 0, 0, 0),
        time_slice._Attributes(48, 3, 0, 0, 0, 3_000_000, 0, 0),
        time_slice._Attributes(48, 0, 0, 0, 0, SHORT_NS, 0, 0),
    ],
)
def test_elsewhere_nothing_is_done(monkeypatch, before):
    monkeypatch.setattr(time_slice, "_read", lambda: before)
    monkeypatch.setattr(time_slice, "_set", pytest.fail)
    with short_time_slice():
        pass


def test_a_processor_whose_calls_are_not_known(monkeypatch):
    monkeypatch.setattr(time_slice.platform, "machine", lambda: "pdp11")
    assert time_slice._read() is None
