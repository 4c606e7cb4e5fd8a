"""Traces read piece by piece, and what is said of files that are none."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from layerbench.errors import RecordError
from layerbench.records.trace_events import NONE, OPERATOR, RANGE
from layerbench.store import kineto
from tests.support.sample_traces import HEADER, cuda_trace, event, module, operator, written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.json"


def refusal(path: Path) -> str:
    with pytest.raises(RecordError) as error:
        kineto.read(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_events_are_columns(file: Path) -> None:
    events = kineto.read(
        written(
            file,
            [
                event("user_annotation", "mine", 1.5, 2.25),
                operator("aten::mm", 2, 1, external=12, sequence=7),
                event("python_function", "train.py(3): step", 0, 9),
                {"ph": "M", "name": "process_name"},
            ],
        )
    )
    assert events.labels == ((RANGE, "mine"), (OPERATOR, "aten::mm"))
    assert events.start_ns.tolist() == [1500, 2000]
    assert events.duration_ns.tolist() == [2250, 1000]
    assert events.external.tolist() == [NONE, 12]
    assert events.sequence.tolist() == [NONE, 7]
    assert (events.total, events.frames, events.broken) == (4, 1, 0)
    assert events.categories == {"user_annotation": 1, "cpu_op": 1, "python_function": 1}


@pytest.mark.parametrize("piece", [1, 7, 64, 300, 10**6])
@pytest.mark.parametrize("name", ["t.json", "t.pt.trace.json.gz"])
def test_pieces_of_any_size_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, name: str
) -> None:
    tricky = ['"},\n  {"', "\\", '"traceEvents": [', "}, {", "é\u2028", "[{},{}]"]
    inner = {"args": {"nested": [{"a": 1}, {"b": [{}, {}]}], "text": tricky}}
    marks = [event("user_annotation", text, 10 * at, 5) | inner for at, text in enumerate(tricky)]
    header = HEADER | {"other": {"traceEvents": []}, "text": '"traceEvents": ['}
    path = written(tmp_path / name, [*marks, *cuda_trace()], header)
    monkeypatch.setattr(kineto, "PIECE_BYTES", piece)
    monkeypatch.setattr(kineto, "_NEAR_END", 32)
    events = kineto.read(path)
    assert events.total == len(marks) + len(cuda_trace())
    assert [name for _, name in events.labels][: len(tricky)] == tricky
    assert events.header["text"] == header["text"]
    assert events.header["traceName"] == name
    assert events.header["deviceProperties"] == HEADER["deviceProperties"]


@pytest.mark.parametrize("end", ["]", "", "\n", "\n]\n"])
def test_a_list_of_events_is_a_trace(file: Path, end: str) -> None:
    """Chrome's rules: without an object around it, and the bracket at the end may be missing."""
    rows = ",\n".join(json.dumps(module(f"A_{number}", number, 1)) for number in range(3))
    file.write_text(f"\ufeff [{rows}{end}")
    assert len(kineto.read(file).label) == 3


def test_a_trace_on_one_line(file: Path) -> None:
    file.write_text(json.dumps({"traceEvents": cuda_trace(), "traceName": "x"}))
    assert kineto.read(file).total == len(cuda_trace())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: export one by prof.export_chrome_trace"),
        (b" \n\t", "is empty"),
        (b"hello", "is not JSON: expected value at line 1; export one by"),
        (b"[1, {", "is cut short: copy it again, or export one by"),
        (b'{"a": 1}', "is JSON without traceEvents, no trace"),
        (b'{"traceEvents": {}}', "is JSON without traceEvents, no trace"),
        (b'"text"', "is JSON without traceEvents, no trace"),
        (b'{"record": "profile", "schema_version": 1}', "is a layerbench record, not a trace"),
        (b'{"traceEvents": [', "is cut short"),
        (b'{"traceEvents": []}', "holds no events"),
        (b'{"traceEvents": [{"ph": "X"}, {"ph": ', "is cut short"),
        (b'{"traceEvents": [{"ph": "X"},\n{"ph": nope}, {}]}', "is not JSON: expected"),
        (b'{"traceEvents": [{"ph": "X"}]} more', "is not JSON: trailing characters"),
        (b"\x1f\x8b\x08\x00", "its gzip data cannot be unpacked"),
        (b"\x1f\x8bnothing", "its gzip data cannot be unpacked"),
        (b'{"traceEvents": [{"name": "\xff"}]}', "is not JSON: invalid unicode"),
        (
            b'{"traceEvents": [{"ph": "X", "cat": "devtools.timeline", "ts": 1, "dur": 1}]}',
            "none of its 1 events is an operator, a range or a kernel (they are devtools.timeline)",
        ),
        (b'{"traceEvents": [1, 2]}', "none of its 2 events is an operator"),
        (
            b'[{"ph": "X", "cat": "cpu_op", "name": "aten::add", "ts": "1", "dur": "1"}]',
            "has no operator, module, range or kernel whose times can be read: export one by",
        ),
        (
            b'[{"ph": "X", "cat": "python_function", "name": "a.py(1): f", "ts": 1, "dur": 1}]',
            "has no operator, module, range or kernel whose times can be read",
        ),
        (
            gzip.compress(gzip.compress(b"[]", mtime=0), mtime=0),
            "is compressed by gzip twice: unpack it once, or",
        ),
        (b"PK\x03\x04...", "is compressed by zip: unpack it, or export one by"),
        (lzma.compress(b"[]"), "is compressed by xz"),
        (bz2.compress(b"[]"), "is compressed by bzip2"),
        (b"\x28\xb5\x2f\xfd...", "is compressed by zstd"),
        ('{"traceEvents": []}'.encode("utf-16"), "is text in UTF-16: save it as UTF-8, or"),
    ],
)
def test_what_is_no_trace_is_refused_in_a_line(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    message = refusal(file)
    assert said in message
    assert message.isprintable()
    assert len(message) < 400 + len(str(file))


def test_the_line_of_what_is_no_json_is_that_of_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(file, cuda_trace())
    lines = file.read_text().splitlines()
    number = len(lines) - 30
    lines[number - 1] = "nonsense"
    file.write_text("\n".join(lines))
    monkeypatch.setattr(kineto, "PIECE_BYTES", 500)
    assert f" at line {number};" in refusal(file)


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    whole = written(file, cuda_trace()[:8]).read_bytes()
    for end in range(1, len(whole) - 3, 41):
        file.write_bytes(whole[:end])
        assert "is cut short" in refusal(file) or "without traceEvents" in refusal(file)


def test_compressed_data_cut_short_is_refused(file: Path) -> None:
    path = written(file.with_name("t.json.gz"), cuda_trace())
    path.write_bytes(path.read_bytes()[:-200])
    assert "is cut short or damaged" in refusal(path)


def test_a_file_without_an_end_of_events_is_not_held_in_memory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kineto, "PIECE_BYTES", 100)
    monkeypatch.setattr(kineto, "MOST_PIECE_BYTES", 5_000)
    for beginning in ('{"traceEvents": ["', '{"a": "'):
        file.write_text(beginning + "x" * 20_000)
        assert "is no trace of torch.profiler: no" in refusal(file)
    path = file.with_name("bomb.gz")
    path.write_bytes(gzip.compress(b"[" + b" " * 10**7))
    assert "no event ends in 4.88 KiB" in refusal(path)


def test_names_and_events_have_limits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 9_000
    names = [long, "a", "b", "a", "c", long]
    events = [event("user_annotation", name, 10 * at, 5) for at, name in enumerate(names)]
    monkeypatch.setattr(kineto, "MOST_NAMES", 2)
    read = kineto.read(written(file, events))
    kept = [name for _, name in read.labels]
    assert kept[1:] == ["a", "(other names)"]
    assert (len(kept[0]), kept[0][:9]) == (4096, "x" * 9)
    assert read.label.tolist() == [0, 1, 2, 1, 2, 0]
    monkeypatch.setattr(kineto, "MOST_EVENTS", 5)
    assert "has more than 5 events" in refusal(file)


def test_layerbenchs_own_trace_is_told(file: Path) -> None:
    from layerbench import reporters
    from tests.support.sample_profiles import layered

    file.write_text(reporters.render("trace", layered()))
    assert "layerbench's own trace" in refusal(file)
    assert "layerbench report X.json" in refusal(file)


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no trace" in refusal(tmp_path / "nix.json")
    assert refusal(tmp_path).endswith("is a folder: name a trace")
    for name in ("vm_1.17.pt.trace.json", "vm_1.18.pt.trace.json.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert refusal(tmp_path).endswith("/vm_1.18.pt.trace.json.gz")
