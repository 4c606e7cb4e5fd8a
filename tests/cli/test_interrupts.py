"""What is interrupted, and what becomes of the processes of a command that is ended."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import layerbench
from layerbench import cli, zoo
from layerbench.analysis.aggregation import assemble
from layerbench.api import timing as api_timing
from layerbench.cli import table, timer
from layerbench.environment import devices
from layerbench.profilers import timing
from layerbench.records.workload import Plan
from layerbench.reporters import render
from layerbench.store.paths import places
from tests.models import Small
from tests.support.paths import ROOT

PLAN = Plan(warmup=1, iterations=20, function_iterations=2)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C is heard, as it is not where a shell started the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting:
    """A progress that interrupts when it hears of a step."""

    def __init__(self, phase: str, done: int) -> None:
        self._at = (phase, done)

    def step(self, phase: str, done: int, total: int) -> None:
        del total
        if (phase, done) == self._at:
            raise KeyboardInterrupt


def interrupted(phase: str, done: int, *, keep: bool = True) -> layerbench.Profile:
    built = zoo.with_inputs(Small().eval(), torch.rand(1, 3, 8, 8))
    workload = zoo.describe(built)
    run = timing.measure(
        workload,
        PLAN,
        devices.get("cpu"),
        subject=built,
        progress=Interrupting(phase, done),
        keep_interrupted=keep,
    )
    return assemble(workload, PLAN, [run])


def test_an_interrupted_measurement_has_the_rounds_up_to_then() -> None:
    record = interrupted("measuring", 7)
    assert record.stop == "interrupted"
    assert record.whole.n == 7
    assert record.whole.verdict != "stable"
    assert "interrupted" in record.whole.missed
    assert record.reconciliation is not None
    assert "interrupted" in record.absent["functions"]
    first = "Interrupted after 7 of 20 iterations: this record is partial."
    assert record.environment.warnings[0] == first
    for kind in ("txt", "md", "html"):
        assert first in " ".join(render(kind, record).split())
    assert first in " ".join(render("txt", record).splitlines()[2:5])
    assert places(record, Path()).whole.name.endswith("_partial")


def test_an_interrupt_while_functions_are_timed_keeps_all_rounds() -> None:
    record = interrupted("functions", 1)
    assert record.whole.n == 20
    assert {row.kind for row in record.layers} == {"module"}


@pytest.mark.parametrize(
    ("phase", "done", "keep"),
    [("measuring", 7, False), ("warm-up", 0, True), ("measuring", 0, True)],
)
def test_an_interrupt_that_leaves_nothing_or_is_not_expected_passes(
    phase: str, done: int, keep: bool
) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(phase, done, keep=keep)


def test_a_comparison_says_that_a_side_was_interrupted() -> None:
    whole = layerbench.profile(
        Small().eval(), torch.rand(1, 3, 8, 8), warmup=1, iterations=10, function_iterations=1
    )
    notes = layerbench.compare(whole, interrupted("measuring", 12)).notes
    assert any("Interrupted after 12 of 20 iterations" in note for note in notes)


def test_an_interrupted_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api_timing, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["timer.py", "--model", "resnet18", "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        cli.run(timer.NAME)
    assert left.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


WORKER = """
import os, time
from layerbench.environment.orphans import end_with_input, end_with_parent
end_with_parent({parent})
end_with_input()
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
code = sys.argv[1].format(parent=os.getpid())
subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
time.sleep(60)
"""


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_ends_with_its_parent(ended_by: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, WORKER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.send_signal(ended_by)
    parent.wait()
    assert gone(worker)
    parent.stdout.close()


def gone(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    for _ in range(200):
        # What nobody has asked for its end stays as a zombie where there is no init.
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_an_interrupt_while_python_loads_is_no_traceback(tmp_path: Path) -> None:
    package = tmp_path / "layerbench"
    package.mkdir()
    (package / "__init__.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    (tmp_path / "timer.py").write_bytes((ROOT / "timer.py").read_bytes())
    ended = subprocess.run(
        [sys.executable, "timer.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "")


def sleeping() -> None:
    time.sleep(30)


def lacking() -> None:
    raise AttributeError("half a library")


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("after", [sleeping, lacking])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_waits_for_the_library_that_is_loading(
    monkeypatch, capsys, tmp_path, after, times
):
    # As torch does, whose import of NumPy may fail for whatever reason.
    (tmp_path / "swallows.py").write_text(
        "import contextlib, signal\n"
        "raised = 0\n"
        f"for number in range({times}):\n"
        "    with contextlib.suppress(BaseException):\n"
        "        raised += 1\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        raised -= 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    raised: list[int] = []

    def command() -> None:
        raised.append(importlib.import_module("swallows").raised)
        after()

    monkeypatch.setattr(table, "command", command)
    monkeypatch.setattr(sys, "argv", ["layerbench", "table"])
    importlib.invalidate_caches()
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.modules.pop("swallows", None)
    assert (left.value.code, raised) == (130, [times - 1])
    assert capsys.readouterr().err.startswith("interrupted: ")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
