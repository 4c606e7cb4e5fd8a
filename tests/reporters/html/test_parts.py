"""The page's files, and what it is told, without a browser."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest

from layerbench import cli, reporters, units
from layerbench.analysis.bundle import joined
from layerbench.errors import ComparisonError
from layerbench.records.bundle import Bundle
from layerbench.records.view import View
from layerbench.reporters.html import assets
from layerbench.reporters.html.document import bundled, of
from layerbench.store import writing
from tests.support.browser import REQUIRED, full_bundle
from tests.support.sample_bundles import whole as joined_sample
from tests.support.sample_comparisons import in_processes, measured, one_slower
from tests.support.sample_detection import begun
from tests.support.sample_profiles import counted, deep, layered, summary, whole
from tests.support.sample_structures import structure

PAGE = Path(assets.__file__).parent


def metric(document, key: str):
    return next(one for one in document.metrics if one.key == key)


# --- files ---------------------------------------------------------------------------------


def test_vendored_files_are_as_they_were_published():
    sums = (PAGE / "vendor/SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split() for line in sums)}
    there = [path for path in (PAGE / "vendor").glob("*/*") if path.is_file()]
    assert {str(path.relative_to(PAGE / "vendor")) for path in there} == set(listed)
    for path in there:
        name = str(path.relative_to(PAGE / "vendor"))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name]
    folders = {path.parent for path in there}
    assert all((folder / "LICENSE").is_file() for folder in folders)


def test_every_module_is_handed_out_and_nothing_else():
    modules = {path.stem for path in (PAGE / "static").glob("*.js")}
    page, policy = assets.live_page()
    imports = json.loads(re.search(rb'"importmap">(.*?)</script>', page)[1])["imports"]
    assert {name.removeprefix("layerbench/") for name in imports} == modules | {
        "uplot",
        "d3-hierarchy",
        "dagre",
    }
    for address in imports.values():
        content, kind = assets.static(address.removeprefix("/static/"))
        assert content
        assert kind.startswith("text/javascript")
    assert assets.static("page.css")[1].startswith("text/css")
    for name in ("../form.py", "layerbench/../../form.py", "viewer.html", "layerbench/x.js", ""):
        assert assets.static(name) is None
    assert "'unsafe" not in policy


def test_modules_name_each_other_by_bare_specifiers():
    """A relative one would not be found in a report's data: addresses."""
    for path in (PAGE / "static").glob("*.js"):
        for found in re.findall(r"""from ['"]([^'"]+)['"]""", path.read_text()):
            assert found in ("uplot", "d3-hierarchy", "dagre") or found.startswith("layerbench/")


@pytest.mark.slow
def test_the_types_of_the_modules():
    checker = shutil.which("tsc")
    if checker is None:
        missing = "no tsc: apt-get install node-typescript"
        pytest.fail(missing) if os.environ.get(REQUIRED) else pytest.skip(missing)
    done = subprocess.run(
        [checker, "-p", PAGE / "static/tsconfig.json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_report_loads_nothing():
    page = reporters.render("html", layered())
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
    assert assets.REPORT_POLICY in page
    assert page.count("</script>") == 3


def test_mobilenets_report_is_below_600_kilobytes():
    assert len(reporters.render("html", full_bundle()).encode()) < 600 * 1024


def test_mobilenets_profile_is_below_350_kilobytes():
    """With FLOPs and all; a notebook keeps it for each cell."""
    bundle = full_bundle()
    names = ("own_parameters", "flops", "self_flops", "kernel_size", "groups")
    made = {row.path: row for row in bundle.structure.rows}
    rows = [
        row.model_copy(update={name: getattr(made[row.path], name) for name in names})
        if row.path in made
        else row
        for row in bundle.profile.layers
    ]
    profile = bundle.profile.model_copy(
        update={"layers": tuple(rows), "ceilings": counted().ceilings}
    )
    assert len(reporters.render("html", profile).encode()) <= 350_000


def test_colours_of_the_heat_are_told_apart_by_lightness_alone():
    """So they are by colour-blind eyes, and in print."""
    script = (PAGE / "static/heat.js").read_text()
    colours = re.findall(r"#[0-9a-f]{6}", re.search(r"LIGHT = \[(.*?)\]", script)[1])
    weights = (0.2126, 0.7152, 0.0722)  # of sRGB's primaries in its luminance (ITU-R BT.709)
    lightness = [
        sum(
            w * (part / 255) ** 2.2 for w, part in zip(weights, bytes.fromhex(one[1:]), strict=True)
        )
        for one in colours
    ]
    steps = [brighter / darker for brighter, darker in pairwise(lightness)]
    assert len(colours) == 7
    assert min(steps) > 1.1


# --- what it is told -----------------------------------------------------------------------


def test_areas_add_up_to_the_whole():
    document = of(full_bundle())
    time = metric(document, "time")
    profile = full_bundle().profile
    assert sum(time.area) == pytest.approx(profile.layers[0].inclusive.mean, rel=1e-4)
    for key in ("flops", "parameters", "at_peak"):
        one = metric(document, key)
        assert sum(one.area) == one.values[0]


def test_figures_of_all_records_stand_beside_each_other():
    bundle = full_bundle()
    document = of(bundle)
    path = "features.1.conv.0.0"
    row = document.rows.path.index(path)
    (layer,) = [one for one in bundle.profile.layers if one.path == path]
    (made,) = [one for one in bundle.structure.rows if one.path == path]
    (held,) = [one for one in bundle.memory.rows if one.path == path]
    assert metric(document, "time").values[row] == pytest.approx(layer.inclusive.median, rel=1e-5)
    assert metric(document, "flops").values[row] == made.flops
    assert metric(document, "live").values[row] == held.live_peak
    assert document.roofline is not None
    (point,) = [one for one in document.roofline.points if one.row == row]
    assert point.rate == pytest.approx(made.flops / layer.self_.median, rel=1e-4)


def test_repeats_are_folded_but_stages_are_not():
    types = [fold.type for fold in of(full_bundle()).folds]
    assert "InvertedResidual" in types
    assert "Sequential" not in types
    (fold,) = [one for one in of(full_bundle()).folds if one.type == "InvertedResidual"]
    assert len(fold.members) == 17
    total, least, middle, most = fold.stats["flops"]
    flops = metric(of(full_bundle()), "flops")
    values = sorted(flops.values[member] for member in fold.members)
    assert (total, least, middle, most) == (
        pytest.approx(sum(values)), values[0], values[8], values[-1],
    )  # fmt: skip
    # What does not add up has no total.
    assert fold.stats["live"][0] is None


def test_a_whole_models_record_has_one_row():
    document = of(bundled(whole()))
    assert document.rows.path == ("",)
    assert " a forward (median, 95 % interval)" in document.head


def test_a_row_that_only_the_baseline_has_stands_below_its_parent():
    comparison = one_slower()
    document = of(Bundle(comparison=comparison))
    for path in comparison.missing:
        row = document.rows.path.index(path)
        assert document.rows.kind[row] == "missing"
        assert document.changed.verdict[row] == "missing"
        before = [one for one in range(row) if document.rows.depth[one] < document.rows.depth[row]]
        assert path.startswith(document.rows.path[before[-1]])


def test_a_comparison_alone_has_containers_that_never_run_and_added_rows():
    comparison = one_slower()
    rows = [row for row in comparison.rows if row.path != "features"]
    document = of(Bundle(comparison=comparison.model_copy(update={"rows": tuple(rows)})))
    paths = list(document.rows.path)
    assert document.rows.depth[paths.index("features")] == 1
    assert paths.index("features") < paths.index("features.1") < paths.index("classifier")
    for path in comparison.added:
        assert document.changed.verdict[paths.index(path)] == "added"


def test_functions_that_take_longer_than_their_module_fit_into_it():
    record = layered()
    rows = [
        row.model_copy(update={"inclusive": summary(50.0)}) if row.kind == "function" else row
        for row in record.layers
    ]
    document = of(Bundle(profile=record.model_copy(update={"layers": tuple(rows)})))
    whole = record.layers[0].inclusive.mean
    assert sum(metric(document, "time").area) == pytest.approx(whole, rel=1e-4)


def test_folded_rows_have_self_figures_and_verdicts():
    (fold,) = of(full_bundle()).folds
    assert fold.stats["own time"][0] > 0
    names = [row.path for row in deep(1, 3, 1).layers]
    before, after = (
        deep(1, 3, 1).model_copy(
            update={
                "layers": tuple(
                    row.model_copy(
                        update={
                            "inclusive": in_processes(row.inclusive.mean * 1e3 * factor),
                        }
                    )
                    for row in deep(1, 3, 1).layers
                ),
            }
        )
        for factor in (1.0, 1.5)
    )
    assert "s0.b0" in names
    document = of(joined([("a", before), ("b", after)]))
    verdicts = [fold.verdicts for fold in document.folds if fold.type == "Block"]
    assert verdicts
    assert sum(verdicts[0].values()) == 3


def test_what_holds_nothing_has_one_distribution():
    spreads = {spread.key: spread for spread in of(bundled(layered())).spreads}
    rows = [row.path for row in layered().layers]
    once = {rows[row[0]] for row in spreads["time"].rows} - {
        rows[row[0]] for row in spreads["own time"].rows
    }
    assert once == {
        row.path for row in layered().layers if row.self_ and row.self_ == row.inclusive
    }
    assert "classifier" in once


def test_figures_of_a_profile_give_way_to_a_structures():
    bundle = full_bundle()
    rows = [row.model_copy(update={"flops": 1, "groups": 7}) for row in bundle.profile.layers]
    profile = bundle.profile.model_copy(update={"layers": tuple(rows)})
    document = of(bundle.model_copy(update={"profile": profile}))
    assert metric(document, "flops").values[0] == bundle.structure.flops
    alone = of(Bundle(profile=profile))
    assert metric(alone, "flops").values[0] == 1
    assert alone.rows.groups[0] == 7


def test_the_roofline_of_a_profile_is_that_of_its_structure():
    profile = counted()
    (point,) = [
        one
        for one in of(Bundle(profile=profile)).roofline.points
        if profile.layers[one.row].path == "features.2.conv"
    ]
    row = profile.layers[point.row]
    assert point.rate == pytest.approx(2e6 / row.self_.median, rel=1e-4)
    moved = 4 * (2 * prod(row.input_shapes[0]) + row.own_parameters)
    assert point.intensity == pytest.approx(2e6 / moved, rel=1e-4)
    assert point.bound == "compute"
    assert of(Bundle(profile=layered())).roofline is None


def test_a_first_screen_says_what_the_text_does_and_is_text():
    record = counted()
    assert of(Bundle(profile=record), View(top=1)).head.count('<th scope="row">') == 1
    rows = list(record.layers)
    rows[2] = rows[2].model_copy(update={"path": "<b>", "type": "</table>\x1b"})
    head = of(Bundle(profile=record.model_copy(update={"layers": tuple(rows)}))).head
    assert '<th scope="row">&lt;b&gt;</th><td class="aside">&lt;/table&gt;\\x1b</td>' in head
    assert "The whole model is SLOWER" in of(Bundle(comparison=one_slower())).head


def test_what_a_first_screen_says_is_said_once():
    bundle = full_bundle()
    every = of(bundle)
    assert [name for name, _ in every.facts] == ["Forward", "Layers less the whole"]
    assert f"Peak {units.mebibytes(bundle.memory.peak.bytes)} of tensors alive" in every.head
    alone = of(Bundle(structure=bundle.structure))
    assert (alone.facts, "parameters" in alone.head) == ((), True)
    # The load before the run is a caution of the first screen.
    (warning,) = layered().environment.warnings
    document = of(Bundle(profile=layered()))
    assert (document.warnings, warning in document.head) == ((), True)
    compared = of(Bundle(comparison=one_slower()))
    assert "When the baseline was measured" in compared.head


def test_what_differs_between_joined_records_is_said():
    bundle = full_bundle()
    other = bundle.structure.workload.model_copy(update={"dtype": "bfloat16"})
    structure_of = bundle.structure.model_copy(update={"workload": other})
    document = of(bundle.model_copy(update={"structure": structure_of}))
    assert "the structure is of another precision: bfloat16, not float32" in document.notes


# --- joining and the command ---------------------------------------------------------------


def test_two_profiles_are_compared_and_a_structure_is_joined():
    before, after = measured(), measured({"features.1": 1.3}, whole=1.1)
    bundle = joined([("a", before), ("b", after)])
    assert (bundle.profile, bundle.baseline) == (after, before)
    assert bundle.comparison.contender.name == "b"
    assert joined([("a", before), ("a", before)]).comparison is not None
    alone = joined([("a", before)])
    assert (alone.profile, alone.comparison) == (before, None)


def test_of_two_bundles_the_first_gives_the_times_that_the_other_is_compared_with():
    first, second = joined_sample(), joined_sample()
    bundle = joined([("a", first), ("b", second)])
    assert (bundle.profile, bundle.baseline) == (second.profile, first.profile)
    assert (bundle.structure, bundle.memory) == (second.structure, second.memory)
    assert bundle.comparison.baseline.name == "a"


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([measured()] * 3, "at most two profiles"),
        ([measured(), measured(), one_slower()], "is a comparison already"),
        ([structure(), structure()], "r0 and r1 are both structure records"),
        ([begun()], "has no rows of layers"),
        ([measured(), full_bundle().structure], "a report is of one model and input"),
    ],
    ids=["three", "both", "twice", "no rows", "another model"],
)
def test_what_cannot_be_joined(records, why):
    with pytest.raises(ComparisonError, match=why):
        joined([(f"r{number}", record) for number, record in enumerate(records)])


@pytest.fixture
def report(monkeypatch, capsys):
    """``report(*arguments)``: exit status, what was printed, what was complained about."""

    def call(*arguments: object):
        words = ["layerbench", "report", *map(str, arguments)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call


def test_the_command(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, record in (("a", measured()), ("b", measured({"features.1": 1.3}))):
        writing.write_text(tmp_path / f"{name}.json", reporters.render("json", record))
    status, out, _ = report("a.json", "b.json", "-o", "out/r.html")
    assert status == 0
    assert out.startswith("out/r.html (")
    told = re.search(
        r'id="document">(.*?)</script>', (tmp_path / "out/r.html").read_text(), flags=re.DOTALL
    )
    changed = json.loads(told[1])["changed"]
    assert "SLOWER" in changed["verdict"]
    assert report("a.json")[1].startswith("a.html (")
    assert (tmp_path / "a.html").is_file()


def test_a_file_that_is_not_there(report, tmp_path):
    status, _, err = report(tmp_path / "nothing.json")
    assert status == 2
    assert "nothing.json" in err
