"""The pytest plugin, in suites of its own: what fails, what is skipped, what the summary says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import layerbench
from layerbench.environment.device_lock import lock_path
from layerbench.profilers import rounds
from tests.support.pytest_suites import AGAINST, PARAMETERS, QUICK, UPDATE
from tests.support.undisturbed import NeverWaits

pytest_plugins = ("pytester",)


# --- beside a record --------------------------------------------------------------------------


@pytest.mark.slow
def test_from_no_record_to_a_failing_check(suite, pytester) -> None:
    missing = suite(AGAINST.format(1), "--layerbench")
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(
        "*there is no record reports/net.json: "
        "pytest --layerbench-update test_speed.py::test_speed makes it"
    )

    made = suite(AGAINST.format(1), *UPDATE)
    made.assert_outcomes(passed=1)
    made.stdout.fnmatch_lines("UPDATED reports/net.json")
    record = layerbench.read(pytester.path / "reports" / "net.json")
    assert (record.model_type, record.plan.iterations, record.plan.warmup) == ("Net", 10, 1)

    same = suite(AGAINST.format(1), "--layerbench", "-s")
    same.assert_outcomes(passed=1)
    same.stdout.fnmatch_lines(["*outcome * True", "Verdict *Baseline ms *Model *Test"])

    slower = suite(AGAINST.format(2000), "--layerbench")
    slower.assert_outcomes(failed=1)
    slower.stdout.fnmatch_lines(
        [
            "*Failed: Net is SLOWER than reports/net.json (threshold 90.0 %)",
            "E *whole model *SLOWER*",
            "E *1 (Work) *SLOWER*",
            "E *If this is meant: pytest --layerbench-update test_speed.py::test_speed writes *",
            "test_speed.py:*: Failed",
            "SLOWER *Net on 1x3x16x16 *test_speed.py::test_speed",
        ]
    )
    slower.stdout.no_fnmatch_line("*pytest_checks.py*")


def changed(record: Path, change) -> None:
    """Rewrite a record."""
    content = json.loads(record.read_text(encoding="utf-8"))
    change(content)
    record.write_text(json.dumps(content), encoding="utf-8")


def test_what_cannot_be_told_passes_and_the_summary_says_why(suite, pytester) -> None:
    suite(AGAINST.format(1), *UPDATE)

    def busy(content):
        content["environment"]["machine"]["waits"] = {"rounds": 1.0, "time": 0.9}

    changed(pytester.path / "reports" / "net.json", busy)
    unclear = suite(AGAINST.format(2000), "--layerbench")
    unclear.assert_outcomes(passed=1)
    unclear.stdout.fnmatch_lines(
        [
            "UNCLEAR  *test_speed.py::test_speed",
            "UNCLEAR test_speed.py::test_speed",
            "    Of the baseline: *too busy*",
        ]
    )
    unclear.stdout.no_fnmatch_line("*The change lies between*")
    strict = suite(AGAINST.format(1), "--layerbench", "--layerbench-strict")
    strict.assert_outcomes(failed=1)
    strict.stdout.fnmatch_lines("E *Failed: --layerbench-strict: Of the baseline: *too busy*")


def test_a_record_of_another_machine_is_no_silent_pass(suite, pytester) -> None:
    suite(AGAINST.format(1), *UPDATE)
    path = pytester.path / "reports" / "net.json"
    changed(path, lambda content: content["environment"]["machine"].update(cpu="Abacus", cores=3))
    skipped = suite(AGAINST.format(2000), "--layerbench")
    skipped.assert_outcomes(skipped=1)
    skipped.stdout.fnmatch_lines(
        [
            "NOT COMPARED  *test_speed.py::test_speed",
            "    times of another machine are not compared: reports/net.json is of *Abacus*",
            "SKIPPED *test_speed.py:*",
        ]
    )
    strict = suite(AGAINST.format(2000), "--layerbench", "--layerbench-strict")
    strict.assert_outcomes(failed=1)
    strict.stdout.fnmatch_lines("E *Failed: --layerbench-strict: times of another machine are not*")


def test_a_record_made_on_a_busy_machine_is_told_of(suite, monkeypatch) -> None:
    class Waits(NeverWaits):
        def end(self) -> int:
            return 10**9

    monkeypatch.setattr(rounds, "wait_meter", lambda _clock: Waits())
    lines = suite(AGAINST.format(1), *UPDATE).stdout.lines
    said = lines[lines.index("UPDATED reports/net.json") + 1 :]
    assert "    Comparisons with this record will be UNCLEAR: update it on a quiet machine" in said


def test_a_record_that_cannot_be_written(suite, pytester) -> None:
    (pytester.path / "reports").write_text("a file where a folder should be")
    failed = suite(AGAINST.format(1), *UPDATE)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(
        "*Failed: cannot write the record: Not a directory; name another place with against="
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"name": "mine"}', "reports/net.json is no layerbench record, and is not written over*"),
        ('{"record": "memory"}', "reports/net.json holds a memory record, and is not written *"),
        ('{"record": "pro', ""),
    ],
)
def test_only_records_of_times_are_written_over(suite, pytester, content, said) -> None:
    path = pytester.path / "reports" / "net.json"
    path.parent.mkdir()
    path.write_text(content)
    advice = ": name another file with against=" if said else ". pytest *test_speed writes it anew."
    unread = suite(AGAINST.format(1), "--layerbench")
    unread.stdout.fnmatch_lines(f"E *Failed: */net.json *{advice}")
    done = suite(AGAINST.format(1), *UPDATE)
    if said:
        done.assert_outcomes(failed=1)
        done.stdout.fnmatch_lines(f"E *Failed: {said}")
        assert path.read_text() == content
    else:
        done.assert_outcomes(passed=1)
        assert layerbench.read(path).record == "profile"


def test_records_that_no_test_names(suite, pytester) -> None:
    body = f"""
@pytest.mark.layerbench({QUICK})
class TestNets:
    @pytest.mark.parametrize("width", ["a::/b.5", "c"])
    def test_speed(self, layerbench, width):
        layerbench.check(Net, X)
        if width == "c":
            layerbench.check(lambda: Net(2), X)
"""
    pytester.makeini("[pytest]\nlayerbench_folder = ~/kept\n")
    suite(body, *UPDATE).assert_outcomes(passed=2)
    (machine,) = (pytester.path / "kept").iterdir()
    records = sorted(path.name for path in machine.rglob("*.json"))
    assert len(records) == 3
    assert records[-2:] == ["test_speed[c]-2.json", "test_speed[c].json"]
    assert all(name.count(".") == 1 for name in records)
    assert {path.parent for path in machine.rglob("*.json")} == {machine / "test_speed/TestNets"}
    suite(body, "--layerbench").assert_outcomes(passed=2)

    machine.rename(machine.with_name("abacus-3c"))
    elsewhere = suite(body, "--layerbench")
    elsewhere.assert_outcomes(skipped=2)
    elsewhere.stdout.fnmatch_lines(
        [
            "*its records are of abacus-3c, this is *",
            "* --layerbench-update 'test_speed.py::TestNets::test_speed[[]c[]]' measures here*",
        ]
    )
    (machine.with_name("abacus-3c")).rename(pytester.path / "away")
    suite(body, "--layerbench").assert_outcomes(failed=2)


def test_a_test_outside_the_root_folder(suite, pytester) -> None:
    """As those of an installed package, by --pyargs: the node ID may be of the test alone."""
    inner = pytester.mkdir("inner")
    (inner / "pytest.ini").write_text("[pytest]\n")
    body = f"\ndef test_speed(layerbench):\n    layerbench.check(Net, X, {QUICK})\n"
    file = "test_speed.py"
    for said in (["--rootdir", "inner"], ["-c", "inner/pytest.ini", "--rootdir", "."]):
        missing = suite(body, *said, "--layerbench", file)
        advised = ["--layerbench-update", *said, f"{file}::test_speed"]
        missing.stdout.fnmatch_lines(f"*/test_speed/test_speed.json: pytest {' '.join(advised)} *")
        suite(body, *advised).assert_outcomes(passed=1)
    records = pytester.path.rglob("test_speed/test_speed.json")
    assert {path.parents[3] for path in records} == {pytester.path, inner}


def test_measured_as_the_record_was(suite, pytester) -> None:
    suite(AGAINST.format(1), *UPDATE)
    body = """
def test_speed(layerbench):
    plan = layerbench.check(Net(), X, against="reports/net.json", threshold="90%").record.plan
    assert (plan.iterations, plan.warmup, plan.threads) == (10, 1, 1)

@pytest.mark.layerbench(iterations=11, threshold="90%")
def test_marked(layerbench):
    plan = layerbench.check(Net(), X, against="reports/net.json", warmup=2).record.plan
    assert (plan.iterations, plan.warmup, plan.threads) == (11, 2, 1)
"""
    suite(body, "--layerbench").assert_outcomes(passed=2)


def test_a_model_by_name_runs_as_in_the_record(suite, pytester) -> None:
    body = f"""
def test_speed(layerbench):
    record = layerbench.check(
        "nets_of_the_suite:Net", "1x3x16x16", against="net.json", {QUICK}
    ).record
    print("ran in", record.workload.dtype)
"""
    suite(body, "--layerbench-update", "-s").stdout.fnmatch_lines("*ran in float32*")
    path = pytester.path / "net.json"
    changed(path, lambda content: content["workload"].update(dtype="float64"))
    suite(body, "--layerbench", "-s").stdout.fnmatch_lines("*ran in float64*")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_update_measures_as_the_record_that_it_replaces(suite, pytester, elsewhere) -> None:
    body = """
def test_speed(layerbench):
    layerbench.check("nets_of_the_suite:Net", "1x3x16x16", against="net.json"QUICK)
"""
    suite(body.replace("QUICK", f", {QUICK}"), "--layerbench-update").assert_outcomes(passed=1)
    path = pytester.path / "net.json"
    cpu = "Abacus" if elsewhere else layerbench.read(path).environment.machine.cpu

    def otherwise(content):
        content["workload"].update(dtype="float64")
        content["plan"].update(iterations=12, warmup=3)
        content["environment"]["machine"].update(cpu=cpu)

    changed(path, otherwise)
    how = ", iterations=13" if not elsewhere else f", {QUICK}"
    suite(body.replace("QUICK", how), "--layerbench-update").assert_outcomes(passed=1)
    record = layerbench.read(path)
    measured = record.workload.dtype, record.plan.iterations, record.plan.warmup
    assert measured == (("float32", 10, 1) if elsewhere else ("float64", 13, 3))


def test_another_input_or_model_is_an_error_before_anything_is_measured(suite) -> None:
    suite(AGAINST.format(1), *UPDATE)
    body = """
def test_input(layerbench):
    layerbench.check(Net(), torch.rand(2, 3, 16, 16), against="reports/net.json")

def test_model(layerbench):
    layerbench.check(torch.nn.Conv2d(3, 4, 3), X, against="reports/net.json")

@pytest.mark.parametrize("named", ["models.py", 5, b"net.json", "a\\0.json", ""])
def test_no_record(layerbench, named):
    layerbench.check(Net(), X, against=named)

def test_long(layerbench):
    layerbench.check(Net(), X, against="net" * 100 + ".json")

def test_two(layerbench):
    layerbench.check(Net(), X, against="reports/net.json", reference=Net())

def test_itself(layerbench):
    net = Net()
    layerbench.check(net, X, reference=net)

def test_makes_none(layerbench):
    layerbench.check(dict, X, reference=Net())
"""
    wrong = suite(body, "--layerbench")
    wrong.assert_outcomes(failed=11)
    wrong.stdout.fnmatch_lines(
        [
            "*measured Net on 1x3x16x16 and now Net on 2x3x16x16*. If this is meant: pytest *",
            "*measured Net on 1x3x16x16 and now Conv2d on 1x3x16x16*same_model=True). If this *",
            "*against names a record, a .json file, not 'models.py'",
            "*against names a record, a .json file, not 5",
            "*against names a record, a .json file, not b'net.json'",
            "*against names a record, a .json file, not 'a?x00.json'",
            "*against names a record, a .json file, not ''",
            "*there is no record netnet*",
            "*against or reference, not both",
            "*the reference is the model itself*",
            "*dict() makes no model: a dict is no torch.nn.Module*",
        ]
    )


# --- beside another model ---------------------------------------------------------------------


def test_beside_a_reference(suite) -> None:
    body = f"""
@pytest.mark.layerbench({QUICK})
def test_slower(layerbench):
    net = Net(2000)
    before = {{name: tensor.clone() for name, tensor in net.state_dict().items()}}
    net.train()
    try:
        layerbench.check(net, X, reference=Net)
    finally:
        assert net.training and not net._forward_hooks
        assert all(torch.equal(before[name], kept) for name, kept in net.state_dict().items())

@pytest.mark.layerbench({QUICK})
def test_faster(layerbench):
    outcome = layerbench.check(Net, X, reference=Net(2000), max_parameters=1_000)
    assert outcome.comparison.method.startswith("live")
    assert outcome.values["parameters"] == {PARAMETERS}
"""
    done = suite(body, "--layerbench")
    done.assert_outcomes(failed=1, passed=1)
    done.stdout.fnmatch_lines(
        [
            "*Failed: Net is SLOWER than reference Net*",
            "E *1 (Work) *SLOWER*",
            "SLOWER *reference Net *test_speed.py::test_slower",
            "FASTER *test_speed.py::test_faster",
        ]
    )


def test_it_holds_the_lock_of_the_device(suite, pytester, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LAYERBENCH_LOCKS", str(tmp_path))
    body = f"""
from layerbench.environment.device_lock import Timeout, lock_of, lock_path

class Asks(Net):
    def forward(self, x):
        with pytest.raises(Timeout), lock_of(lock_path("cpu"), timeout=0):
            pass
        with open("held.txt", "a") as file:  # any variable is put back
            file.write("held ")
        return super().forward(x)

@pytest.mark.parametrize("beside", [dict(reference=Net), dict(against="net.json")])
def test_speed(layerbench, beside):
    try:
        layerbench.check(Asks(), X, {QUICK}, **beside)
    except pytest.fail.Exception as slower:
        assert "SLOWER" in str(slower)
"""
    suite(body, *UPDATE).assert_outcomes(passed=2)
    assert lock_path("cpu").parent == tmp_path
    assert (pytester.path / "held.txt").read_text().count("held") > 2 * 20


def test_what_watches_python_is_suspended_meanwhile(suite) -> None:
    """Coverage, for instance, whose cost would be in every time."""
    body = f"""
import sys

class Looks(Net):
    def forward(self, x):
        with open("watched.txt", "a") as file:
            file.write(f"{{sys.gettrace() is watch}} {{sys.getprofile() is watch}}\\n")
        return super().forward(x)

def watch(*event):
    pass

def test_speed(layerbench):
    sys.settrace(watch)
    sys.setprofile(watch)
    try:
        layerbench.check(Looks(), X, against="net.json", {QUICK})
        assert sys.gettrace() is watch and sys.getprofile() is watch
    finally:
        sys.setprofile(None)
        sys.settrace(None)
    assert {{*open("watched.txt")}} == {{"False False\\n"}}
"""
    suite(body, *UPDATE).assert_outcomes(passed=1)
