"""Records that somebody damaged: refused in one line that says where, or shown."""

from __future__ import annotations

import json
import math
import random
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import annotated_types
import pytest

from layerbench import reporters
from layerbench.analysis.comparison import compare
from layerbench.errors import ComparisonError, RecordError
from layerbench.plots import bars, icicle, memory
from layerbench.records import kinds
from layerbench.records.bundle import Bundle
from layerbench.records.timing import Profile, Summary
from layerbench.records.workload import Frozen
from layerbench.reporters import csv, fitting, formatting
from layerbench.reporters.html.document import bundled, of
from layerbench.store import reading
from tests.support.mutations import committed, mutated, originals, read_all
from tests.support.sample_profiles import in_processes, layered, summary
from tests.support.sample_structures import structure

KNOWN = originals()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "record.json"


def changed(name: str, *places: tuple[tuple[Any, ...], Any]) -> dict[str, Any]:
    """One of the records with other values at some places."""
    content = json.loads(json.dumps(KNOWN[name]))
    for keys, value in places:
        holder = content
        for key in keys[:-1]:
            holder = holder[key]
        if isinstance(holder, list) and keys[-1] == len(holder):
            holder.append(value)
        else:
            holder[keys[-1]] = value
    return content


def refusal(file, content) -> str:
    """What is said of a record that is refused."""
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RecordError) as error:
        reading.read(file)
    text = str(error.value)
    assert text.startswith(f"{file} ")
    assert text.isprintable()
    return text


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_damaged_record_ends_in_a_traceback(file, part):
    names = sorted(KNOWN)
    for number in range(part, 300, 4):
        draw = random.Random(f"tests {number}")
        name = draw.choice(names)
        file.write_text(json.dumps(KNOWN[name]))
        other = reading.read(file)
        file.write_bytes(mutated(KNOWN[name], draw))
        for _ in read_all(file, other):
            pass


def test_all_records_of_the_repository_and_of_the_tests_are_valid(file):
    ours = [n for n in kinds.names() if kinds.named(n).__module__.startswith("layerbench.")]
    assert {content["record"] for content in KNOWN.values()} == set(ours)
    for content in KNOWN.values():
        file.write_text(json.dumps(content))
        reading.read(file)
    for path, _ in committed():
        if "golden" not in path.parts:
            reading.read(path)


ROW = ("rows", 3)
TREES = [
    ([((*ROW, "path"), "")], "the first row, and no other, is the model's own"),
    ([(("rows", 0, "path"), "x"), (("rows", 0, "depth"), 1)], "the first row, and no other"),
    ([((*ROW, "depth"), 2**31)], "is 2147483648, which its path does not say"),
    ([((*ROW, "depth"), 0)], "which its path does not say"),
    ([((*ROW, "depth"), -1)], "greater than or equal to 0"),
    ([((*ROW, "path"), "a" * 70_000)], "at most 65536 characters"),
    ([((*ROW, "type"), "a" * 5_000)], "at most 4096 characters"),
]


@pytest.mark.parametrize("kind", ["structure", "memory", "memory estimate", "training profile"])
@pytest.mark.parametrize(("places", "said"), TREES)
def test_rows_that_are_no_tree_are_refused(file, kind, places, said):
    assert said in refusal(file, changed(kind, *places))


@pytest.mark.parametrize("kind", ["structure", "memory", "comparison", "training profile"])
def test_a_row_that_stands_twice_is_refused(file, kind):
    rows = KNOWN[kind]["rows"]
    said = refusal(file, changed(kind, (("rows", len(rows)), rows[-1])))
    assert repr(rows[-1]["path"]) in said


def test_a_row_before_the_one_that_holds_it_is_refused(file):
    content = changed("profile")
    first, *rest = content["layers"]
    content["layers"] = [first, *reversed(rest)]
    assert "stands before the one that holds it" in refusal(file, content)


def test_a_row_of_a_comparison_has_a_path(file):
    assert "a row has an empty path" in refusal(
        file, changed("comparison", (("rows", -1, "path"), ""))
    )


def test_paths_far_from_every_row_would_fill_memory(file):
    deep = [f"{number}." + "a." * 2_000 + "x" for number in range(20)]
    said = refusal(file, changed("comparison", (("added",), deep)))
    assert "too many paths between the rows have no rows" in said


NUMBERS = [
    ("structure", ("flops",), 10**25, "less than or equal to 9223372036854775807"),
    ("structure", ("flops",), -1, "greater than or equal to 0"),
    ("structure", ("rows", 1, "input_shapes"), [[2**40, 2**40]], "more elements than 64 bits"),
    ("structure", ("rows", 1, "input_shapes"), [[1] * 300], "at most 256 items"),
    ("memory", ("timeline", 1, "owner"), 10_000, "stretch 1 of the timeline tells of a row"),
    ("memory", ("timeline", 1, "changes"), [[10_000, 5]], "stretch 1 of the timeline"),
    ("memory", ("timeline", 1, "changes"), [[-2, 5]], "greater than or equal to -1"),
    ("memory estimate", ("timeline", 0, "owner"), 25, "stretch 0 of the timeline"),
    ("memory estimate", ("peak_interval", "low"), 2**50, "the lower bound of the interval"),
    ("comparison", ("whole", "ratio_low"), 5, "the lower bound of the ratio is above"),
    ("comparison", ("whole", "ratio"), 0, "greater than or equal to 0.0"),
    ("profile", ("whole", "ci_high"), 1.7e308, "less than or equal to 1000000000000"),
    ("profile", ("process_medians",), [-1.0], "greater than or equal to 0"),
    ("profile", ("process_medians",), [1e-300], "shorter than a picosecond"),
    ("forecast", ("total", "low"), 1e11, "the lower bound of a duration is above"),
    ("detection estimates", ("rows", 0, "phases"), [], "lack the forward or the backward"),
    ("detection run", ("bottleneck", "shares"), {}, "the shares lack that of the bottleneck"),
    ("training profile", ("phases", 1, "name"), "forward", "the phase 'forward' occurs twice"),
]


@pytest.mark.parametrize(("kind", "keys", "value", "said"), NUMBERS)
def test_a_value_that_cannot_be_is_refused_with_its_place(file, kind, keys, value, said):
    text = refusal(file, changed(kind, (keys, value)))
    assert said in text
    assert f"{file} is not a valid record: " in text


FILES = [
    ('{"record": "profile", "plan": ' + "[" * 100_000, "is not JSON that can be read"),
    ('{"record": "profile", "plan": ' + "9" * 10_000 + "}", "is not JSON that can be read"),
    ('{"record": "' + "x" * 10_000 + '"}', "holds an unknown kind of record"),
    ('{"record": "\\u001b[2J"}', "\\x1b[2J"),
    ('{"record": "profile", "schema_version": "' + "x" * 10_000 + '"}', "has schema_version"),
    ('{"record": "profile", "schema_version": 1, "plan": "\\ud800"}', "is not JSON that can be"),
]


@pytest.mark.parametrize(("content", "said"), FILES)
def test_what_is_said_of_a_hostile_file_is_short_and_printable(file, content, said):
    text = refusal(file, content)
    assert said in text
    assert len(text) < 1_000


def test_an_unknown_field_is_named_as_it_can_be_shown(file):
    said = refusal(file, changed("profile", (("plan", "\x1b[2J"), 1)))
    assert said.endswith("plan.\\x1b[2J: Extra inputs are not permitted")


def test_a_file_without_an_end_is_no_record(file, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 1_000)
    assert "is larger than a record may be, 1000 B" in refusal(file, KNOWN["profile"])
    monkeypatch.setenv(reading.MOST_VARIABLE, "1")
    assert reading.read(file)
    monkeypatch.setenv(reading.MOST_VARIABLE, "-1")
    with pytest.raises(RecordError, match="holds a number of MiB, not -1"):
        reading.read(file)


# --- every field has limits ------------------------------------------------------------------


def all_fields() -> Iterator[tuple[str, Any, Any]]:
    waiting: list[type[Frozen]] = [kinds.named(name) for name in kinds.names()]
    seen: set[type[Frozen]] = set()
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        hints = typing.get_type_hints(kind, include_extras=True)
        for name, field in kind.model_fields.items():
            yield f"{kind.__name__}.{name}", hints[name], field.metadata
            waiting += [part for part in parts_of(hints[name]) if is_record(part)]


def is_record(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Frozen)


def parts_of(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        if get_origin(hint) is not Literal:
            yield from parts_of(part)


def unbounded(hint: Any, known: Any = ()) -> bool:
    """Whether a number or text in it may be of any size."""
    if get_origin(hint) is typing.Annotated:
        first, *rest = get_args(hint)
        return unbounded(first, (*known, *rest))
    if hint in (int, float, str):
        limits = [one for item in known for one in (getattr(item, "metadata", None) or [item])]
        kinds = (
            (annotated_types.MaxLen,) if hint is str else (annotated_types.Le, annotated_types.Lt)
        )
        written = any(getattr(limit, "pattern", None) for limit in limits)
        return not written and not any(isinstance(limit, kinds) for limit in limits)
    if get_origin(hint) in (tuple, dict, types.UnionType, typing.Union):
        return any(unbounded(part, known) for part in get_args(hint) if part is not Ellipsis)
    return False


def test_every_number_and_text_of_a_record_has_a_limit():
    loose = [name for name, hint, metadata in all_fields() if unbounded(hint, metadata)]
    assert loose == []


# --- readers at the limits -------------------------------------------------------------------


def test_a_model_nested_four_hundred_deep_is_shown_by_all():
    record = layered()
    paths = ["", *(".".join(["x"] * depth) for depth in range(1, 401))]
    rows = tuple(
        record.layers[0].model_copy(update={"path": path, "depth": depth})
        for depth, path in enumerate(paths)
    )
    deep = Profile.model_validate(record.model_copy(update={"layers": rows}).model_dump())
    for name in reporters.names():
        assert reporters.render(name, deep)
    assert len(icicle(deep).axes[0].patches) == 60


def test_places_between_rows_of_a_comparison_are_made_up_however_deep():
    content = changed("comparison", (("missing",), ["a." * 1_500 + "x"]))
    record = kinds.named("comparison").model_validate(content)
    assert len(of(bundled(record)).rows.path) > 1_500


def test_a_wide_cell_widens_no_other_row():
    rows = [["a", "1.5"], ["b" * 100_000, "2.25"]]
    assert sum(map(len, fitting.aligned(["x", "y"], rows, "l."))) < 110_000
    # Of Markdown, the rule below the header is as long as the longest cell.
    assert len(formatting.markdown_table(["x", "y"], rows * 10, "lr")) < 1_200_000
    assert fitting.aligned(["x", "y"], [], "l.") == ["x  y", "-  -"]


@pytest.mark.parametrize(("value", "length"), [(-5, 0), (0, 0), (1, 4), (2, 8), (10**30, 8)])
def test_a_bar_is_never_longer_than_its_place(value, length):
    assert len(formatting.bar(value, 2, 8)) == length


def test_blocks_of_a_record_without_a_timeline():
    record = Bundle.model_validate({"memory": KNOWN["memory"]}).memory
    assert "\n\nBlocks" in reporters.render("txt", record.model_copy(update={"timeline": ()}))


def test_epochs_with_other_phases_are_dashes():
    content = changed("training run", (("epochs", 0, "phases_s"), {"forward": 1.0}))
    record = kinds.named("training run").model_validate(content)
    for name in ("txt", "md", "html", "csv"):
        assert reporters.render(name, record)


def test_a_structure_without_rows():
    record = structure(rows=())
    for name in ("txt", "md", "html", "csv", "json"):
        assert reporters.render(name, record)


def test_detectors_with_other_phases_share_the_columns():
    content = changed("detection estimates")
    content["rows"][0]["phases"] = content["rows"][0]["phases"][2:5]
    record = kinds.named("detection estimates").model_validate(content)
    assert "data_mean_s" in reporters.render("csv", record).partition("\n")[0]


def test_a_process_without_time_cannot_be_compared():
    record = in_processes()
    still = record.model_copy(update={"process_medians": (0.0, *record.process_medians[1:])})
    with pytest.raises(ComparisonError, match="took no time in a process"):
        compare(still, record)


def test_an_interval_without_bounds_is_no_overflow():
    record = layered()
    wide = record.model_copy(
        update={"whole": Summary(**{**record.whole.model_dump(), "ci_low": 1e-12, "ci_high": 1e12})}
    )
    assert 0 < compare(wide, record).whole.ratio_low < compare(wide, record).whole.ratio_high
    spread = (1e-12, 1e12)
    far = record.model_copy(
        update={
            "whole": summary(5.0).model_copy(update={"process_medians": spread}),
            "process_medians": spread,
        }
    )
    found = compare(far, far)
    assert math.isfinite(found.whole.ratio_high)
    assert found.whole.verdict == "UNCLEAR"


def test_pictures_of_nothing_but_zeros():
    content = changed("memory", (("peak", "bytes"), 0))
    assert memory(kinds.named("memory").model_validate(content))
    nothing = changed("structure", (("flops",), 0), (("parameters",), 0))
    assert bars(kinds.named("structure").model_validate(nothing), "flops")
    assert icicle(kinds.named("structure").model_validate(nothing), "parameters")


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        *(
            ("=1+1", "'=1+1"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("@SUM(1)", "'@SUM(1)"),
        ),
        *(("-2+3", "'-2+3"), ("\tx", "'\tx"), ("\rx", "'\rx"), ("+1+1", "'+1+1"), ("-", "-")),
        *(("-2.5", "-2.5"), ("+10.2 %", "+10.2 %"), ("-1e-5", "-1e-5"), ("a=1", "a=1"), (-2, -2)),
        *(("", ""), (None, None), ("'=x", "'=x")),
        *(("\n=1", "'\n=1"), ("\uff1d1+1", "'\uff1d1+1"), ("\uff201", "'\uff201")),
    ],
)
def test_a_spreadsheet_computes_no_name(cell, shown):
    assert csv.inert(cell) == shown
