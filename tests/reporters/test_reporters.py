from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys

import pytest

from layerbench import reporters
from layerbench.errors import UsageError
from layerbench.records.timing import LayerRow, Profile
from layerbench.records.view import View
from layerbench.reporters.html.document import bundled, of
from tests.support.paths import ROOT
from tests.support.sample_comparisons import SAMPLES as COMPARISONS
from tests.support.sample_devices import SAMPLES as ON_DEVICES
from tests.support.sample_profiles import SAMPLES as PROFILES
from tests.support.sample_profiles import in_processes, layered, on_gpu, summary, whole

SAMPLES = {**PROFILES, **ON_DEVICES}
FORMATS = {
    "txt": ".txt",
    "json": ".json",
    "csv": ".csv",
    "md": ".md",
    "html": ".html",
    "latex": ".tex",
    "speedscope": ".speedscope.json",
    "trace": ".trace.json",
    "screen": ".screen.txt",
    "sentences": ".sentences.txt",
}
DRAWN = ("speedscope", "trace")  # of layers only
CASES = [
    pytest.param(sample, format, id=f"{format}-{name}")
    for format in FORMATS
    for name, sample in SAMPLES.items()
    if format not in DRAWN or sample().layers
] + [
    pytest.param(sample, format, id=f"{format}-{name}")
    for format in ("txt", "json", "csv", "md", "html")
    for name, sample in COMPARISONS.items()
]
each_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
each_case = pytest.mark.parametrize(("sample", "format"), CASES)


def table_rows(text, first):
    """The cells of the aligned table whose header begins with ``first``."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.split()[:1] == [first])
    end = lines.index("", start)
    return [re.split(r"\s{2,}", line.strip()) for line in lines[start + 2 : end]]


# --- all formats ---------------------------------------------------------------------------


def test_formats_are_found():
    assert {name: reporters.suffix(name) for name in reporters.names()} == FORMATS


@pytest.mark.parametrize("ask", [reporters.suffix, lambda name: reporters.render(name, whole())])
def test_an_unknown_format_names_the_known_ones(ask):
    with pytest.raises(UsageError, match=r"'xls': choose from csv, html, json, latex, "):
        ask("xls")


@each_case
def test_golden(sample, format, golden):
    if format == "html":
        # What the page is told; what it makes of it is looked at in a browser (test_page.py).
        told = of(bundled(sample())).model_dump_json(indent=1)
        golden(f"{told}\n", ".page.json")
    else:
        golden(reporters.render(format, sample()), FORMATS[format])


@each_case
def test_same_record_same_text(sample, format):
    """Also for a record that was read back from its JSON."""
    record = sample()
    text = reporters.render(format, record)
    again = type(record).model_validate_json(reporters.render("json", record))
    assert reporters.render(format, again) == text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]+$", text, flags=re.MULTILINE)


def test_rendering_loads_no_torch_and_depends_on_no_hash_seed():
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.support.sample_profiles import SAMPLES\n"
        "from tests.support.sample_comparisons import SAMPLES as COMPARISONS\n"
        "from layerbench import reporters\n"
        "from layerbench.reporters.result_table import render_table\n"
        "records = [sample() for sample in SAMPLES.values()]\n"
        "drawn = ('speedscope', 'trace')\n"
        "text = [reporters.render(f, r) for f in reporters.names() for r in records\n"
        "        if f not in drawn or r.layers]\n"
        "plain = ('txt', 'json', 'csv', 'md', 'html')\n"
        "text += [reporters.render(f, c()) for f in plain for c in COMPARISONS.values()]\n"
        "print(''.join(text) + render_table(records))\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = str(ROOT)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


# --- text ----------------------------------------------------------------------------------


def test_the_sentences_people_search_for():
    text = "\n" + reporters.render("sentences", layered())
    for sentence in (
        "Average execution time for TinyNet with input shape [2, 3, 32, 32] is 9.90 ms "
        "(std 0.074 ms, 202 FPS)",
        "Average execution time for InvertedResidual at position 2 "
        "with input shape [2, 8, 16, 16] is 3.990 ms (features.2)",
        "Average execution time for Conv2d at features.1.conv "
        "with input shape [2, 8, 16, 16] is 2.80 ms",
        "Average execution time for add at features.1.add() "
        "with input shapes [2, 8, 16, 16], [2, 8, 16, 16] is 0.1500 ms",
    ):
        assert f"\n{sentence}\n" in text


def test_a_sentence_for_every_timed_row_and_the_whole():
    record = layered()
    text = reporters.render("sentences", record)
    caution, whole, others = text.split("\n", 2)
    assert (caution,) == record.environment.warnings
    assert "for TinyNet with input shape" in whole
    assert reporters.render("txt", record, View(sentences=True)).endswith(others)
    timed = [row for row in record.layers if row.inclusive]
    assert text.count("Average execution time for ") == len(timed)  # the root stands for the whole
    assert text.count(" at position ") == 4


def test_every_row_stands_in_the_tree():
    record = layered()
    rows = table_rows(reporters.render("txt", record), "layer")
    assert len(rows) >= len(record.layers)
    labels = [row[0] for row in rows]
    assert labels[:3] == ["TinyNet", "Sequential (features)", "Conv2d (0)"]
    assert "ƒ add()" in labels
    spare = rows[labels.index("Dropout (spare)")]
    assert spare[1:] == ["0", "-", "-", "-", "not called"]


def test_a_row_called_but_not_timed_says_so():
    record = layered()
    untimed = LayerRow(path="x", type="ReLU", kind="module", depth=1, calls=2)
    text = reporters.render("txt", record.model_copy(update={"layers": (*record.layers, untimed)}))
    assert "not timed" in text


def test_marks_only_where_a_row_is_not_stable():
    lines = reporters.render("txt", layered()).splitlines()
    assert not any("~" in line or ">" in line for line in lines if "Conv2d (0)" in line)
    assert any(re.search(r"2\.76 +~ +2\.76 +~", line) for line in lines)
    assert any(re.search(r"3\.986 +> ", line) for line in lines)


def test_the_block_table_adds_up():
    rows = table_rows(reporters.render("txt", layered()), "#")
    assert [row[1] for row in rows[:3]] == ["Conv2d", "InvertedResidual", "InvertedResidual"]
    shares = [float(re.findall(r"([\d.]+) %", " ".join(row))[-1]) for row in rows]
    *parts, total = shares
    assert total == 100
    assert sum(parts) == pytest.approx(total, abs=0.05 * len(parts))
    assert rows[-2][:2] == ["between the blocks", "0.11"]


def test_self_shares_of_the_modules_add_up_to_the_whole():
    record = layered()
    shares = [row.self_.mean for row in record.layers if row.kind == "module" and row.self_]
    assert sum(shares) == pytest.approx(record.base.mean)


def test_a_blocks_only_record_adds_up_too():
    record = layered()
    kept = tuple(row for row in record.layers if row.block or not row.path)
    text = reporters.render("txt", record.model_copy(update={"layers": kept}))
    assert "between the blocks" in text
    assert "features.1.conv" not in text


def test_a_whole_record_has_no_layer_sections_but_the_reconciliation():
    text = reporters.render("txt", whole())
    for absent in ("Blocks", "self ms", "Verdicts", "at position"):
        assert absent not in text
    assert "\nReconciliation\n" in text
    assert "Average execution time for TinyNet" in text


def test_missing_parts_leave_no_empty_section():
    bare = whole().model_copy(update={"reconciliation": None, "absent": {}, "notes": ()})
    text = reporters.render("txt", bare)
    for title in ("Reconciliation", "Notes", "Not measured"):
        assert title not in text
    assert "\n\n\n" not in text


def test_host_times_stand_beside_the_device():
    text = reporters.render("txt", on_gpu())
    assert "The same on the host's clock\n  mean 12.00 ms" in text
    assert "host self" in text
    assert "host" not in reporters.render("txt", layered()).split("Not measured")[0]


def test_what_is_unusual_about_a_run_stands_in_the_header():
    text = reporters.render("txt", on_gpu())
    assert "Mode      eval, float16, channels_last, compiled\n" in text
    assert "(with uncommitted changes)" in text
    assert "driver 550.54" in text


def test_processes_the_cap_and_the_criterion_missed():
    text = " ".join(reporters.render("txt", in_processes()).split())
    assert "25 warm-up + 600 measured iterations, in each of 5 fresh processes" in text
    assert "stopped at the cap before the interval was as narrow as asked for (1.0 %)" in text
    assert "Medians of the processes: 9.3, 9.7, 9.9, 10.2, 10.5 ms" in text
    assert "noisy: interval half-width 7 % > 5 %" in text


@each_sample
def test_lines_fit_a_pull_request(sample):
    """All but sentences, the command and the functions' names: those are never cut."""
    lines = reporters.render("txt", sample()).splitlines()
    free = ("Average execution time", "Command")
    assert max(len(line) for line in lines if not line.startswith(free)) <= 120


def test_a_model_that_takes_no_time_is_reported():
    """As a manual clock that nobody advances gives it."""
    nothing = summary(0.0)
    record = layered()
    rows = tuple(
        row.model_copy(update={"inclusive": nothing, "self_": nothing}) for row in record.layers
    )
    record = record.model_copy(update={"whole": nothing, "layers": rows})
    for format in FORMATS:
        assert reporters.render(format, record)


# --- JSON and CSV --------------------------------------------------------------------------


@each_sample
def test_json_reads_back_as_the_same_record(sample):
    assert Profile.model_validate_json(reporters.render("json", sample())) == sample()


def test_json_has_one_line_a_row():
    record = layered()
    lines = reporters.render("json", record).splitlines()
    for row in record.layers:
        named = f'    {{"path": "{row.path}", '
        assert sum(line.startswith(named) for line in lines) == 1
    assert '"self": {' in next(line for line in lines if '"path": "features"' in line)


def test_json_refuses_what_json_cannot_say():
    record = whole()
    broken = record.whole.model_copy(update={"mean": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        reporters.render("json", record.model_copy(update={"whole": broken}))


def test_csv_rows_stand_alone():
    record = layered()
    first, *rows = csv.DictReader(io.StringIO(reporters.render("csv", record)))
    assert first["kind"] == "whole"
    assert float(first["inclusive_mean_s"]) == record.whole.mean
    assert [row["path"] for row in rows] == [row.path for row in record.layers]
    for row in (first, *rows):
        assert (row["model"], row["device"], row["torch"]) == ("tiny", "AMD EPYC", "2.8.0")
        assert (row["threads"], row["commit"], row["input"]) == ("1", "0123abc", "2x3x32x32")
    conv = rows[4]
    assert float(conv["self_p95_s"]) == record.layers[4].self_.p95
    assert conv["inclusive_missed"] == "relative IQR 14 % > 10 %"
    assert rows[5]["input_shapes"] == "2x8x16x16 2x8x16x16"
    spare = next(row for row in rows if row["path"] == "features.2.spare")
    assert spare["inclusive_mean_s"] == spare["inclusive_verdict"] == ""
