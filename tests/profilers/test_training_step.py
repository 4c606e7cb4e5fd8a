"""A training step taken apart, from the model to the report."""

from __future__ import annotations

import io
import sys
import types

import pytest
import torch
from torch import nn

import layerbench
from layerbench import cli, reporters, units
from layerbench.environment.devices.cpu import Cpu
from layerbench.errors import DataError, ModelRunError, NotEnoughMemory, UsageError
from layerbench.profilers import batches
from layerbench.profilers.own_step import OwnStep
from layerbench.records.memory import Peak
from layerbench.records.training_step import (
    STEP_PHASES,
    PhaseRow,
    TrainingMemory,
    TrainingProfile,
    TrainingRow,
)
from layerbench.records.workload import Plan
from layerbench.reporters.html.document import bundled, of
from layerbench.store import paths, reading, writing
from layerbench.zoo import Built
from tests.models import Small
from tests.support.paths import ROOT
from tests.support.sample_profiles import environment, rows, summary

QUICK = {"threads": 1, "warmup": 1, "iterations": 4}


def sample() -> TrainingProfile:
    """The tree of the sample profiles, each backward twice as long as its forward."""
    phases = dict(zip(STEP_PHASES, (0.1, 0.4, 10.0, 0.5, 20.0, 4.0), strict=True))

    def twice(time):
        return None if time is None else summary(2e3 * time.mean)

    return TrainingProfile(
        workload=layerbench.Workload(
            model="tiny", input="2x3x32x32", shape=(2, 3, 32, 32), batch=2, mode="train"
        ),
        plan=Plan(warmup=5, iterations=50, threads=1),
        environment=environment(warnings=("the load was 1.8 on 2 cores before the run",)),
        optimizer="sgd",
        model_type="TinyNet",
        parameters=12_345,
        step=summary(35.0, verdict="noisy", missed=("relative IQR 14 % > 10 %",)),
        phases=tuple(PhaseRow(name=name, time=summary(ms)) for name, ms in phases.items()),
        rows=tuple(
            TrainingRow(
                path=row.path,
                type=row.type,
                depth=row.depth,
                calls=row.calls,
                block=row.block,
                position=row.position,
                input_shapes=row.input_shapes,
                output_shapes=row.output_shapes,
                parameters=row.parameters,
                forward=row.inclusive,
                forward_self=row.self_,
                backward=twice(row.inclusive),
                backward_self=twice(row.self_),
                kept=None if row.inclusive is None else 2**20,
                live={} if row.inclusive is None else {"forward": 5 * 2**20, "backward": 9 * 2**20},
                note=row.note,
            )
            for row in rows()
            if row.kind == "module"
        ),
        instrumented_s=35.2e-3,
        overhead=1.006,
        overhead_low=1.001,
        overhead_high=1.011,
        outside_s=0.3e-3,
        forward_sum_ratio=1.0,
        backward_sum_ratio=1.0,
        memory=TrainingMemory(
            resident=2**20,
            peak=Peak(
                bytes=9 * 2**20,
                owner="features",
                phase="backward",
                operator="aten.convolution_backward",
                by_category={"parameters": 2**20, "activations": 8 * 2**20},
            ),
            live={"forward": 5 * 2**20, "loss": 6 * 2**20, "backward": 9 * 2**20},
        ),
    )


@pytest.mark.parametrize("format", ["txt", "md", "csv", "json"])
def test_golden_training(format, golden):
    golden(reporters.render(format, sample()), reporters.suffix(format))


def test_what_the_page_is_told(golden):
    golden(f"{of(bundled(sample())).model_dump_json(indent=1)}\n", ".page.json")


def test_shares_of_blocks_are_of_the_same_steps_as_their_times():
    """A step that the layers are timed in may take far longer than one without."""
    record = sample()
    swift = [
        phase.model_copy(update={"time": summary(1e3 * phase.time.mean / 10)})
        for phase in record.phases
    ]
    text = reporters.render("txt", record.model_copy(update={"phases": tuple(swift)}))
    assert "By block  features.2 39.9 %, features.1 30.0 %, features.0 20.0 %" in text


def test_the_record_reads_back(tmp_path):
    path = tmp_path / "x.json"
    writing.write_text(path, reporters.render("json", sample()))
    assert reading.read(path) == sample()


def test_a_module_is_copied_and_its_step_adds_up():
    torch.manual_seed(0)
    model = Small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = layerbench.profile_training(model, torch.rand(2, 3, 16, 16), optimizer="adam", **QUICK)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (found.forward_sum_ratio, found.backward_sum_ratio) == (1, 1)
    assert [phase.name for phase in found.phases] == list(STEP_PHASES)
    assert found.step.n == QUICK["iterations"]
    total = sum(phase.time.mean for phase in found.phases)
    assert total == pytest.approx(found.step.mean, rel=1e-6)
    rows = {row.path: row for row in found.rows}
    assert rows["unused"].forward is None
    assert rows["blocks"].backward.mean == pytest.approx(
        sum(rows[path].backward.mean for path in ("blocks.0", "blocks.1"))
        + rows["blocks"].backward_self.mean
    )


def test_memory_by_phase_and_module_is_that_of_the_memory_report(monkeypatch):
    monkeypatch.chdir(ROOT)
    spec, shape = "tests/models.py:small", "2x3x16x16"
    found = layerbench.profile_training(spec, shape, optimizer="adam", device="cpu", **QUICK)
    report = layerbench.memory(spec, shape, training=True, optimizer="adam")
    assert found.memory is not None
    assert found.memory.peak == report.peak
    assert max(found.memory.live.values()) == report.peak.bytes
    expected = {row.path: row for row in report.rows}
    for row in found.rows:
        theirs = expected[row.path]
        assert row.kept == theirs.kept
        if row.live:
            assert max(row.live.values()) == theirs.live_peak
    whole = found.rows[0]
    assert set(whole.live) >= {"forward", "backward"}
    # A module handed over gives the same bytes, from a real run.
    torch.manual_seed(0)
    handed = layerbench.profile_training(
        Small(), torch.rand(2, 3, 16, 16), optimizer="adam", **QUICK
    )
    assert [row.live for row in handed.rows] == [row.live for row in found.rows]


def test_a_model_without_anything_to_train():
    frozen = nn.Conv2d(3, 3, 1).requires_grad_(False)
    with pytest.raises(ModelRunError, match="no parameter requires a gradient"):
        layerbench.profile_training(frozen, torch.rand(1, 3, 8, 8), **QUICK)


def test_an_input_that_is_changed_in_place_comes_fresh_for_every_step():
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print(float(x.sum()), file=seen)
            return self.layer(x.mul_(2))

    seen = io.StringIO()  # what it closes over is put back, what it writes into a file is not
    given = torch.ones(3, 4)
    layerbench.profile_training(Doubles(), given, **QUICK)
    # The last two steps are those that memory is worked out from.
    assert set(seen.getvalue().split()[:-2]) == {"12.0"}
    assert torch.equal(given, torch.ones(3, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"optimizer": "magic"}, UsageError, "no optimizer 'magic'"),
        ({"iterations": 0}, UsageError, "iterations must be at least 1"),
    ],
)
def test_what_cannot_be_meant(arguments, error, says):
    with pytest.raises(error, match=says):
        layerbench.profile_training(Small(), torch.rand(1, 3, 8, 8), **{**QUICK, **arguments})


@pytest.mark.parametrize(
    ("raised", "kind", "says"),
    [
        (ValueError("odd"), ModelRunError, "Linear: the backward failed in Linear: odd"),
        # What says already what to do is not said once more.
        (DataError("the folder is gone"), DataError, "^the folder is gone$"),
        (MemoryError(), NotEnoughMemory, "take a smaller input"),
    ],
)
def test_what_a_step_raises_becomes_one_line_unless_it_is_one(raised, kind, says):
    def broken(_):
        raise raised

    model = nn.Linear(4, 4)
    model.bias.register_hook(broken)
    with pytest.raises(kind, match=says):
        layerbench.profile_training(model, torch.ones(2, 4), **QUICK)


def test_an_input_that_does_not_fit_names_the_layer():
    with pytest.raises(ModelRunError, match="Conv2d at stem"):
        layerbench.profile_training(Small(), torch.rand(2, 5, 8, 8), **QUICK)


@pytest.mark.parametrize(("kind", "pinned"), [("cuda", 1), ("xpu", 1), ("cpu", 0)])
def test_a_gpus_batch_lies_in_pinned_memory(kind, pinned, monkeypatch):
    asked = []

    def pin(tensor):
        asked.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    device = types.SimpleNamespace(kind=kind)
    assert batches.as_loaded(torch.ones(2), device).tolist() == [1, 1]
    batches.as_loaded(torch.ones(2).to_sparse(), device)  # which cannot be pinned
    assert len(asked) == pinned


def test_a_gpus_batch_is_pinned_once_and_copied_without_waiting(monkeypatch):
    pinned, copied = [], []
    usual = torch.Tensor.to

    def to(tensor, *where, **options):
        copied.append(options)
        return usual(tensor, *where, **options)

    class Gpu(Cpu):
        kind = "cuda"

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: pinned.append(1) or batch)
    monkeypatch.setattr(torch.Tensor, "to", to)
    built = Built(nn.Linear(2, 2).train(), (torch.ones(1, 2),))
    workload = layerbench.Workload(model="x", input="own", shape=(1, 2), batch=1, mode="train")
    step = OwnStep(workload, built, Gpu(), "sgd").step
    copied.clear()
    for _ in range(2):
        step.move(step.fetch())
    assert pinned == [1]
    assert copied == [{"copy": True, "non_blocking": True}] * 2


def test_a_device_without_pinned_memory_gets_its_batch_all_the_same(monkeypatch):
    def cannot(_tensor):
        raise RuntimeError("Cannot access accelerator device when none is available.")

    monkeypatch.setattr(torch.Tensor, "pin_memory", cannot)
    device = types.SimpleNamespace(kind="mps")
    assert batches.as_loaded(torch.ones(2), device).tolist() == [1, 1]


@pytest.fixture
def train_profile(monkeypatch, capsys):
    """``train_profile(*arguments)``: exit status, what was printed, what was complained about."""
    monkeypatch.chdir(ROOT)
    spec = ("--model", "tests/models.py:small", "--i", "2x3x16x16", "--device", "cpu")
    plan = ("--threads", "1", "--warmup", "1", "--iterations", "3", "--quiet")

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["layerbench", "train-profile", *spec, *plan, *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_verb(train_profile, tmp_path):
    status, out, err = train_profile()
    assert (status, err) == (0, "")
    assert "small (train) on 2x3x16x16: a training step" in out
    assert "wait for data" in out
    status, out, _ = train_profile("--optimizer", "adamw", "--out", str(tmp_path))
    assert status == 0
    record = reading.read(next(tmp_path.glob("*/*_train_adamw_1-thread.json")))
    assert isinstance(record, TrainingProfile)
    assert record.optimizer == "adamw"


def test_the_verb_complains_before_it_measures(train_profile):
    for arguments, says in (
        (("--format", "speedscope"), "time profiles only"),
        (("--optimizer", "magic"), "--optimizer takes"),
        (("--dtype", "int8"), "--dtype takes"),
    ):
        status, out, err = train_profile(*arguments)
        assert (status, out) == (2, "")
        assert says in err


@pytest.fixture(scope="module")
def checkpointed():
    """A step of two micro-batches, in which a block runs again."""
    torch.manual_seed(0)
    model = Small()
    batch = torch.rand(2, 3, 16, 16)
    options = {"checkpoint_activations": ["blocks.0"], "gradient_accumulation": 2}
    return layerbench.profile_training(model, batch, **options, **QUICK)


def test_recomputation_and_micro_batches_have_rows_of_their_own(checkpointed, tmp_path):
    found = checkpointed
    assert (found.forward_sum_ratio, found.backward_sum_ratio) == (1, 1)
    rows = {row.path: row for row in found.rows}
    assert rows["blocks.0"].recomputation.median > 0
    assert rows["blocks.1"].recomputation is None
    assert found.recomputation.mean == pytest.approx(rows[""].recomputation.mean, rel=1e-6)
    assert found.memory.live["recomputation"] > 0
    assert {"recomputation", "backward"} <= rows["blocks.0"].live.keys()
    for phase in found.phases:
        parts = phase.micro_batches
        assert len(parts) == (0 if phase.name == "optimizer" else 2)
        if parts:
            assert sum(part.mean for part in parts) == pytest.approx(phase.time.mean, abs=1e-9)
    assert found.images == 4
    path = tmp_path / "x.json"
    writing.write_text(path, reporters.render("json", found))
    assert reading.read(path) == found


def test_reports_of_a_checkpointed_step_say_so(checkpointed):
    text = reporters.render("txt", checkpointed)
    assert f"{units.per_second(4 / checkpointed.step.mean)} images/s" in text
    assert "activations checkpointed in blocks.0, 2 micro-batches" in text.replace("\n", " ")
    assert "of it recomputation" in text
    assert "Micro-batches of 2 images" in text
    assert "recomputed ms" in text
    header, *_ = reporters.render("csv", checkpointed).splitlines()
    assert {"recomputation_median_s", "live_recomputation_bytes"} <= set(header.split(","))
    assert '"recomputation"' in reporters.render("trace", checkpointed)
    assert "Recomputation" in of(bundled(checkpointed)).model_dump_json()
    name = paths.place(checkpointed, "out").name
    assert name == "Small_2x3x16x16_train_checkpointed-blocks-0_accumulated-2_sgd_1-thread"
