"""``layerbench plot`` and ``--ceilings`` as a user meets them: files, statuses, complaints."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from layerbench import cli, reporters
from layerbench.cli import plot as verb
from layerbench.records.bundle import Bundle
from layerbench.records.timing import Profile
from layerbench.store import reading, writing
from tests.plots.test_plots import estimate, report, trained
from tests.support.paths import ROOT
from tests.support.sample_bundles import whole as joined
from tests.support.sample_profiles import layered, whole
from tests.support.sample_structures import ceilings, graphed, structure

SAMPLES = {
    "layered": layered,
    "whole": whole,
    "structure": structure,
    "report": report,
    "estimate": estimate,
    "trained": trained,
    "joined": joined,
    "graphed": graphed,
    "joined_graphs": lambda: Bundle(profile=layered(), structure=graphed()),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, with records in ``records/``."""
    monkeypatch.chdir(tmp_path)
    for name, make in SAMPLES.items():
        writing.write_text(Path(f"records/{name}.json"), reporters.render("json", make()))
    return tmp_path


@pytest.fixture
def plot(here, monkeypatch, capsys):
    """``plot(*arguments)``: exit status, what was printed, what was complained about."""

    def call(*arguments: str):
        words = [f"records/{word}.json" if word in SAMPLES else word for word in arguments]
        monkeypatch.setattr(sys, "argv", ["layerbench", "plot", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out.split(), shown.err

    return call


def test_a_graph_of_a_module(here, plot):
    status, shown, _ = plot("joined_graphs", "--kind", "graph", "--module", "features.2")
    assert (status, shown) == (0, ["joined_graphs.graph.png"])
    status, shown, _ = plot("graphed", "--kind", "graph", "--metric", "parameters", "-o", "a.svg")
    assert (status, shown) == (0, ["a.svg"])
    assert "Linear, 90" in (here / "a.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("layered", "--kind", "graph"),
            "needs a structure (layerbench mem --struct) or a joined record",
        ),
        (("structure", "--kind", "graph"), "make it anew"),
        (("graphed", "--kind", "graph", "--module", "features.0"), "no graph of features.0"),
        (("graphed", "--module", "features"), "--module is for graph, not for icicle"),
    ],
)
def test_graphs_that_cannot_be_drawn(plot, given, said):
    status, shown, complaint = plot(*given)
    assert (status, shown) == (2, [])
    assert said in complaint
    assert complaint.count("\n") == 1


def drawn(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("layered",), "layered.icicle.png"),
        (("layered", "--kind", "bars", "--top", "3"), "layered.bars.png"),
        (("layered", "structure", "--kind", "roofline"), "layered.roofline.png"),
        (("report", "--kind", "memory"), "report.memory.png"),
        (("estimate", "--kind", "memory"), "estimate.memory.png"),
        (("structure", "--metric", "parameters", "--depth", "2"), "structure.icicle.png"),
        (("report", "--kind", "bars"), "report.bars.png"),
        (("trained", "--metric", "self"), "trained.icicle.png"),
        (("joined", "--kind", "roofline"), "joined.roofline.png"),
    ],
)
def test_a_picture_goes_into_this_folder(plot, here, arguments, name) -> None:
    assert plot(*arguments) == (0, [name], "")
    assert drawn(here) == {name}
    assert Path(name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_both_formats_by_list_and_by_ending(plot, here) -> None:
    status, told, _ = plot("layered", "--format", "png,svg")
    assert (status, told) == (0, ["layered.icicle.png", "layered.icicle.svg"])
    status, told, _ = plot("layered", "-o", "a/x.svg", "-o", "y.PNG")
    assert (status, told) == (0, ["a/x.svg", "y.PNG"])
    assert Path("a/x.svg").read_bytes() == Path("layered.icicle.svg").read_bytes()
    assert Path("y.PNG").read_bytes() == Path("layered.icicle.png").read_bytes()
    ET.parse("a/x.svg")


def test_of_a_joined_record_the_part_is_drawn_that_has_the_figures(plot) -> None:
    for place, name in {"a.svg": "joined", "b.svg": "structure"}.items():
        assert plot(name, "--kind", "bars", "--metric", "flops", "-o", place)[0] == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()


def test_several_records_are_a_picture_each(plot) -> None:
    assert plot("layered", "structure")[1] == ["layered.icicle.png", "structure.icicle.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("report", "--kind", "roofline"), "memory record: --kind roofline needs a profile"),
        (
            ("structure", "--kind", "roofline"),
            "needs a profile of layers (layerbench timer --ceilings)",
        ),
        (("layered", "--kind", "memory"), "needs a memory report (layerbench mem) or estimate"),
        (("whole", "structure", "--kind", "roofline"), "take layers/whole.json"),
        (("whole",), "take a profile of layers, as layerbench timer writes it"),
        (("layered", "--metric", "flops"), "layerbench mem --struct"),
        (("layered", "--metric", "speed"), "--metric takes time, self, flops"),
        (("layered", "--kind", "pie"), "--kind takes icicle, bars, roofline, memory"),
        (("layered", "--format", "gif"), "--format takes png, svg"),
        (("layered", "-o", "x.pdf"), "-o takes a file ending in .png or .svg"),
        (("layered", "-o", "x.png", "--format", "svg"), "leave out --format"),
        (("layered", "structure", "-o", "x.png"), "-o is for one picture, and these are 2"),
        (("layered", "layered"), "two of the records would be drawn to layered.icicle.png"),
        (("layered", "--top", "3"), "--top is for bars and roofline, not for icicle"),
        (("layered", "--kind", "bars", "--depth", "2"), "--depth is for icicle, not for bars"),
        (("report", "--kind", "memory", "--metric", "memory"), "--metric is for icicle and bars"),
        (("layered", "--depth", "0"), "--depth must be at least 1"),
        (("nowhere.json",), "there is no record nowhere.json"),
        # The record's model is not one that can be built here.
        (("layered", "--kind", "roofline"), "add its structure record, as layerbench mem --struct"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_status_2(plot, here, arguments, says) -> None:
    status, told, complaint = plot(*arguments)
    assert status == 2
    assert says in complaint
    assert len(complaint.strip().splitlines()) == 1
    assert told == []
    assert drawn(here) == set()


def test_a_structure_of_other_work_is_refused(plot, here) -> None:
    other = structure(workload=layered().workload.model_copy(update={"batch": 4}))
    writing.write_text(Path("other.json"), reporters.render("json", other))
    status, _, complaint = plot("layered", "other.json", "--kind", "roofline")
    assert status == 2
    assert "the profile's batch is 2 and the structure's 4" in complaint
    # One that fits, among others, is found.
    assert plot("other.json", "layered", "structure", "--kind", "roofline")[0] == 0


def test_a_model_that_was_handed_over_needs_its_structure(plot) -> None:
    workload = layered().workload.model_copy(update={"model": "resnet18", "weights": "own"})
    record = layered().model_copy(update={"workload": workload})
    writing.write_text(Path("own.json"), reporters.render("json", record))
    status, _, complaint = plot("own.json", "--kind", "roofline")
    assert status == 2
    assert "resnet18 was handed over and cannot be built here: add its structure" in complaint


def test_help_and_pictures_load_no_torch(here) -> None:
    import subprocess

    code = (
        "import sys\nfrom layerbench import cli\n"
        "sys.argv = ['layerbench', 'plot', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as left:\n"
        "    print(left.code, 'torch' in sys.modules)\n"
    )
    for words in (["--help"], ["records/layered.json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(here)},
        )
        assert done.stdout.splitlines()[-1] == "0 False"


def test_ceilings_from_the_timer_to_a_roofline(plot, here, monkeypatch, capsys) -> None:
    """Without FLOPs in the record its structure is worked out anew, else no model is built."""
    monkeypatch.setattr("layerbench.profilers.ceilings.measure_ceilings", lambda *_: ceilings())
    monkeypatch.setattr("layerbench.profilers.ceilings._measured", {})
    model = f"{ROOT / 'tests' / 'models.py'}:small"
    words = ["--i", "2x3x16x16", "--device", "cpu", "--threads", "1", "--warmup", "0"]
    monkeypatch.setattr(
        sys, "argv", ["timer.py", "--model", model, *words, "--iterations", "2", "--out", "out"]
    )
    for more in (["--no-ceilings"], ["--ceilings"]):
        monkeypatch.setattr(sys, "argv", [*sys.argv, *more])
        with pytest.raises(SystemExit) as left:
            cli.run("timer")
        assert left.value.code == 0
        capsys.readouterr()
        (found,) = Path("out").glob("*/layers/*.json")
        record = reading.read(found)
        assert isinstance(record, Profile)
        assert record.ceilings == (ceilings() if more == ["--ceilings"] else None)
    (all_of_it,) = Path("out").glob("*/*.json")
    assert reading.read(all_of_it).ceilings == ceilings()
    assert plot(str(found), "--kind", "roofline", "-o", "r.svg") == (0, ["r.svg"], "")
    written = Path("r.svg").read_text(encoding="utf-8")
    assert "arithmetic: 1.00 GFLOP/s in float32" in written
    assert "stem" in written
    stored = reading.read(found)
    bare = tuple(
        row.model_copy(update={"flops": None, "self_flops": None}) for row in stored.layers
    )
    writing.write_text(
        Path("bare.json"), reporters.render("json", stored.model_copy(update={"layers": bare}))
    )
    assert plot("bare.json", "--kind", "roofline", "-o", "bare.svg")[0] == 0
    assert Path("bare.svg").read_bytes() == Path("r.svg").read_bytes()
    monkeypatch.setattr(verb, "_dissected", lambda _: pytest.fail("built a model"))
    assert plot(str(found), "--kind", "roofline", "-o", "again.svg")[0] == 0
