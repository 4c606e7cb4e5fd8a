"""Work is attributed to where it ran: modules that blocks share, borrow, or call again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.analysis.views import down_to
from layerbench.environment.devices.clocks import ManualClock
from layerbench.instruments.calls import CallTree, Names
from layerbench.instruments.modules import module_facts
from layerbench.instruments.step_timer import Step, StepTimer
from layerbench.records.timing import ONLY_INSIDE
from tests.faulty import Case, sharing
from tests.faulty.sharing import LAYER, MODELS, WORK, built
from tests.instruments.test_step_timer import Takes

BYTES = sharing.BATCH * sharing.WIDTH * 4
BY_NAME = "blocks whose forward is called by name"


@contextmanager
def layers_counted(model: nn.Module) -> Iterator[Counter[str]]:
    """How many calls of linear layers ran within the calls of each module, by PyTorch's hooks."""
    counts: Counter[str] = Counter()
    running: list[str] = []
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: running.append(path)))
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(lambda *_: counts.update(set(running))))
        handles.append(module.register_forward_hook(lambda *_: running.pop() and None))
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_a_module_has_what_ran_within_its_calls(case: Case):
    model, inputs = case.build()
    with layers_counted(model) as counts, torch.no_grad():
        model(*inputs)
    structure = layerbench.structure(model, inputs)
    assert (structure.parameters, structure.flops) == (case.parameters, case.flops)
    memory = {row.path: row for row in layerbench.memory(model, inputs).rows}
    called = [row for row in structure.rows if row.calls]
    if case.name == BY_NAME:  # PyTorch's hooks do not see these
        counts.update({"routes.left": 2, "routes.right": 2})
    assert {row.path: row.flops for row in called} == {
        row.path: WORK * counts[row.path] for row in called
    }
    if case.name != "two inputs through one branch":  # additions take memory, too
        for row in called:
            assert memory[row.path].allocated == BYTES * counts[row.path], row.path


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_blocks_never_overlap(case: Case):
    """Whatever is counted, the blocks have at most the whole; most of these have all of it."""
    model, inputs = case.build()
    structure = layerbench.structure(model, inputs)
    blocks = [row for row in structure.rows if row.block]
    assert blocks
    assert sum(row.flops or 0 for row in blocks) <= structure.flops
    memory = layerbench.memory(model, inputs, training=True)
    assert sum(r.kept or 0 for r in memory.rows if r.block) <= (memory.rows[0].kept or 0)
    few = {"warmup": 0, "iterations": 2}
    profile = layerbench.profile(model, inputs, function_iterations=1, **few)
    whole = profile.layers[0].inclusive.mean
    shown = [row for row in profile.layers if row.block]
    # Each mean is rounded to a tenth of a nanosecond.
    assert sum(row.inclusive.mean for row in shown if row.inclusive) <= whole + 1e-9
    steps = layerbench.profile_training(model, inputs, **few)
    for name in ("forward", "backward"):
        times = [getattr(row, name) for row in steps.rows if row.block]
        together = sum(time.mean for time in times if time)
        assert together <= getattr(steps.rows[0], name).mean + 1e-9, name
    with layerbench.time_layers(model) as layers, torch.no_grad():
        for _ in range(3):
            model(*inputs)
    assert {r.path for r in layers.rows if r.block} == {r.path for r in shown}
    assert {r.path for r in steps.rows if r.block} == {r.path for r in blocks}


def test_three_blocks_that_share_a_layer_have_the_same_work():
    model, inputs = built("a layer that three blocks share")
    record = layerbench.structure(model, inputs)
    rows = {row.path: row for row in record.rows}
    assert [rows[path].flops for path in ("0", "1", "2")] == [2 * WORK] * 3
    assert (rows["0.shared"].flops, rows["0.shared"].calls) == (3 * WORK, 3)
    assert rows["0.shared"].note == "also 1.shared, 2.shared"
    assert rows["1"].parameters == 2 * LAYER
    assert rows["1"].note == f"{LAYER} of its parameters are other modules' too"
    assert record.parameters == 4 * LAYER


def test_a_list_that_shares_a_module_has_its_own_part():
    """A container that never runs has what runs in it, by the name that the module has there."""
    model, inputs = built("a composite module that two blocks share, in lists")
    rows = {row.path: row for row in layerbench.structure(model, inputs).rows}
    assert [rows[path].flops for path in ("0.parts", "1.parts")] == [4 * WORK] * 2
    assert rows["0.parts"].note.startswith(ONLY_INSIDE)
    assert rows["0.parts.1"].flops == 4 * WORK


def test_a_module_inside_a_blocks_call_is_no_block_and_its_row_says_so():
    model, inputs = built("a block that runs a layer which is not in it")
    record = layerbench.structure(model, inputs)
    rows = {row.path: row for row in record.rows}
    assert [row.path for row in record.rows if row.block] == ["a"]
    assert rows["a"].flops == 2 * WORK
    assert rows["projection"].note == "runs inside a, so it is no block"


def test_where_blocks_call_each_other_the_outermost_is_the_block():
    record = layerbench.structure(*built("blocks that call the next one"))
    assert [(row.path, row.flops) for row in record.rows if row.block] == [("blocks.0", 4 * WORK)]


class Timed(nn.Module):
    """Like `sharing.Block`, of layers that take known times."""

    def __init__(self, clock: ManualClock, shared: nn.Module) -> None:
        super().__init__()
        self.own, self.shared = Takes(clock, 1, 10), shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(self.own(x))


def test_the_backward_of_a_shared_layer_belongs_to_the_block_that_ran_it():
    clock = ManualClock()
    shared = Takes(clock, 2, 100)
    model = nn.Sequential(nn.Linear(4, 4), *(Timed(clock, shared) for _ in range(3)))
    paths = [fact.path for fact in module_facts(model)]
    timer = StepTimer.of_modules(model, paths, frozenset(paths), clock)
    x = torch.rand(2, 4)
    step = Step(lambda: x, lambda x: x, model, lambda output, _: output.sum(), lambda: None)
    timed = timer.instrumented(step)
    back = dict(zip(paths, timed.backward_inclusive_ns.tolist(), strict=True))
    assert back == {
        "": 330, "0": 0, "1": 110, "1.own": 10, "1.shared": 300,
        "2": 110, "2.own": 10, "3": 110, "3.own": 10,
    }  # fmt: skip
    own = dict(zip(paths, timed.backward_ns.tolist(), strict=True))
    assert own == {**dict.fromkeys(paths, 0), "1.own": 10, "2.own": 10, "3.own": 10,
                   "1.shared": 300}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "order", "turns"),
    [
        ("lists of modules that run one after the other",
         ["stem", "downs.0", "downs.1", "ups.1", "ups.0", "head"], [None] * 6),
        ("lists of modules that run in turn",
         ["stem", "downs.0", "ups.0", "downs.1", "ups.1", "head"], [1, 2, 3, 4, 5, 6]),
    ],
)  # fmt: skip
def test_blocks_stand_in_order_of_execution(name: str, order: list[str], turns: list[int | None]):
    """A list that is never called itself stands where the first module in it runs."""
    model, inputs = built(name)
    profile = layerbench.profile(model, inputs, warmup=0, iterations=1, function_iterations=1)
    memory = layerbench.memory(model, inputs)
    steps = layerbench.profile_training(model, inputs, warmup=0, iterations=1)
    structure = layerbench.structure(model, inputs)
    for record in (structure, memory, steps, profile):
        text = reporters.render("txt", record)
        table = text[text.index("\nBlocks") :].split("\n\n")[0].splitlines()
        shown = [path for line in table for path in order if f" {path} " in line]
        assert shown == order, record.record
        rows = {row.path: row for row in getattr(record, "layers", None) or record.rows}
        assert [rows[path].turn for path in order] == turns
        assert [rows[path].position for path in order] == [1, 1, 2, 3, 4, 2]
        # A remark stands beside its row, or below it where there is no room.
        lines = {
            line.split()[1]: f"{line} {below.strip()}"
            for line, below in pairwise(text.splitlines())
            if "ModuleList (" in line
        }
        assert ["not called" in lines[f"({n})"] for n in ("downs", "ups", "spare")] == [
            False, False, True,
        ]  # fmt: skip


def test_a_report_to_a_depth_says_what_blocks_it_leaves_out():
    structure = layerbench.structure(*built("lists of modules that run one after the other"))
    assert down_to(structure, 2).notes == ()
    assert down_to(structure, 1).notes == (
        "5 of the 7 blocks lie deeper than 1 and have no row; a depth of 2 shows all",
    )


def test_calls_are_told_by_the_nearest_name_and_counted_once():
    shared, inner = nn.Linear(1, 1), nn.ModuleList()
    named = [("", nn.Module()), ("a", nn.Module()), ("a.s", shared), ("b", inner), ("b.s", shared)]
    calls = CallTree(Names(named))
    root = calls.call(-1, "")
    first = calls.call(calls.call(root, "a"), "a.s")
    second = calls.call(root, "a.s")
    again = calls.call(second, "a.s")
    sums = calls.sums({first: 1, second: 10, again: 100})
    assert sums == {"": 111, "a": 1, "a.s": 111}
    assert calls.maxima({first: 1, again: 100})[""] == 100
    assert calls.names.below("a.s", "b") == "b.s"
    assert calls.home("b.s.never") != root
