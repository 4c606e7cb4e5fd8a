"""The process in which tests have the simulated accelerator."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests import simulated
from tests.simulated import CannotBuildError, Simulator, process
from tests.simulated.process import Process, on_sim


@on_sim
def passes(sim: Simulator) -> None:
    assert torch.accelerator.current_accelerator() == torch.device("sim")
    sim.rules(kernel_ns=7)


@on_sim
def fails(sim: Simulator, expected: int) -> None:
    found = sim.kernel_count
    assert found == expected


@on_sim
def skips(sim: Simulator) -> None:
    pytest.skip("not today")


@on_sim
def ends_the_process(sim: Simulator) -> None:
    os._exit(3)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    process.library_or_skip()


@pytest.mark.usefixtures("library")
def test_what_a_test_does_there_is_told() -> None:
    there = Process()
    there.run(passes.on_sim, {})
    with pytest.raises(pytest.skip.Exception, match="not today"):
        there.run(skips.on_sim, {})
    with pytest.raises(pytest.fail.Exception, match=r"found = 0"):
        there.run(fails.on_sim, {"expected": 5})
    with pytest.raises(pytest.fail.Exception, match="the process ended"):
        there.run(ends_the_process.on_sim, {})
    there.run(passes.on_sim, {})
    assert not hasattr(torch, "sim")  # in this one


@pytest.mark.parametrize("required", [False, True])
def test_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, required: bool
) -> None:
    monkeypatch.setenv("LAYERBENCH_SIM_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv(process.REQUIRED, raising=False)
    if required:
        monkeypatch.setenv(process.REQUIRED, "1")
    monkeypatch.setattr(process, "_cannot_build", process._cannot_build.__wrapped__)
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match=r"no C\+\+ compiler: apt-get install g\+\+"):
        process.library_or_skip()


def test_a_library_that_cannot_be_built_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAYERBENCH_SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(simulated, "FLAGS", ("-no-such-flag",))
    with pytest.raises(CannotBuildError, match="g\\+\\+ failed"):
        simulated.built()


def test_an_older_pytorch_is_a_reason_to_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAYERBENCH_SIM_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "__version__", "2.4.1+cpu")
    with pytest.raises(CannotBuildError, match=r"needs PyTorch 2\.11"):
        simulated.built()
