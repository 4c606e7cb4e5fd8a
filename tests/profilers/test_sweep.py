"""Sweeps over batch and input sizes: what is measured, and where the climb ends."""

from __future__ import annotations

import csv
import gc
import sys
import weakref

import pytest

import layerbench
from layerbench import cli
from layerbench.analysis import climbing
from layerbench.environment.devices.cpu import Cpu
from layerbench.errors import BadInput, UsageError
from layerbench.profilers import sweep
from layerbench.records.memory import AllocatorFigures
from layerbench.records.sweep import Sweep
from layerbench.store.reading import read
from layerbench.store.writing import write_text
from tests.support.paths import ROOT
from tests.support.sample_runs import run

READER = "tests/models.py:digit_reader"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def quick(models=(READER,), **changes: object) -> Sweep:
    settings = {"batches": (1, 2, 4), "sizes": (8, 16), "device": "cpu", "threads": 1}
    return layerbench.sweep(models, **{**settings, "seconds": 0.2, **changes})


def test_points_by_model_size_and_batch():
    found = quick()
    assert [(p.size, p.batch) for p in found.points] == [
        ((side, side), batch) for side in (8, 16) for batch in (1, 2, 4)
    ]
    assert found.ends == ()
    by_key = {(p.size[0], p.batch): p for p in found.points}
    assert by_key[8, 4].flops == 4 * by_key[8, 1].flops
    assert by_key[16, 4].allocated > by_key[8, 4].allocated
    assert all(p.reserved >= p.allocated for p in found.points)
    assert all(5 <= p.latency.n <= 50 for p in found.points)
    assert all(p.memory == "predicted" for p in found.points)


def test_the_climb_ends_where_memory_does(monkeypatch):
    from layerbench.environment.devices import MemoryInfo
    from layerbench.environment.devices.cpu import Cpu

    # 64 images of 3x64x64 float32 are 3 MiB.
    few = MemoryInfo(total_bytes=2 * 2**20, free_bytes=2 * 2**20)
    monkeypatch.setattr(Cpu, "memory", lambda self: few)
    found = quick(batches=(1, 64, 128), sizes=(64,), seconds=20)
    assert [p.batch for p in found.points] == [1]
    (end,) = found.ends
    assert (end.batch, end.fits) == (64, False)
    assert "are free" in end.why


def test_the_climb_ends_where_it_would_take_too_long():
    found = quick(batches=(1, 2**20), sizes=(8,), seconds=0.05)
    (end,) = found.ends
    assert (end.batch, end.fits) == (2**20, True)
    assert "forwards would take about" in end.why


def test_finished_trainings_are_found(tmp_path):
    from layerbench import reporters

    for name, record in (("a", run()), ("b", run(outcome="running")), ("c", run(flops=None))):
        write_text(tmp_path / name / "run.json", reporters.render("json", record))
        write_text(tmp_path / name / "recipe.json", record.recipe.model_dump_json())
    (found,) = quick(batches=(1,), sizes=(8,), runs=tmp_path).runs
    assert (found.model, found.accuracy) == ("resnet50", 0.52)


def test_a_size_that_the_model_does_not_take():
    with pytest.raises(layerbench.errors.ModelRunError, match="alexnet"):
        quick(models=("alexnet",), sizes=(8,), batches=(1,))
    with pytest.raises(BadInput):
        quick(models=("tests/models.py:digit_reader",), sizes=None)


def test_an_image_each_second_is_expected_to_cost_as_much_at_the_next_batch():
    from tests.support.sample_runs import point

    assert climbing.expected_s([], 4) == 0
    last = point(2)
    assert climbing.expected_s([point(1), last], 4) == pytest.approx(2 * last.latency.median)


@pytest.fixture
def verb(monkeypatch, capsys):
    def call(*arguments: object):
        monkeypatch.setattr(sys, "argv", ["layerbench", *map(str, arguments), "--quiet"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_verb(verb, tmp_path):
    common = ("sweep", "--models", READER, "--sizes", "8", "--device", "cpu", "--seconds", "0.1")
    status, out, err = verb(*common, "--batches", "1,2,...,8")
    assert (status, err) == (0, "")
    assert "Latency and memory against batch size" in out
    status, out, _ = verb(*common, "--batches", "1,2", "--out", tmp_path)
    assert status == 0
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"latency_vs_batch.png", "memory_vs_batch.png"}
    assert names == {"sweep.txt", "sweep.json", "sweep.csv", "sweep.md"} | pictures
    record = read(tmp_path / "sweep.json")
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [float(row["median_s"]) for row in rows] == [p.latency.median for p in record.points]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--batches", "0,1"), "--batches takes positive numbers"),
        (("--sizes", "big"), "--sizes takes positive numbers"),
        (("--models", ","), "--models takes names with commas"),
        (("--seconds", "0"), "--seconds must be positive"),
        (("--format", "speedscope"), "time profiles only"),
        (("--models", "vitt"), "no model 'vitt'"),
    ],
)
def test_what_cannot_be_meant(verb, arguments, says):
    status, out, err = verb("sweep", *arguments)
    assert (status, out) == (2, "")
    assert says in err


def test_numbers_double_over_an_ellipsis():
    from layerbench.cli._generated import numbers

    assert numbers("1,2,4,...,256") == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert numbers("8, 3,3") == [3, 8]
    for text in ("", "1,,2", "...,4", "1,...", "-1", "1.5"):
        with pytest.raises(UsageError, match="takes positive numbers"):
            numbers(text)


def test_a_sweep_that_is_ended_early_has_what_was_measured(monkeypatch, tmp_path, capsys):
    usual = sweep.climb

    def ended(what, *others, **options):
        if what.size == (16, 16):
            raise KeyboardInterrupt
        return usual(what, *others, **options)

    monkeypatch.setattr(sweep, "climb", ended)
    words = f"--models {READER} --batches 1,2 --sizes 8,16 --seconds 0.05 --device cpu --quiet"
    monkeypatch.setattr(
        sys, "argv", ["layerbench", "sweep", *words.split(), "--out", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert (left.value.code, capsys.readouterr().out) == (130, "")
    record = read(tmp_path / "sweep.json")
    assert [(point.size[0], point.batch) for point in record.points] == [(8, 1), (8, 2)]
    (note,) = record.notes
    assert note == f"{READER} 16x16: not measured yet when this was written"
    assert note in (tmp_path / "sweep.txt").read_text()


@pytest.mark.slow
def test_nothing_of_the_points_before_is_there_when_a_peak_begins(monkeypatch):
    """A model or an input that waits to be collected would count in the peaks of a device."""
    there: list[weakref.ref[object]] = []
    usual_build, usual_inputs = sweep.zoo.build, sweep.zoo.inputs_for

    def build(workload):
        built = usual_build(workload)
        there.extend(map(weakref.ref, (built.module, *built.args)))
        return built

    def inputs_for(*shape, **options):
        images = usual_inputs(*shape, **options)
        there.append(weakref.ref(images))
        return images

    seen = []

    class Counting(Cpu):
        kind = "sim"

        def begin_peak(self):
            seen.append([type(one()).__name__ for one in there if one() is not None])

        def peak(self):
            return AllocatorFigures(allocated=1, reserved=1)

    monkeypatch.setattr(sweep.zoo, "build", build)
    monkeypatch.setattr(sweep.zoo, "inputs_for", inputs_for)
    climbs = [sweep._climb(READER, 8, 1, None, "contiguous") for _ in range(2)]
    gc.disable()
    try:
        for one in climbs:
            sweep.climb(one, (1, 2), Counting(), threads=1, seconds=0.05)
    finally:
        gc.enable()
    assert seen == [["Sequential", "Tensor"]] * 4
