"""Module objects in fresh processes: they arrive as they were, or it is said why they cannot go."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from layerbench.api.inputs import what_runs
from layerbench.errors import UsageError
from layerbench.profilers import processes
from layerbench.profilers.handing_over import handed_over, received
from layerbench.profilers.processes import (
    Job,
    Request,
    measure_in_processes,
    measure_pair_in_processes,
)
from layerbench.records.workload import Plan
from tests.models import Small

PLAN = Plan(warmup=0, iterations=1, function_iterations=0, threads=1)


def subject_of(module, inputs):
    workload, built = what_runs(
        module, inputs, batch=None, channels_last=False, mode="eval", seed=0
    )
    assert built is not None
    return workload, built


def test_it_arrives_as_it_was_and_the_file_goes() -> None:
    _, built = subject_of(Small(), (torch.rand(1, 3, 8, 8),))
    built.module.stem.weight.data = built.module.stem.weight.data.to(
        memory_format=torch.channels_last
    )
    with handed_over(built) as handed:
        arrived = received(handed)
    assert not Path(handed.file).parent.exists()
    assert arrived.module is not built.module
    for name, tensor in built.module.state_dict().items():
        other = arrived.module.state_dict()[name]
        assert torch.equal(tensor, other)
        assert tensor.stride() == other.stride()
    assert torch.equal(arrived.args[0], built.args[0])
    with handed_over(None) as nothing:
        assert received(nothing) is None


def test_what_cannot_go_is_said_with_what_to_do(tmp_path, monkeypatch) -> None:
    class Local(nn.Module):
        def forward(self, x):
            return x

    workload, built = subject_of(Local(), torch.rand(1, 3))
    with pytest.raises(UsageError, match=r"a Local cannot be handed to fresh .*processes=1"):
        measure_in_processes(workload, PLAN, "cpu", subject=built)

    (tmp_path / "passing.py").write_text("from torch import nn\nclass Net(nn.ReLU): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import passing

    _, built = subject_of(passing.Net(), torch.rand(1, 3))
    with handed_over(built) as handed:
        # As in a process that does not know the module yet.
        monkeypatch.delitem(sys.modules, "passing")
        arrived = received(handed).module
        assert type(arrived).__name__ == "Net"
        assert type(arrived) is not passing.Net
        # As in one that finds the class nowhere.
        del sys.modules["passing"]
        (tmp_path / "passing.py").unlink()
        with pytest.raises(UsageError, match=r"the module cannot be handed .*at the top of a file"):
            received(handed)


def test_a_worker_measures_what_it_is_handed(monkeypatch) -> None:
    """Both kinds of request, in this process."""
    heavy, light = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(3, 5, 3))
    x = torch.rand(1, 3, 8, 8)
    workloads, subjects = zip(*(subject_of(module, x) for module in (heavy, light)), strict=True)
    asked: list[Request] = []

    def measured(request: Request):
        asked.append(Request.model_validate_json(request.model_dump_json()))
        return processes._measured(asked[-1])

    monkeypatch.setattr(processes, "_measure_in_worker", measured)
    (alone,) = measure_in_processes(workloads[0], PLAN, "cpu", subject=subjects[0])
    assert [row.path for row in alone.facts.modules] == ["", "0", "1"]
    jobs = tuple(Job(workload=workload, plan=PLAN, device="cpu") for workload in workloads)
    pairs = measure_pair_in_processes(jobs, 2, subjects=subjects)
    rows = [[[row.path for row in run.facts.modules] for run in pair] for pair in pairs]
    assert rows == [[["", "0", "1"], ["", "0"]]] * 2
    assert [request.number for request in asked] == [0, 0, 1]


def test_a_worker_looks_for_modules_where_its_parent_does(tmp_path, monkeypatch) -> None:
    """Models by name, too: pytest's ``pythonpath`` is in no environment variable."""
    (tmp_path / "told_of.py").write_text("from torch import nn\nNet = nn.ReLU\n")
    before = [*sys.path]
    monkeypatch.syspath_prepend(tmp_path)
    workload, _ = what_runs(
        "told_of:Net", "1x3x2x2", batch=None, channels_last=False, mode="eval", seed=0
    )

    def measured(request: Request):
        monkeypatch.setattr("sys.path", [*before])  # as in a fresh process
        return processes._measured(request)

    monkeypatch.setattr(processes, "_measure_in_worker", measured)
    (run,) = measure_in_processes(workload, PLAN, "cpu")
    assert run.facts.modules[0].type == "ReLU"
    assert sys.path == [*before, str(tmp_path)]
