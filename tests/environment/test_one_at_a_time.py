"""Calls that must not overlap: between threads, within one, and in a child of a fork."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest

from layerbench.environment.one_at_a_time import one_at_a_time


def test_calls_of_several_threads_do_not_overlap() -> None:
    inside: list[int] = []
    most: list[int] = []

    @one_at_a_time
    def first(number: int) -> int:
        inside.append(number)
        most.append(len(inside))
        time.sleep(0.002)
        inside.remove(number)
        return number

    @one_at_a_time
    def second(number: int) -> int:
        return first(number)  # which its own turn does not keep from

    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(call, n) for n, call in enumerate([first, second] * 6)]
    assert [one.result(timeout=5) for one in made] == [*range(12)]
    assert max(most) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_waits_for_no_thread_of_its_parent() -> None:
    began, end = Event(), Event()

    @one_at_a_time
    def held() -> None:
        began.set()
        end.wait(5)

    thread = Thread(target=held)
    thread.start()
    began.wait(5)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(2)  # ends it where it waits
        one_at_a_time(lambda: None)()
        os._exit(0)
    end.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
