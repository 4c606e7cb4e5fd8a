"""The result table, and the verb that makes it."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys

import pytest

from layerbench import reporters
from layerbench.errors import UsageError
from layerbench.reporters import formatting
from layerbench.reporters.result_table import render_table, update_markers
from tests.support.sample_bundles import whole as bundle
from tests.support.sample_profiles import in_processes, layered, summary, whole


def variant(**changes):
    """A whole-model record with another workload, mean or device."""
    record = whole()
    workload = {key: changes[key] for key in ("model", "input", "dtype") if key in changes}
    device = record.environment.device.model_copy(
        update={"name": changes.get("device", record.environment.device.name)}
    )
    machine = record.environment.machine.model_copy(update={"threads": changes.get("threads", 1)})
    return record.model_copy(
        update={
            "workload": record.workload.model_copy(update=workload),
            "environment": record.environment.model_copy(
                update={"device": device, "machine": machine}
            ),
            "whole": summary(changes.get("mean", 9.9)),
            "parameters": changes.get("parameters", 12_345),
        }
    )


def column(table, name):
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return [row[header.index(name)] for row in rows]


def table_records():
    return [
        variant(model="resnet101", input="pascal", mean=1234.5, parameters=44_549_160),
        variant(model="resnet18", input="pascal", mean=200.0, parameters=11_689_512, threads=2),
        variant(model="resnet18", input="pascal", mean=380.0, parameters=11_689_512),
        variant(model="a|b", device="NVIDIA H100", dtype="float16"),
        in_processes(),
    ]


def test_result_table_golden(golden):
    table = render_table(table_records())
    golden(table + "\n", ".md")
    assert render_table(table_records()[::-1]) == table


@pytest.mark.parametrize("format", ["md", "txt", "csv", "html", "latex"])
@pytest.mark.parametrize("side_by_side", [False, True], ids=["rows", "side-by-side"])
def test_result_table_in_every_format(format, side_by_side, golden):
    """Two machines, one of them with two numbers of threads."""
    records = [
        *table_records(),
        variant(model="resnet18", input="pascal", device="NVIDIA H100", mean=2.0,
                parameters=11_689_512),
    ]  # fmt: skip
    table = render_table(records, "model", format=format, side_by_side=side_by_side)
    golden(table + "\n", f".{format}")


def test_of_two_records_with_one_place_the_later_counts():
    early, late = variant(model="a", mean=1.0), variant(model="a", mean=2.0)
    started = late.environment.model_copy(update={"started": "2030-01-01T00:00:00Z"})
    late = late.model_copy(update={"environment": started})
    for records in ([early, late], [late, early]):
        assert render_table(records, side_by_side=True).splitlines()[-1].split("|")[4].strip() == (
            formatting.ms(late.whole, "median")
        )


def test_a_table_in_no_known_format():
    with pytest.raises(UsageError, match="unknown format 'pdf': choose from md, txt, html, latex"):
        render_table(table_records(), format="pdf")


@pytest.mark.parametrize(
    ("sort", "models"),
    [
        ("device", ["resnet18", "resnet101", "vit"]),
        ("model", ["resnet18", "resnet101", "vit"]),
        ("input", ["resnet101", "vit", "resnet18"]),
        ("mean", ["vit", "resnet18", "resnet101"]),
        ("median", ["vit", "resnet18", "resnet101"]),
        ("parameters", ["resnet101", "vit", "resnet18"]),
    ],
)
def test_result_table_sorts(sort, models):
    records = [
        variant(model="vit", input="pascal", device="NVIDIA H100", mean=1, parameters=5),
        variant(model="resnet101", input="coco", device="AMD EPYC", mean=40, parameters=4),
        variant(model="resnet18", input="pascal2", device="AMD EPYC", mean=20, parameters=11),
    ]
    assert column(render_table(records, sort), "Model") == models


def test_result_table_refuses():
    with pytest.raises(UsageError, match="cannot sort by 'size': choose from device, model"):
        render_table([whole()], "size")
    with pytest.raises(UsageError, match="name one that layerbench timer"):
        render_table([])


# --- columns -------------------------------------------------------------------------------


def at(record, **environment):
    return record.model_copy(
        update={"environment": record.environment.model_copy(update=environment)}
    )


def test_what_is_the_same_in_all_rows_stands_above_them():
    records = [variant(model="a"), variant(model="b", mean=20)]
    table = render_table(records, columns=["model", "device", "params", "mean"])
    caption, empty, header, *_ = table.splitlines()
    assert caption == "In all rows: Device AMD EPYC; Parameters 12,345."
    assert empty == ""
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["Model", "Mean ms"]
    assert render_table(records[:1]).startswith("| Model")  # of one row nothing is said twice
    said = render_table(records, format="html", caption="<b>Fast", columns=["model", "device"])
    assert "<caption>&lt;b&gt;Fast. In all rows: Device AMD EPYC.</caption>" in said


def test_rows_that_differ_in_what_is_not_shown_get_the_column_that_tells():
    one = variant(model="a")
    later = at(variant(model="a", mean=12), started="2030-01-01T00:00:00Z")
    table = render_table([one, later])
    assert column(table, "Started") == [one.environment.started, "2030-01-01T00:00:00Z"]
    plan = later.plan.model_copy(update={"processes": 5})
    table = render_table([one, later.model_copy(update={"plan": plan})])
    assert column(table, "Processes") == ["1", "5"]
    assert "Started" not in table
    # Two nodes of one kind, which have folders of their own, at the same second.
    device = one.environment.device.model_copy(update={"slug": "amd_two"})
    environment = one.environment.model_copy(update={"device": device})
    table = render_table([one, later.model_copy(update={"environment": environment})])
    assert column(table, "Device's folder") == [one.environment.device.slug, "amd_two"]
    # The same measurement, as the whole and as its layers, is one row.
    assert len(column(render_table([layered(), layered().without_layers()]), "Model")) == 1


def test_chosen_columns_that_do_not_tell_rows_apart_are_refused():
    records = [variant(model="a"), variant(model="a", threads=2), variant(model="b")]
    with pytest.raises(UsageError, match="not shown: add threads to --columns"):
        render_table(records, columns=["model", "median"])
    assert column(
        render_table(records, columns=["threads", "model", "fps"]), "Threads"
    ) == ["1", "2", "1"]  # fmt: skip
    with pytest.raises(UsageError, match="no column 'speed': --columns takes model, input"):
        render_table(records, columns=["speed"])
    with pytest.raises(UsageError, match=r"began at .* and differ in figures alone"):
        render_table([variant(model="a"), variant(model="a", mean=12)])


def test_a_joined_record_is_a_row_with_what_it_knows():
    joined = bundle()
    names = ["median", "params", "flops", "peak"]
    (row,) = csv.DictReader(io.StringIO(render_table([joined], format="csv", columns=names)))
    assert row == {
        "median_s": str(joined.profile.whole.median),
        "parameters": str(joined.profile.parameters),
        "flops": str(joined.structure.flops),
        "peak_bytes": str(4 * 2**20),
    }
    # Its own profile beside it is the same measurement.
    assert render_table([joined, joined.profile]) == render_table([joined])


def test_figures_of_csv_are_numbers_in_si_units():
    record = variant(model="a", dtype="float16", mean=1234.5, parameters=44_549_160)
    record = record.model_copy(
        update={"whole": record.whole.model_copy(update={"verdict": "noisy"})}
    )
    for side_by_side in (False, True):
        (row,) = csv.DictReader(
            io.StringIO(render_table([record], format="csv", side_by_side=side_by_side))
        )
        assert row["parameters"] == "44549160"
        name = "AMD EPYC, 1 thread: " if side_by_side else ""
        assert float(row[f"{name}median_s"]) == record.whole.median
        assert row[f"{name}verdict"] == "noisy"
    row = next(csv.DictReader(io.StringIO(render_table([record], format="csv"))))
    assert (row["model"], row["variant"]) == ("a", "float16")
    assert float(row["ci_low_s"]) == record.whole.ci_low


def test_best_figures_in_latex_are_bold_with_all_that_cannot_be_told_from_them():
    def timed(model, median, half):
        whole = summary(median).model_copy(
            update={"median": median / 1e3, "ci_low": (median - half) / 1e3,
                    "ci_high": (median + half) / 1e3}
        )  # fmt: skip
        return variant(model=model, parameters=int(median)).model_copy(update={"whole": whole})

    records = [timed("fast", 1.82, 0.04), timed("alike", 1.87, 0.03), timed("slow_1", 2.0, 0.1)]
    made = render_table(
        records, "median", format="latex", columns=["model", "median"], caption="A & B", label="t:x"
    )
    assert r"    fast & \textbf{1.82(4)} \\" in made
    assert r"    alike & \textbf{1.87(3)} \\" in made
    assert r"    slow\_1 & 2.0(1) \\" in made
    assert r"\caption{A \& B. In parentheses: half of the 95 \% interval" in made
    assert r"\label{t:x}" in made
    with pytest.raises(UsageError, match="a label is of letters"):
        render_table(records, format="latex", label="}")
    with pytest.raises(UsageError, match="--label is for latex, not for md"):
        render_table(records, label="t:x")
    with pytest.raises(UsageError, match="csv has no caption"):
        render_table(records, format="csv", caption="t")
    with pytest.raises(UsageError, match="--side-by-side has columns of its own"):
        render_table(records, side_by_side=True, columns=["model"])


def test_markers_hold_what_the_table_is_made_of():
    document = (
        "# Title\n<!-- layerbench:table stats 'my stats' -->\nold\n<!-- layerbench:end -->\n"
        "between\n<!-- layerbench:table gpu --sort mean -->\n<!-- layerbench:end -->\nend\n"
    )
    asked = []
    slow, fast = variant(model="a", mean=20), variant(model="b", mean=10)

    def load(paths):
        asked.append(list(paths))
        return [slow, fast]

    updated = update_markers(document, load)
    assert asked == [["stats", "my stats"], ["gpu"]]
    assert "old" not in updated
    assert updated.startswith("# Title\n<!-- layerbench:table stats 'my stats' -->\nIn all rows: ")
    assert "\n\n| Model" in updated
    assert updated.endswith("|\n<!-- layerbench:end -->\nend\n")
    first, second = updated.split("between")
    assert first.index("| a ") < first.index("| b ")
    assert second.index("| b ") < second.index("| a ")
    assert update_markers(updated, load) == updated
    chosen = "<!-- layerbench:table stats --columns model,fps -->\n<!-- layerbench:end -->"
    assert "| Model   |   FPS |\n" in update_markers(chosen, load)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("nothing", "no table to update"),
        ("<!-- layerbench:table stats -->", "has no <!-- layerbench:end -->"),
        (
            "<!-- layerbench:table a --> <!-- layerbench:table b --> <!-- layerbench:end -->",
            "table a --> has no",
        ),
        ("<!-- layerbench:table -->\n<!-- layerbench:end -->", "PATHS"),
        ("<!-- layerbench:table a --top -->\n<!-- layerbench:end -->", "PATHS"),
        ("<!-- layerbench:table 'a -->\n<!-- layerbench:end -->", "No closing quotation"),
        ("<!-- layerbench:table a --sort size -->\n<!-- layerbench:end -->", "cannot sort"),
    ],
)
def test_markers_that_cannot_be_read(document, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        update_markers(document, lambda paths: [whole()])


@pytest.fixture
def stats(tmp_path):
    """Records as a run leaves them: the whole, and the layers in a folder of their own."""
    folder = tmp_path / "stats" / "amd-epyc-2c"
    (folder / "layers").mkdir(parents=True)
    (folder / "tiny.json").write_text(reporters.render("json", whole()), encoding="utf-8")
    (folder / "layers" / "tiny.json").write_text(
        reporters.render("json", layered()), encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def table():
    """``table(*arguments)``: the verb's result, with errors raised."""
    import typer
    from typer.testing import CliRunner

    from layerbench.cli.table import command

    app = typer.Typer()
    app.command()(command)

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def test_table_leaves_out_the_layers_records(stats, table):
    result = table(stats / "stats")
    assert result.exit_code == 0
    assert column(result.stdout.strip(), "Model") == ["tiny"]


def test_table_takes_joined_records_of_a_folder_but_interrupted_ones(stats, table):
    joined = bundle()
    partial = joined.profile.model_copy(update={"stop": "interrupted"})
    joined.save(stats / "joined" / "a.json")
    joined.model_copy(update={"profile": partial}).save(stats / "joined" / "b.json")
    assert column(table(stats / "joined").stdout.strip(), "Peak MiB") == ["4.00"]


def test_table_takes_a_layers_folder_that_is_named(stats, table):
    folder = stats / "stats" / "amd-epyc-2c" / "layers"
    for named in (folder, folder / "tiny.json"):
        assert column(table(named).stdout.strip(), "Model") == ["tiny"]


def test_table_renews_a_readme_and_checks_it(stats, table, monkeypatch):
    readme = stats / "README.md"
    readme.write_text("a\n<!-- layerbench:table stats -->\n<!-- layerbench:end -->\nb\n")
    monkeypatch.chdir("/")  # paths in the marker start from the document
    before = readme.read_text()

    checked = table("--readme", readme, "--check")
    assert checked.exit_code == 1
    assert "disagrees with its records" in checked.stderr
    assert readme.read_text() == before

    assert table("--readme", readme).exit_code == 0
    assert column(readme.read_text().split("-->")[1].split("<!--")[0].strip(), "FPS") == ["202"]
    assert table("--readme", readme, "--check").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--check"],
        ["stats", "--check"],
        ["stats", "--readme", "R.md"],
        ["--side-by-side", "--readme", "R.md"],
        ["--columns", "model", "--readme", "R.md"],
    ],
)
def test_table_refuses(arguments, table):
    assert isinstance(table(*arguments).exception, UsageError)


def test_table_says_what_document_is_missing(tmp_path, table):
    error = table("--readme", tmp_path / "none.md").exception
    assert isinstance(error, UsageError)
    assert "none.md" in str(error)


def test_the_verb_loads_nothing_heavy():
    code = (
        "import sys, layerbench.cli.table as verb\n"
        "assert verb.NAME == 'table' and callable(verb.command)\n"
        "assert not {'torch', 'numpy', 'tabulate'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("mean", "between"), [(0.3 - 1e-13, 0.3 - 1e-13), (-1e-13, 0.0)])
def test_what_adding_up_leaves_is_not_time_between_the_blocks(mean, between):
    record = whole()
    time = record.whole.model_copy(update={"mean": mean})
    assert formatting.between_blocks_s(record.model_copy(update={"whole": time})) == between
