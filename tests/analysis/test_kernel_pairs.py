"""Kernels beside kernels, and kernels beside layers, with times that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from layerbench import reporters
from layerbench.analysis.comparison import compare
from layerbench.analysis.kernel_pairs import kernel_pairs
from layerbench.analysis.paired import of_rounds
from layerbench.records import samples
from layerbench.records.comparison import Comparison
from layerbench.records.compilation import Compilation, KernelPart
from layerbench.records.samples import KernelFacts, RowFacts, Run, RunFacts
from layerbench.records.timing import KernelRow, LayerRow, Profile
from layerbench.records.view import View
from tests.support.sample_devices import launch_bound
from tests.support.sample_profiles import environment, layered, summary

# Own times without compilation, milliseconds; the model's own are 1, of which add() has 0.5.
OWN = {"conv": 4.0, "relu": 2.0, "dropout": 0.5}
EXACT = {"spread": 0.0}


def part(module: str, function: str, share: float) -> KernelPart:
    return KernelPart(module=module, function=function, share=share)


CONV = (part("conv", "convolution", 1),)
FUSED = (part("relu", "relu", 0.5), part("conv", "convolution", 0.25), part("", "add", 0.25))
KERNELS = (
    ("extern_kernels.convolution", 3.0, CONV),
    ("cpp_fused_add_convolution_relu_0", 4.0, FUSED),
)


def eager(**changes: object) -> Profile:
    rows = [("", "Tiny", "module", sum(OWN.values()) + 1, 1.0)]
    rows += [(name, name.title(), "module", own, own) for name, own in OWN.items()]
    rows += [("add()", "add", "function", 0.5, 0.5)]
    layers = tuple(
        LayerRow(
            path=path,
            type=type,
            kind=kind,
            depth=bool(path),
            calls=1,
            inclusive=summary(inclusive, **EXACT),
            self_=summary(own, **EXACT),
        )
        for path, type, kind, inclusive, own in rows
    )
    whole = summary(8.0, **EXACT)
    return layered().model_copy(update={"layers": layers, "whole": whole, **changes})


def compiled(kernels=KERNELS, slower: float = 1.0) -> Profile:
    rows = tuple(
        KernelRow(
            module=layers[0].module,
            function=layers[0].function,
            name=name,
            calls=1,
            time=summary(ms * slower, **EXACT),
            layers=layers,
            position=at,
        )
        for at, (name, ms, layers) in enumerate(kernels)
    )
    made = Compilation(mode="default", seconds=1, graphs=1, kernels=len(rows))
    longest_first = tuple(sorted(rows, key=lambda row: -row.time.mean))
    return eager(kernels=longest_first, compilation=made)


def by_layers() -> Comparison:
    return compare(eager(), compiled(), names=("a.json", "b.json"))


def test_a_kernel_stands_beside_its_part_of_the_layers_own_times() -> None:
    """The convolution is in kernels for 3 ms and for 0.25 of 4 ms: 3/4 and 1/4 of its 4 ms."""
    found = by_layers()
    assert found.kernels_beside == "layers"
    alone, fused = found.kernels
    assert [(one.path, one.part) for one in alone.beside] == [("conv", 0.75)]
    assert alone.baseline_s == pytest.approx(3e-3)
    assert alone.ratio == pytest.approx(1)
    assert {one.path: one.part for one in fused.beside} == {"relu": 1, "conv": 0.25, "add()": 1}
    assert fused.baseline_s == pytest.approx(2e-3 + 1e-3 + 0.5e-3)
    assert fused.contender_s == pytest.approx(4e-3)
    assert fused.ratio == pytest.approx(4 / 3.5, rel=1e-5)
    # The dropout, and what the model does in Python besides its add().
    (note,) = (note for note in found.notes if note.startswith("No kernel"))
    assert "1.000 ms" in note
    assert "13.3 %" in note
    # The other way round the ratio is the inverse.
    turned = compare(compiled(), eager()).kernels[1]
    assert turned.ratio == pytest.approx(3.5 / 4, rel=1e-5)
    assert turned.beside == fused.beside


def test_functions_that_inductor_took_apart_stand_for_their_module() -> None:
    """Of two functions of the model only one has a row: both stand for its own time."""
    taken_apart = (*FUSED[:2], part("", "add", 0.125), part("", "softmax", 0.125))
    found = compare(eager(), compiled((*KERNELS[:1], (KERNELS[1][0], 4.0, taken_apart))))
    assert {one.path: one.part for one in found.kernels[1].beside} == {
        "relu": 1,
        "conv": 0.25,
        "": 1,
    }
    # Rows of the convolution alone are not there: the module around it has them.
    coarse = eager(layers=tuple(row for row in eager().layers if row.path != "conv"))
    assert compare(coarse, compiled()).kernels[0].beside[0].path == ""


def test_kernels_are_matched_by_name_and_layers_and_then_by_their_order() -> None:
    twice = ("cpp_fused_relu_1", 1.0, (part("relu", "relu", 1),))
    before = compiled((*KERNELS, twice, (twice[0], 2.0, twice[2])))
    # One more kernel in front shifts all numbers; the first two have changed places.
    moved = [(name.replace("_0", "_1"), ms, layers) for name, ms, layers in KERNELS[::-1]]
    new = ("cpp_fused_clone_0", 1.0, (part("dropout", "clone", 1),))
    again = [("cpp_fused_relu_2", ms, twice[2]) for ms in (3.0, 4.0)]
    pairs = kernel_pairs(before, compiled((new, *moved, *again)))
    assert pairs.how == "kernels"
    times = [(pair.before.time.mean, pair.after.time.mean) for pair in pairs.pairs]
    assert times == [(4e-3, 4e-3), (3e-3, 3e-3), (1e-3, 3e-3), (2e-3, 4e-3)]
    assert pairs.pairs[0].note == "was cpp_fused_add_convolution_relu_0"
    assert (pairs.added, pairs.missing) == (("cpp_fused_clone_0",), ())
    # What the same kernels do for other layers is not the same.
    other = compiled(((KERNELS[0][0], 3.0, (part("stem", "convolution", 1),)),))
    assert not kernel_pairs(other, compiled(KERNELS[:1])).pairs


def test_kernels_of_a_gpu_are_matched_by_name_module_and_function() -> None:
    before = launch_bound()
    slower = [
        one.model_copy(update={"time": summary(one.time.mean * 1e5)}) for one in before.kernels
    ]
    after = before.model_copy(update={"kernels": (*slower[1:], slower[0])})
    found = compare(before, after)
    assert found.kernels_beside == "kernels"
    assert len(found.kernels) == len(before.kernels)
    assert {one.verdict for one in found.kernels} == {"SLOWER"}
    # Another operator of the module ran the first one.
    other = before.kernels[0].model_copy(update={"function": "softmax"})
    pairs = kernel_pairs(before, before.model_copy(update={"kernels": (other,)}))
    assert (pairs.pairs, pairs.added) == ((), (other.name,))


def test_without_kernels_or_layers_there_is_nothing_to_compare() -> None:
    assert kernel_pairs(eager(), eager()).how is None
    whole = eager(layers=())
    assert kernel_pairs(whole, compiled()).how is None
    assert "--kernels" not in reporters.render("screen", compare(eager(), eager()))


def test_reports_show_kernels_where_they_are_wanted() -> None:
    found = by_layers()
    assert Comparison.model_validate_json(reporters.render("json", found)) == found
    wanted = View(kernels=True)
    text = reporters.render("txt", found, wanted)
    assert "conv 75 %" in text
    assert "Each layer's own" in text
    assert "--kernels lists the kernels." in reporters.render("screen", found)
    assert "Longest kernel, none called: cpp_fused_add" in reporters.render("screen", found, wanted)
    for name in ("md", "html"):
        assert "extern_kernels.convolution" in reporters.render(name, found, wanted)
        assert "extern_kernels.convolution" not in reporters.render(name, found)
    assert "relu=1; conv=0.25; add()=1" in reporters.render("csv", found, wanted)
    both = compare(compiled(), compiled(slower=30.0))
    assert both.slower
    text = reporters.render("txt", both, wanted)
    assert "some kernels SLOWER" in text
    assert "relu ≈50 %, conv ≈25 %, (model) ≈25 %" in text


# --- in turn -------------------------------------------------------------------------------

ROUNDS = 40


def runs() -> tuple[Run, Run]:
    """The same times in rounds that get slower by half; functions in a pass at half of that."""
    drift = np.linspace(1.0, 1.5, ROUNDS)
    paths = [("", "Tiny"), *((name, name.title()) for name in OWN)]
    modules = [row(path, type, "module") for path, type in paths]
    own = np.outer(drift, [1.0, *OWN.values()])
    arrays = {
        samples.UNTOUCHED: own.sum(axis=1),
        samples.INSTRUMENTED: own.sum(axis=1),
        samples.INCLUSIVE: own,
        samples.SELF: own,
        samples.FUNCTIONS: np.full((5, 1), 0.5 * 1.25),
    }
    of_kernels = {samples.KERNELS: np.outer(drift, [ms for _, ms, _ in KERNELS])}
    compiled_functions = {samples.FUNCTIONS: np.outer(drift, [1.0])}
    facts = RunFacts(
        model_type="Tiny",
        parameters=0,
        modules=tuple(modules),
        functions=(row("add()", "add", "function"),),
        environment=environment(),
        stop="iterations",
        mark_cost_s=0,
        wrapper_cost_s=0,
    )
    kernels = tuple(
        KernelFacts(module="conv", function="", name=name, calls=1, layers=layers)
        for name, _, layers in KERNELS
    )
    made = Compilation(mode="default", seconds=1, graphs=1)
    known = facts.model_copy(update={"kernels": kernels, "compilation": made})
    return Run(facts, in_ns(arrays)), Run(
        known, in_ns({**arrays, **of_kernels, **compiled_functions})
    )


def row(path: str, type: str, kind: str) -> RowFacts:
    of = "" if kind == "function" else None
    return RowFacts(
        path=path, type=type, kind=kind, depth=1, order=0, calls=1, block=False, module=of
    )


def in_ns(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: (times * 1e6).astype(np.int64) for name, times in arrays.items()}


def test_in_turn_kernels_and_functions_are_paired_round_by_round() -> None:
    pairs = kernel_pairs(eager(), compiled()).pairs
    evidence = of_rounds([runs()], kernels=pairs)
    assert evidence.kernels[0].ratio.ratio == pytest.approx(1, rel=1e-4)
    assert evidence.kernels[1].ratio.ratio == pytest.approx(4 / 3.5, rel=1e-4)
    # The function took half of the model's own time in its pass, and takes it in each round.
    add = evidence.rows["add()"]
    assert add.ratio.ratio == pytest.approx(2, rel=1e-4)
    assert add.baseline_s == pytest.approx(0.5e-3 * 1.25, rel=1e-3)
