"""Several models and inputs in one command line."""

from __future__ import annotations

import pytest

from layerbench import cli
from layerbench.api import timing
from layerbench.cli import timer
from layerbench.cli._several import added_up, combinations, joined
from layerbench.errors import UntrustedError, UsageError
from layerbench.records.timing import Profile
from layerbench.store import reading
from tests.support.paths import ROOT
from tests.support.sample_profiles import whole

SMALL = "tests/models.py:small"
QUICK = ["--warmup", "0", "--iterations", "1", "--device", "cpu", "--w", "True", "--threads", "1"]


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(*arguments)``: status, what was printed, what was complained about."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["timer.py", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.run("timer")
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return run


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("--input a b -q", "--input a,b -q"),
        ("m n --input a b", "m n --input a,b"),
        ("-i a b c --model m n", "-i a,b,c --model m n"),
        ("--input=a b", "--input=a,b"),
        ("--input a,b c", "--input a,b,c"),
        ("--input a --input b c", "--input a --input b,c"),
        ("--input a -- b", "--input a -- b"),
        ("--input -q a", "--input -q a"),
        ("m --batch 2 n", "m --batch 2 n"),
    ],
)
def test_the_words_of_an_option_up_to_the_next(words, read):
    assert joined(words.split(), ["--input", "-i"]) == read.split()


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("--device a --device b", "--device a,b"),
        ("--device=a -q --device b,c", "--device=a,b,c -q"),
        ("-d a --batch 2 --device=b --batch 3", "-d a,b --batch 2 --batch 3"),
        ("--device a --check_point x --check-point y", "--device a --check_point x,y"),
        ("--device a -- --device b", "--device a -- --device b"),
        ("--device a --device", "--device a --device"),
    ],
)
def test_a_list_that_is_said_more_than_once_adds_up(words, read):
    lists = {"--device": "device", "-d": "device", "--check-point": "other"}
    assert added_up(words.split(), lists) == read.split()


@pytest.mark.parametrize(
    ("verb", "words", "name", "values"),
    [
        ("estimate_latency", ["--device", "t4", "--device=a100"], "device", ["t4", "a100"]),
        ("estimate_gpus", ["--price", "t4=1", "--price", "l4=2"], "price", ["t4=1", "l4=2"]),
        ("estimate_detection", ["-m", "a,b", "--models", "c"], "models", ["c"]),
    ],
)
def test_a_verb_gets_all_values_of_a_list(verb, words, name, values):
    given, _ = cli.arguments_of(verb, words)
    assert given[name] == values


def test_each_model_with_each_input_once():
    given, _ = cli.arguments_of("timer", ["a", "b", "a", "--input", "x", "y", "--batch", "2"])
    asked = combinations(given["what"], given["models"])
    assert [(one.model, one.input, one.batch) for one in asked] == [
        *(("a", "x", 2), ("a", "y", 2), ("b", "x", 2), ("b", "y", 2))
    ]
    given, _ = cli.arguments_of("timer", ["--model", "a", "--input", "x"])
    assert combinations(given["what"], []) == [given["what"]]
    with pytest.raises(UsageError, match="say the models once: b, or --model a"):
        combinations(given["what"], ["b"])
    with pytest.raises(UsageError, match="pascal is an input and no model: say --input pascal"):
        combinations(given["what"], ["resnet18", "pascal"])
    with pytest.raises(UsageError, match="say --compile=max-autotune"):
        combinations(given["what"], ["max-autotune"])


def test_one_that_fails_does_not_lose_the_others(call, tmp_path):
    words = [SMALL, "tests/models.py:nothing", "--input", "1x3x8x8", "2x3x8x8", *QUICK]
    status, out, err = call(*words, "--out", str(tmp_path), "--format", "json")
    assert status == 2
    records = [path for path in tmp_path.rglob("*.json") if path.parent.name != "layers"]
    assert {reading.read(path, Profile).workload.input for path in records} == {
        "1x3x8x8",
        "2x3x8x8",
    }
    table = out.splitlines()[len(records) :]
    assert any("Median ms" in line for line in table)
    assert sum("1x3x8x8" in line for line in table) == 1
    assert [line.partition(": ")[2].split(": ")[0] for line in err.splitlines()] == [
        "tests/models.py:nothing on 1x3x8x8",
        "tests/models.py:nothing on 2x3x8x8",
    ]


def test_one_model_by_its_place_is_as_by_its_option(call):
    status, out, err = call(SMALL, "--input", "1x3x8x8", *QUICK)
    assert (status, err) == (0, "")
    assert out.startswith(f"{SMALL} on 1x3x8x8\n")
    assert "Median ms" not in out


def measured(record: Profile) -> timing.Measurement:
    return timing.Measurement(record, ())


def test_a_failure_names_its_model_once(call):
    _, _, err = call("tests/models.py:nothing", "tests/models.py:missing", *QUICK)
    assert [line.count("tests/models.py:missing") for line in err.splitlines()] == [0, 1]


def test_after_an_interrupt_the_rest_is_not_measured(capsys):
    given, _ = cli.arguments_of("timer", ["a", "b", "c", "d"])
    asked = combinations(given["what"], given["models"])
    ends = {
        "a": whole(),
        "b": UntrustedError("it is busy"),
        "c": whole().model_copy(update={"stop": "interrupted"}),
    }
    titles, delivered = [], []

    def measure(one, title):
        titles.append(title)
        end = ends[one.model]
        if isinstance(end, Exception):
            raise end
        return measured(end)

    status = timer._one_after_the_other(asked, measure, delivered.append, None)
    assert status == 130
    assert titles == ["1 of 4: a", "2 of 4: b", "3 of 4: c"]
    assert len(delivered) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "error: b: it is busy",
        "interrupted: 1 of 4 were not measured",
    ]
