"""Runs, sweeps and forecasts in every format, and as pictures."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from layerbench import plots, reporters
from layerbench.records.conditions import DeviceConditions
from layerbench.store import reading, writing
from tests.support.sample_runs import forecast, run, sweep

SAMPLES = {"run": run, "sweep": sweep, "forecast": forecast}


@pytest.mark.parametrize("format", ["txt", "md", "csv", "html"])
@pytest.mark.parametrize("name", SAMPLES)
def test_golden_run(name, format, golden):
    golden(reporters.render(format, SAMPLES[name]()), reporters.suffix(format))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_record_reads_back(name, tmp_path):
    path = tmp_path / "x.json"
    writing.write_text(path, reporters.render("json", SAMPLES[name]()))
    assert reading.read(path) == SAMPLES[name]()


def test_a_run_without_an_epoch_has_a_report():
    begun = run(epochs=(), best_epoch=None, outcome="running", step=None, phases=(), ranks=())
    assert "running" in reporters.render("txt", begun)
    (header,) = reporters.render("csv", begun).splitlines()
    assert header.startswith("model,data,batch,ranks,cautions,epoch,steps,lr,train_loss")
    assert "### Training resnet50 on cifar100" in reporters.render("md", begun)


def test_a_low_clock_of_another_process_is_said_first() -> None:
    slow = DeviceConditions(
        looks=4, clock_p5_hz=1.3e9, clock_median_hz=1.4e9, highest_clock_hz=1.98e9
    )
    first, second = run().ranks
    record = run(ranks=(first, second.model_copy(update={"conditions": slow})))
    said = f"Process 1 ({second.device}): The accelerator's clock was 1400 MHz, 71 % of its highest"
    text = reporters.render("txt", record)
    assert said in text.splitlines()[2]
    assert said in " ".join(text.partition("Warnings of other processes")[2].split())
    assert "1400 MHz" in text.partition("Processes (last epoch)")[2].partition("Inference")[0]
    assert said in reporters.render("csv", record)
    assert "clock" not in reporters.render("txt", run())


def test_what_is_derived():
    assert run().best is not None
    assert run().best.epoch == 2
    point = run().points[2]
    assert point.per_image_s == point.latency.median / 4


PICTURES = {
    "loss": lambda: plots.loss(run()),
    "accuracy": lambda: plots.accuracy(run()),
    **{name: (lambda name=name: plots.of_sweep(sweep())[name]) for name in (
        "latency_vs_batch", "memory_vs_batch", "accuracy_vs_gflops",
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_something_and_are_the_same_twice(name):
    drawn = PICTURES[name]()
    assert drawn == PICTURES[name]()
    picture = Image.open(io.BytesIO(drawn))
    assert picture.size == (704, 440)
    colours = picture.convert("RGB").getcolors(2**20)
    # Lines of a colour of their own, not a white page.
    assert colours is not None
    assert any(max(rgb) - min(rgb) > 80 for count, rgb in colours if count > 20)


def test_a_sweep_without_points_or_runs_has_no_pictures():
    empty = sweep().model_copy(update={"points": (), "runs": ()})
    assert plots.of_sweep(empty) == {}
    assert reporters.render("csv", empty) == ""
