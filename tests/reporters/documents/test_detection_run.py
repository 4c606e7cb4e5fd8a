"""Estimates and a training taken apart in every format, their picture, and the line of progress."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from PIL import Image

from layerbench import plots, reporters
from layerbench.cli._progress import in_a_line
from layerbench.errors import UsageError
from layerbench.records import kinds
from layerbench.records.detection_estimate import DetectionEstimates
from layerbench.records.detection_run import DetectionRun
from layerbench.store import paths, reading, writing
from tests.support.paths import ROOT
from tests.support.sample_detection import SAMPLES, begun, estimates, on_gpu, run, single, usage

FORMATS = ["txt", "md", "csv", "html"]
# The others look the same in these.
CASES = [(name, format) for name in ("estimates", "run") for format in FORMATS]
CASES += [("single", "txt"), ("on_gpu", "txt")]


@pytest.mark.parametrize(("name", "format"), CASES)
def test_golden_detection(name, format, golden):
    golden(reporters.render(format, SAMPLES[name]()), reporters.suffix(format))


@pytest.mark.parametrize("format", [*FORMATS, "json"])
@pytest.mark.parametrize("name", SAMPLES)
def test_same_record_same_text(name, format):
    record = SAMPLES[name]()
    text = reporters.render(format, record)
    again = type(record).model_validate_json(reporters.render("json", record))
    assert reporters.render(format, again) == text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]+$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_record_reads_back(name, tmp_path):
    path = tmp_path / "x.json"
    writing.write_text(path, reporters.render("json", SAMPLES[name]()))
    assert reading.read(path) == SAMPLES[name]()


def test_kinds_of_records_are_known_by_name():
    assert kinds.named("detection estimates") is DetectionEstimates
    assert kinds.named("detection run") is DetectionRun


def test_where_estimates_lie(tmp_path):
    place = paths.place(single(), tmp_path)
    name = "detection_fasterrcnn_resnet50_fpn_synthetic_224x224_b8"
    assert place == tmp_path / "amd-epyc-2c" / name
    several = paths.place(estimates(), tmp_path)
    assert several.parent == place.parent
    assert several.name != place.name
    assert several.name.endswith("_synthetic_224x224_b8")
    assert paths.place(estimates(rows=()), tmp_path).name.startswith("detection_maskrcnn")


def test_a_run_that_has_just_begun_has_a_report():
    text = reporters.render("txt", begun())
    assert text.startswith("Training fasterrcnn_resnet50_fpn on pets, taken apart")
    assert "bottleneck" not in text
    assert "Training fasterrcnn_resnet50_fpn on pets" in reporters.render("md", begun())
    assert reporters.render("html", begun())
    header = reporters.render("csv", begun())
    assert len(header.splitlines()) <= 1


def test_estimates_of_none_have_a_report():
    text = reporters.render("txt", estimates(rows=()))
    assert "maskrcnn_resnet50_fpn: not enough memory" in text
    assert reporters.render("csv", estimates(rows=())).count("\n") <= 1


def test_rows_of_a_spreadsheet():
    rows = list(csv.DictReader(io.StringIO(reporters.render("csv", estimates()))))
    assert [row["model"] for row in rows] == ["fasterrcnn_resnet50_fpn", "ssd300_vgg16"]
    assert [float(row["forward_mean_s"]) for row in rows] == [0.7, 0.3]
    assert [row["activations_bytes"] for row in rows] == [str(1500 * 2**20), ""]
    assert float(rows[0]["training_s"]) == 37_500.5
    epochs = list(csv.DictReader(io.StringIO(reporters.render("csv", run()))))
    assert [int(row["epoch"]) for row in epochs] == [1, 2]
    assert [float(row["loss_classifier"]) for row in epochs] == [1.5, 0.75]
    assert float(epochs[0]["data_s"]) == pytest.approx(44)


def test_what_the_reports_say():
    text = reporters.render("txt", run())
    assert "the bottleneck is waiting for data: 50 % of a step" in text
    for part in ("backbone", "RPN", "heads", "post-processing"):
        assert part in text
    assert "under torch.profiler a step took 1.10 times as long" in text
    (taken,) = [line for line in text.splitlines() if "take this" in line]
    assert taken.split()[:2] == ["2", "2"]
    # Five of the six operators of the backbone's forward.
    assert "aten::op4" in text
    assert "aten::op5" not in text
    assert "device ms" not in text
    other = reporters.render("txt", on_gpu())
    assert "device ms" in other
    assert "accelerator, recently, %" in other
    assert "learn from" not in other
    assert "what 3 epochs of 50,000 images will take" in reporters.render("txt", estimates())


def test_a_long_operator_leaves_the_devices_time_beside_it():
    record = on_gpu()
    name = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__" + "_" * 20
    named = [one.model_copy(update={"name": name}) for one in record.operators]
    text = reporters.render("txt", record.model_copy(update={"operators": tuple(named)}))
    assert re.search(r"^part +phase +operator +calls +host ms +device ms$", text, re.MULTILINE)
    assert "…" in text


def test_no_other_format_takes_them():
    for name in ("speedscope", "trace", "latex"):
        with pytest.raises(UsageError):
            reporters.render(name, run())


def test_the_record_is_plain_json():
    content = json.loads(reporters.render("json", run()))
    assert content["record"] == "detection run"
    assert content["bottleneck"]["shares"]["data"] == 0.5


# --- the picture ---------------------------------------------------------------------------


@pytest.mark.parametrize("record", [run, on_gpu])
def test_the_picture_of_utilization(record):
    drawn = plots.utilization(record())
    assert drawn == plots.utilization(record())
    picture = Image.open(io.BytesIO(drawn))
    assert picture.size == (704, 440)
    colours = picture.convert("RGB").getcolors(2**20)
    assert colours is not None
    vivid = {rgb for count, rgb in colours if count > 100 and max(rgb) - min(rgb) > 80}
    # A line of a colour of its own for each figure.
    assert len(vivid) >= (3 if record is on_gpu else 2)


def test_pictures_differ_with_what_they_show():
    idle = usage().model_copy(
        update={"samples": tuple(s.model_copy(update={"system_cpu": 0.1}) for s in usage().samples)}
    )
    assert plots.utilization(run(usage=idle)) != plots.utilization(run())
    assert plots.utilization(begun()).startswith(b"\x89PNG")


# --- progress ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        # The share is rounded: 47 of 1840 are 2.55 %.
        (47, 1840, 29.0, "Epoch 1/1 47/1840 [3%] in 29s (~18:26, 1.6/s)"),
        (45, 1840, 28.0, "Epoch 1/1 45/1840 [2%] in 28s (~18:37, 1.6/s)"),
        (0, 1840, 0.0, "Epoch 1/1 0/1840 [0%] in 0s (~?)"),
        (0, 1840, 5.0, "Epoch 1/1 0/1840 [0%] in 5s (~?)"),
        (920, 1840, 920.0, "Epoch 1/1 920/1840 [50%] in 15:20 (~15:20, 1.0/s)"),
        (1, 1000, 10.0, "Epoch 1/1 1/1000 [0%] in 10s (~2:46:30, 0.1/s)"),
        (1840, 1840, 3725.0, "Epoch 1/1 1840/1840 [100%] in 1:02:05 (~0:00, 0.5/s)"),
        (0, 0, 0.0, "Epoch 1/1 0/0 [0%] in 0s (~?)"),
        (30, 60, 59.7, "Epoch 1/1 30/60 [50%] in 1:00 (~1:00, 0.5/s)"),
    ],
)
def test_progress_in_a_line(done, total, seconds, line):
    assert in_a_line("Epoch 1/1", done, total, seconds) == line


def test_golden_files_are_those_of_the_tests():
    """A sample that was renamed leaves none behind."""
    found = {path.name for path in (ROOT / "tests/golden").glob("test_golden_detection*")}
    assert found == {
        f"test_golden_detection-{name}-{format}{reporters.suffix(format)}" for name, format in CASES
    }
