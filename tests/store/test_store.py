from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from layerbench.errors import OutputError, RecordError
from layerbench.records import kinds
from layerbench.records.environment import DeviceInfo, Environment, Machine, Software
from layerbench.records.kinds import Record
from layerbench.records.timing import Profile, Summary
from layerbench.records.workload import Plan, Workload
from layerbench.store import paths, reading, writing


def make_profile(plan=None, **workload):
    times = ("mean", "std", "median", "mad", "min", "max", "p5", "p25", "p75", "p95", "p99")
    values = dict.fromkeys((*times, "ci_low", "ci_high"), 0.25)
    work = {"model": "resnet18", "input": "pascal", "shape": (1, 3, 500, 334), "batch": 1}
    return Profile(
        workload=Workload(**{**work, **workload}),
        plan=plan or Plan(),
        environment=Environment(
            device=DeviceInfo(kind="cpu", name="AMD EPYC", slug="amd-epyc-2c"),
            machine=Machine(cpu="AMD EPYC", cores=2),
            software=Software(layerbench="0.1.0", python="3.11.7", packages={}),
            command="timer.py",
            started="2026-01-02T03:04:05Z",
            finished="2026-01-02T03:04:06Z",
        ),
        model_type="ResNet",
        parameters=11_689_512,
        whole=Summary(n=3, verdict="stable", **values),
    )


def write_profile(path, profile=None):
    text = (profile or make_profile()).model_dump_json(by_alias=True, indent=1)
    writing.write_text(path, text)
    return text


def change(path, *keys, to):
    """Set one entry of a JSON file, found by its keys."""
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(content))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


# --- writing


def test_a_report_is_written_and_its_folders_made(tmp_path):
    path = tmp_path / "stats" / "amd-epyc-2c" / "report.txt"
    writing.write_text(path, "1 µs\n2 µs\n")
    assert path.read_bytes() == "1 µs\n2 µs\n".encode()
    assert os.listdir(path.parent) == ["report.txt"]


def test_a_report_is_replaced(tmp_path):
    path = tmp_path / "report.npz"
    writing.write_bytes(path, b"a long first version")
    writing.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["report.npz"]


@pytest.mark.skipif(os.name != "posix", reason="the permissions of POSIX")
def test_a_report_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    writing.write_text(tmp_path / "report", "")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("other", "report")}
    assert len(modes) == 1


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writing.write_text(pipe, "new")
    assert os.read(reader, 9) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("below/a.txt")
    writing.write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "below" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_an_interrupted_write_leaves_the_old_report_and_nothing_else(
    tmp_path, monkeypatch, step, error
):
    path = tmp_path / "report.txt"
    writing.write_text(path, "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(writing.os, step, fail)
    with pytest.raises(error):
        writing.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.txt"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "report.txt"

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises(OutputError) as error:
        writing.write_text(path, "new")
    assert one_line(error) == (
        f"cannot write {path}: No space left on device; choose another folder with --out"
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_reports_that_belong_together_are_all_new_or_all_old(tmp_path, monkeypatch, step):
    paths = [tmp_path / name for name in ("whole.txt", "whole.json", "layers.txt")]
    writing.write_all([(path, b"old") for path in paths])
    calls = []

    def fail(*_):
        calls.append(step)
        if step == "replace" or len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, step, fail)
    with pytest.raises(OutputError, match="No space left"):
        writing.write_all([(path, b"new") for path in paths])
    assert {path.read_bytes() for path in paths} == {b"old"}
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)


def test_where_not_all_reports_could_take_their_places_the_new_ones_are_named(
    tmp_path, monkeypatch
):
    paths = [tmp_path / name for name in ("a.txt", "b.txt")]
    replace = os.replace

    def fail(source, target):
        if str(target).endswith("b.txt"):
            raise OSError(30, "Read-only file system")
        replace(source, target)

    monkeypatch.setattr(writing.os, "replace", fail)
    with pytest.raises(OutputError) as error:
        writing.write_all([(path, b"new") for path in paths])
    assert f"only {paths[0]} are of this run" in one_line(error)


def test_a_file_where_a_folder_should_be_is_an_output_error(tmp_path):
    (tmp_path / "stats").write_text("a file")
    with pytest.raises(OutputError) as error:
        writing.write_text(tmp_path / "stats" / "report.txt", "text")
    assert str(tmp_path / "stats" / "report.txt") in one_line(error)
    assert (tmp_path / "stats").read_text() == "a file"


def test_a_folder_where_the_report_should_be_is_an_output_error(tmp_path):
    (tmp_path / "report.txt").mkdir()
    with pytest.raises(OutputError):
        writing.write_text(tmp_path / "report.txt", "text")
    assert os.listdir(tmp_path) == ["report.txt"]


BLOCKED = """
import os, sys
from pathlib import Path
from layerbench.store import writing

def block(*_):
    print("blocked", flush=True)
    sys.stdin.read()

setattr(os, sys.argv[2], block)
writing.write_text(Path(sys.argv[1]), "new")
print("written", flush=True)
"""

ENDLESS = """
import sys
from pathlib import Path
from layerbench.store import writing

for number in range(1_000_000):
    writing.write_text(Path(sys.argv[1]), f"{number}\\n" * 50_000)
    print(number, flush=True)
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_nine(process):
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_kill_nine_before_the_rename_leaves_the_old_report_whole(tmp_path, step):
    path = tmp_path / "report.json"
    old = write_profile(path)
    process = start(BLOCKED, path, step)
    assert process.stdout.readline() == "blocked\n"
    kill_nine(process)
    assert path.read_text() == old
    assert reading.read(path) == make_profile()
    assert [found for found, _ in reading.read_all([tmp_path])] == [path]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("versions", [1, 2, 3, 5, 8])
def test_kill_nine_at_any_moment_leaves_one_whole_version(tmp_path, versions):
    path = tmp_path / "report.txt"
    process = start(ENDLESS, path)
    for number in range(versions):
        assert process.stdout.readline() == f"{number}\n"
    kill_nine(process)
    lines = path.read_text().splitlines()
    assert len(lines) == 50_000
    assert len(set(lines)) == 1
    assert int(lines[0]) >= versions - 1


# --- the check before a long run


@pytest.mark.parametrize("place", ["", "there", "not/there/yet"])
def test_a_writable_folder_is_left_as_it_was(tmp_path, place):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "report.txt").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    writing.check_writable(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_folder_is_checked_where_the_user_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writing.check_writable(Path("reports/cpu"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_is_refused_before_the_run(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as error:
        writing.check_writable(tmp_path / place)
    assert str(tmp_path / place) in one_line(error)
    assert os.listdir(tmp_path) == ["file"]


def test_folders_made_for_the_check_go_again_when_it_fails(tmp_path):
    too_long = tmp_path / "a" / "b" / ("x" * 300)
    with pytest.raises(OutputError):
        writing.check_writable(too_long)
    assert os.listdir(tmp_path) == []


def test_a_dangling_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError):
        writing.check_writable(tmp_path / "link")
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError):
            writing.check_writable(tmp_path / "below")
    finally:
        tmp_path.chmod(0o755)


# --- reading


def test_a_profile_comes_back_as_it_was(tmp_path):
    profile = make_profile()
    write_profile(tmp_path / "report.json", profile)
    assert reading.read(tmp_path / "report.json") == profile


def test_a_record_that_is_not_there(tmp_path):
    with pytest.raises(RecordError) as error:
        reading.read(tmp_path / "none.json")
    assert one_line(error) == f"there is no record {tmp_path / 'none.json'}"


def test_a_folder_is_no_record(tmp_path):
    with pytest.raises(RecordError) as error:
        reading.read(tmp_path)
    assert str(tmp_path) in one_line(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is cut short: Expecting value at line 1 column 1"),
        (b'{"record": "profile",\n "who', "is cut short: Unterminated string"),
        (b'{"record": "profile"', "is cut short"),
        (b"Average execution time", "is not JSON: Expecting value at line 1 column 1"),
        (b'{"record": profile}', "is not JSON: Expecting value at line 1 column 12"),
        (b"\x89PNG\r\n", "is not JSON: byte 0 is not UTF-8"),
        (b"[" * 100_000, "is not JSON that can be read"),
        (b"[1, 2]", "is JSON, but no layerbench record"),
        (b'{"name": "package"}', "is JSON, but no layerbench record"),
        (b'{"traceEvents": []}', "is a trace, no record: python -m layerbench report --from-tr"),
        (
            gzip.compress(b"{}", mtime=0),
            "is compressed, and no record; of a trace: python -m",
        ),
        (b'{"record": ["profile"]}', "is JSON, but no layerbench record"),
        (b'{"record": "recipe"}', "unknown kind of record, 'recipe'; this layerbench reads"),
        (b'{"record": "profile"}', "has schema_version None; this layerbench reads 1"),
        (b'{"record": "profile", "schema_version": 99}', "has schema_version 99"),
        (b'{"record": "profile", "schema_version": [1]}', "has schema_version [1]"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, content, said):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        reading.read(path)
    assert one_line(error).startswith(str(path))
    assert said in str(error.value)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "report.json"
    text = write_profile(path)
    for length in range(0, len(text) - 1, 37):
        path.write_text(text[:length])
        with pytest.raises(RecordError, match=r"report\.json (is cut short|is not JSON)"):
            reading.read(path)


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("whole", "median"), "fast", "whole.median: Input should be a valid number"),
        (("workload", "shape", 2), None, "workload.shape.2: Input should be a valid integer"),
        (("workload", "batch"), -1, "workload.batch: Input should be greater than"),
        (("plan", "colour"), "red", "plan.colour: Extra inputs are not permitted"),
        (("environment",), {}, "environment.device: Field required (and 5 more)"),
    ],
)
def test_an_invalid_field_is_named(tmp_path, keys, value, said):
    path = tmp_path / "report.json"
    write_profile(path)
    if keys == ("workload", "shape", 2):
        assert json.loads(path.read_text())["workload"]["shape"][2] == 500
    change(path, *keys, to=value)
    with pytest.raises(RecordError) as error:
        reading.read(path)
    assert f"{path} is not a valid record: {said}" in one_line(error)


class Toy(Record):
    record: Literal["toy"] = "toy"
    schema_version: Literal[1, 2] = 2


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.json"
    path.write_text(Toy().model_dump_json())
    return path


def test_a_kind_of_record_is_read_once_its_class_is_there(toy):
    assert reading.read(toy) == reading.read(toy, Toy) == Toy()
    change(toy, "schema_version", to=3)
    with pytest.raises(RecordError, match="has schema_version 3; this layerbench reads 1, 2"):
        reading.read(toy)


def test_another_kind_of_record_is_no_profile(toy):
    with pytest.raises(RecordError, match="holds a toy record, not a profile"):
        reading.read(toy, Profile)


def test_every_kind_of_record_says_its_name_and_version():
    for name in kinds.names():
        kind = kinds.named(name)
        assert kind.kind() == name
        assert kind is Toy or kind.model_fields["schema_version"].default == 1


def test_a_folder_gives_all_its_records_sorted(tmp_path, toy):
    paths = [tmp_path / name for name in ("b.json", "a.json", "layers/a.json")]
    for path in paths:
        write_profile(path)
    (tmp_path / "a.txt").write_text("not a record")
    expected = [tmp_path / "a.json", tmp_path / "b.json", tmp_path / "layers" / "a.json", toy]
    assert [path for path, _ in reading.read_all([tmp_path])] == expected


def test_a_file_given_twice_is_read_once(tmp_path):
    write_profile(tmp_path / "a.json")
    write_profile(tmp_path / "b.json")
    found = reading.read_all([tmp_path / "b.json", tmp_path, tmp_path / "." / ".." / tmp_path.name])
    assert [path.name for path, _ in found] == ["a.json", "b.json"]


def test_a_damaged_record_in_a_folder_is_an_error(tmp_path):
    write_profile(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(RecordError, match=r"b\.json is cut short"):
        reading.read_all([tmp_path])


def test_a_place_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="there is no record"):
        reading.read_all([tmp_path / "nowhere"])


# --- names


@pytest.mark.parametrize(
    ("workload", "plan", "name"),
    [
        ({}, {}, "resnet18_pascal"),
        ({}, {"iterations": 20, "granularity": "blocks"}, "resnet18_pascal"),
        ({}, {"threads": 1}, "resnet18_pascal_1-thread"),
        ({}, {"threads": 4}, "resnet18_pascal_4-threads"),
        ({"dtype": "bfloat16"}, {}, "resnet18_pascal_bfloat16"),
        ({"memory_format": "channels_last"}, {}, "resnet18_pascal_channels-last"),
        ({"mode": "train"}, {}, "resnet18_pascal_train"),
        ({"compile": "default"}, {}, "resnet18_pascal_compiled"),
        ({"cuda_graph": True}, {}, "resnet18_pascal_cuda-graph"),
        ({"compile": "max-autotune"}, {}, "resnet18_pascal_compiled-max-autotune"),
        ({"weights": "DEFAULT"}, {}, "resnet18_pascal_weights-default"),
        ({"seed": 3}, {}, "resnet18_pascal_seed-3"),
        (
            {"dtype": "float16", "memory_format": "channels_last", "mode": "train"},
            {"threads": 2},
            "resnet18_pascal_float16_channels-last_train_2-threads",
        ),
        ({"batch": 8, "shape": (8, 3, 500, 334)}, {}, "resnet18_pascal-b8"),
        ({"input": "8x3x64x64", "batch": 8, "shape": (8, 3, 64, 64)}, {}, "resnet18_8x3x64x64"),
        ({"input": "3x64x64", "batch": 8, "shape": (8, 3, 64, 64)}, {}, "resnet18_3x64x64-b8"),
        ({"input": "3x64x64", "batch": 1, "shape": (1, 3, 64, 64)}, {}, "resnet18_3x64x64"),
        ({"model": "timm:resnet50.a1_in1k"}, {}, "timm-resnet50-a1_in1k_pascal"),
        ({"model": "package.module:build"}, {}, "package-module-build_pascal"),
        ({"model": "nets/small.py:build"}, {}, "nets-small-build_pascal"),
        ({"model": "../small.py:build"}, {}, "small-build_pascal"),
        ({"model": "/home/me/nets/small.py:build"}, {}, "small-build_pascal"),
        ({"model": "Größe ../.. x"}, {}, "Gr-e-x_pascal"),
        ({"model": "../.."}, {}, "unnamed_pascal"),
    ],
)
def test_the_name_of_a_report(workload, plan, name):
    assert paths.base_name(make_profile(Plan(**plan), **workload)) == name


def test_the_places_of_a_profile():
    places = paths.places(make_profile(), Path("cpu/stats"))
    assert places.whole == Path("cpu/stats/amd-epyc-2c/resnet18_pascal")
    assert places.layers == Path("cpu/stats/amd-epyc-2c/layers/resnet18_pascal")


def test_a_format_can_be_put_after_any_place():
    places = paths.places(make_profile(model="timm:resnet50.a1_in1k"), Path("stats"))
    assert places.whole.with_suffix(".txt").name == "timm-resnet50-a1_in1k_pascal.txt"
