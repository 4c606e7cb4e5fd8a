"""The pytest plugin, in suites of its own: what fails, what is skipped, what the summary says."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import layerbench
from layerbench.environment.device_lock import lock_path
from layerbench.profilers import rounds
from tests.support.paths import ROOT
from tests.support.undisturbed import NeverWaits

pytest_plugins = ("pytester",)

PLUGIN = "layerbench.integrations.pytest_plugin"
# A layer that works so often; its neighbours stay as they are.
MODELS = """
import torch
from torch import nn

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))

class Work(nn.Module):
    def __init__(self, repeats):
        super().__init__()
        self.repeats = repeats

    def forward(self, x):
        for _ in range(self.repeats):
            x = torch.sin(x)
        return x

class Net(nn.Sequential):
    def __init__(self, repeats=1):
        super().__init__(nn.Conv2d(3, 4, 3), Work(repeats), nn.Conv2d(4, 4, 3))
"""
QUICK = "iterations=10, warmup=1, threads=1, threshold='90%'"
# 112 + 148 parameters; two multiply-adds of 4 * 14 * 14 * 27 and 4 * 12 * 12 * 36 are FLOPs.
PARAMETERS, FLOPS = 260, 2 * (4 * 14 * 14 * 27 + 4 * 12 * 12 * 36)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Load what checks load: pytester forgets modules that its suites were the first to import."""
    model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.rand(1, 2)
    layerbench.compare_live(model, nn.Linear(2, 2), x, iterations=10, warmup=0)
    record = layerbench.profile(model, x, iterations=1, warmup=0, ceilings=False)
    layerbench.compare(record, record).to_markdown()
    layerbench.structure(model, x)
    layerbench.memory(model, x)
    for name in ("pytest_checks", "pytest_measuring"):
        importlib.import_module(f"layerbench.integrations.{name}")


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each suite would load those of this environment anew."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """``suite(body, *arguments)`` runs tests that import the models, on an undisturbed machine."""
    monkeypatch.setattr(rounds, "wait_meter", lambda _clock: NeverWaits())
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makepyfile(models=MODELS)

    def run(body: str, *arguments: str, **options: bool) -> pytest.RunResult:
        head = "import pytest, torch\nfrom models import Net, Work, X\n"
        pytester.makepyfile(test_speed=f"{head}{body}")
        return pytester.runpytest_inprocess(
            "-p", PLUGIN, "--strict-markers", "-rs", *arguments, **options
        )

    return run


AGAINST = f"""
def test_speed(layerbench):
    outcome = layerbench.check(Net({{}}), X, against="reports/net.json", {QUICK})
    print("outcome", outcome.verdict, outcome.record is not None)
"""
UPDATE = ("--layerbench", "--layerbench-update")


# --- beside a record --------------------------------------------------------------------------


def test_from_no_record_to_a_failing_check(suite, pytester) -> None:
    missing = suite(AGAINST.format(1), "--layerbench")
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(
        "*there is no record reports/net.json: pytest --layerbench --layerbench-update makes it"
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
            "E *If this is meant: pytest --layerbench --layerbench-update writes a new record.",
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

    monkeypatch.setattr(sys.modules[__name__], "NeverWaits", Waits)
    suite(AGAINST.format(1), *UPDATE).stdout.fnmatch_lines(
        ["    Comparisons with this record will be UNCLEAR: update it on a quiet machine"]
    )


def test_a_record_that_cannot_be_written(suite, pytester) -> None:
    (pytester.path / "reports").write_text("a file where a folder should be")
    failed = suite(AGAINST.format(1), *UPDATE)
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(
        "*Failed: cannot write the record: Not a directory; name another place with against="
    )


def test_records_that_no_test_names(suite, pytester) -> None:
    body = f"""
@pytest.mark.layerbench({QUICK})
class TestNets:
    @pytest.mark.parametrize("width", ["a/b.5", "c"])
    def test_speed(self, layerbench, width):
        layerbench.check(Net, X)
        if width == "c":
            layerbench.check(lambda: Net(2), X)
"""
    pytester.makeini("[pytest]\nlayerbench_folder = kept\n")
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
    elsewhere.stdout.fnmatch_lines("*its records are of abacus-3c, this is *")
    (machine.with_name("abacus-3c")).rename(pytester.path / "away")
    suite(body, "--layerbench").assert_outcomes(failed=2)


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


def test_another_input_or_model_is_an_error_before_anything_is_measured(suite) -> None:
    suite(AGAINST.format(1), *UPDATE)
    body = """
def test_input(layerbench):
    layerbench.check(Net(), torch.rand(2, 3, 16, 16), against="reports/net.json")

def test_model(layerbench):
    layerbench.check(torch.nn.Conv2d(3, 4, 3), X, against="reports/net.json")

def test_no_record(layerbench):
    layerbench.check(Net(), X, against="models.py")

def test_two(layerbench):
    layerbench.check(Net(), X, against="reports/net.json", reference=Net())

def test_itself(layerbench):
    net = Net()
    layerbench.check(net, X, reference=net)

def test_makes_none(layerbench):
    layerbench.check(dict, X, reference=Net())
"""
    wrong = suite(body, "--layerbench")
    wrong.assert_outcomes(failed=6)
    wrong.stdout.fnmatch_lines(
        [
            "*measured Net on 1x3x16x16 and now Net on 2x3x16x16*",
            "*measured Net on 1x3x16x16 and now Conv2d on 1x3x16x16*same_model=True)",
            "*against names a record, a .json file, not models.py",
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
    assert layerbench.check(Net, X, reference=Net(2000)).comparison.method.startswith("live")
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


# --- limits -----------------------------------------------------------------------------------

LIMITS = """
def test_within(layerbench):
    values = layerbench.check(
        Net(), X, max_parameters={parameters}, max_flops="1 MFLOPs", max_peak_bytes="1 MiB"
    ).values
    assert values["FLOPs"] == {flops}
    layerbench.check(Net, X, max_peak_bytes=values["peak bytes"])

def test_beyond(layerbench):
    layerbench.check(Net(), X, max_parameters={parameters} - 1, max_flops={flops} - 1)

def test_peak(layerbench):
    layerbench.check(Net(), X, max_peak_bytes=3 * 16 * 16 * 4)
"""


@pytest.mark.parametrize("arguments", [(), ("--layerbench",)])
def test_limits_hold_on_any_machine_and_need_no_option(suite, arguments) -> None:
    done = suite(LIMITS.format(parameters=PARAMETERS, flops=FLOPS), *arguments)
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(
        [
            f"*Net on 1x3x16x16 is beyond its limit: parameters {PARAMETERS}, at most "
            f"{PARAMETERS - 1}; FLOPs {FLOPS:,}, at most {FLOPS - 1:,}",
            "*is beyond its limit: peak bytes *, at most 3,072",
            f"WITHIN *FLOPs *{FLOPS:,} *1,000,000 *test_speed.py::test_within",
            "EXCEEDED *parameters *test_speed.py::test_beyond",
        ]
    )


def test_limits_come_first_and_the_time_is_skipped_without_the_option(suite) -> None:
    body = """
def test_both(layerbench):
    layerbench.check(Net(), X, reference=Net(), max_parameters=1_000)

def test_beyond(layerbench):
    layerbench.check(Net(), X, reference=Net(), max_parameters=1)
"""
    done = suite(body)
    done.assert_outcomes(skipped=1, failed=1)
    done.stdout.fnmatch_lines(
        ["WITHIN *test_speed.py::test_both", "SKIPPED *measures time: pytest --layerbench"]
    )


# --- without the option, and what was said wrongly --------------------------------------------


def test_without_the_option_tests_of_time_are_skipped(suite) -> None:
    body = """
@pytest.fixture
def dear():
    raise AssertionError("a marked test's fixtures are not asked for")

@pytest.mark.layerbench
def test_marked(dear):
    raise AssertionError

def test_unmarked(layerbench):
    layerbench.check(lambda: 1 / 0, X)

def test_other():
    pass
"""
    done = suite(body)
    done.assert_outcomes(skipped=2, passed=1)
    done.stdout.fnmatch_lines("SKIPPED *measures time: pytest --layerbench")
    done.stdout.no_fnmatch_line("*= layerbench =*")
    suite(body, "-m", "not layerbench").assert_outcomes(skipped=1, passed=1, deselected=1)


@pytest.mark.parametrize(
    ("marker", "call", "said"),
    [
        ("treshold='5%'", "", "takes threshold, *by name, not treshold"),
        ("'5%'", "", "by name, not '5%'"),
        ("threshold='much'", "", "threshold of @pytest.mark.layerbench: cannot read 'much'*"),
        ("threshold=5", "", "threshold of @pytest.mark.layerbench must be above 0 %*got 5"),
        ("iterations=0", "", "iterations of @pytest.mark.layerbench must be at least 1, got 0"),
        ("", "threads='two'", "threads of layerbench.check must be a whole number, got 'two'"),
        ("", "reference=Net, iterations=2", "iterations must be at least 10, got 2"),
        ("", "max_flops='many'", "cannot read 'many' as a number*"),
        ("", "max_peak_bytes=-1", "the limit of peak bytes must be at least 0, got -1"),
        ("", "processes=0", "processes of layerbench.check must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(suite, marker, call, said) -> None:
    body = f"""
@pytest.mark.layerbench({marker})
def test_speed(layerbench):
    layerbench.check(Net(), X, {call})
"""
    done = suite(body, *UPDATE)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(f"E *Failed: *{said}")
    done.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize("line", ["threshold = 5", "iterations = few"])
def test_a_wrong_ini_file_ends_the_run_at_once(suite, pytester, line) -> None:
    pytester.makeini(f"[pytest]\nlayerbench_{line}\n")
    done = suite(AGAINST.format(1), "--layerbench")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(f"ERROR: *layerbench_{line.split()[0]}*")
    suite("def test_other():\n    pass").assert_outcomes(passed=1)


def test_the_nearest_marker_counts_and_the_ini_file_last(suite, pytester) -> None:
    pytester.makeini("[pytest]\nlayerbench_iterations = 12\nlayerbench_warmup = 1\n")
    body = """
pytestmark = pytest.mark.layerbench(threads=1, warmup=2, threshold="90%")

@pytest.mark.layerbench(warmup=3)
def test_speed(layerbench):
    plan = layerbench.check(Net(), X, warmup=None).record.plan
    assert (plan.iterations, plan.warmup, plan.threads) == (12, 3, 1)
"""
    suite(body, *UPDATE).assert_outcomes(passed=1)


# --- in other company -------------------------------------------------------------------------


def test_an_error_of_the_model_keeps_its_traceback_and_earlier_checks_are_told(suite) -> None:
    body = """
class Breaks(Net):
    def forward(self, x):
        raise ValueError("of the model")

def test_speed(layerbench):
    layerbench.check(Net(), X, max_parameters=1_000)
    layerbench.check(Breaks(), X, reference=Net())
"""
    done = suite(body, "--layerbench")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*raise ValueError*", "WITHIN *test_speed.py::test_speed"])


def test_an_interrupt_ends_the_run_and_what_was_told_before_is_shown(suite, pytester) -> None:
    body = """
def test_first(layerbench):
    layerbench.check(Net(), X, max_parameters=1_000)

class Interrupts(Net):
    def forward(self, x):
        raise KeyboardInterrupt

def test_second(layerbench):
    layerbench.check(Interrupts(), X, against="net.json")
"""
    done = suite(body, *UPDATE, no_reraise_ctrlc=True)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines("WITHIN *test_speed.py::test_first")
    assert not (pytester.path / "net.json").exists()


def test_junit_has_a_property_for_each_check(suite, pytester) -> None:
    suite(LIMITS.format(parameters=PARAMETERS, flops=FLOPS), "--junitxml=out.xml")
    found = ElementTree.parse(pytester.path / "out.xml").iter("property")
    values = [each.attrib["value"] for each in found if each.attrib["name"] == "layerbench"]
    assert len(values) == 4
    assert values[0].startswith("Net on 1x3x16x16: WITHIN, parameters 260, at most 260, FLOPs ")


def test_two_checks_that_write_one_record_are_told_of(suite) -> None:
    body = f"""
@pytest.mark.parametrize("repeats", [1, 2])
def test_speed(layerbench, repeats):
    layerbench.check(Net(repeats), X, against="net.json", {QUICK})
"""
    done = suite(body, "--layerbench-update")
    done.stdout.fnmatch_lines("UPDATED net.json, by 2 checks: the last one's stays")


# Tells without a model, so that no process has to load torch.
TELLS = """
FIGURES = {"Baseline ms": "1", "Contender ms": "2", "Change": "+1 %", "95 % interval": "[0, 2]"}

import pytest

@pytest.mark.parametrize("number", range(4))
def test_speed(layerbench, number):
    layerbench._tell(f"Net{number}", "SAME", beside="a.json", figures=FIGURES, notes=["once"])
"""


def test_workers_of_xdist_send_what_they_have_to_tell(pytester, monkeypatch) -> None:
    pytester.makepyfile(TELLS)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ("-p", PLUGIN, "-p", "xdist.plugin", "--layerbench", "-n2", "--dist=each")
    done = pytester.runpytest_subprocess(*arguments)
    done.assert_outcomes(passed=8)
    text = done.stdout.str()
    assert [len(re.findall(rf"SAME .*::test_speed\[{number}\]", text)) for number in range(4)] == [
        2
    ] * 4
    assert text.count("once") == 1
    done.stdout.fnmatch_lines("2 processes ran tests. One of them measured at a time,*")


def test_a_narrow_terminal_has_the_whole_test_and_not_all_columns(pytester, monkeypatch) -> None:
    pytester.makepyfile(test_speed=TELLS)
    headers = {}
    for width in ("120", "95", "60"):
        monkeypatch.setenv("COLUMNS", width)
        lines = pytester.runpytest_inprocess("-p", PLUGIN).stdout.lines
        headers[width] = next(line.split() for line in lines if line.startswith("Verdict"))
        assert sum(line.endswith("test_speed.py::test_speed[3]") for line in lines) == 1
    assert "Compared" in headers["120"]
    assert "Compared" not in headers["95"]
    assert "Model" in headers["95"]
    assert "Model" not in headers["60"]


def test_without_a_terminal_reporter(pytester, monkeypatch) -> None:
    pytester.makepyfile(TELLS)
    result = pytester.inline_run("-p", PLUGIN, "-p", "no:terminal")
    result.assertoutcome(passed=4)


def test_asked_for_twice_it_is_there_once(pytester) -> None:
    pytester.makeconftest(f"pytest_plugins = ['{PLUGIN}']")
    pytester.makepyfile(TELLS)
    entry = "layerbench.integrations.pytest_entry_point"
    done = pytester.runpytest_inprocess("-p", PLUGIN, "-p", entry)
    done.assert_outcomes(passed=4)
    assert done.stdout.str().count("SAME ") == 4


def test_a_suite_that_uses_none_of_it_loads_none_of_it() -> None:
    code = (
        "import sys, pytest; before = {*sys.modules}; import "
        f"{PLUGIN}, layerbench.integrations.pytest_entry_point\n"
        "print(*sorted({*sys.modules} - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if "." not in name}
    assert loaded <= {"layerbench", "pkgutil", "importlib", "zipimport"}
    assert not loaded & {"torch", "pydantic"}
    assert {name for name in done.stdout.split() if name.startswith("layerbench.")} == {
        "layerbench._version",
        "layerbench.integrations",
        "layerbench.integrations.pytest_entry_point",
        "layerbench.integrations.pytest_plugin",
        "layerbench.registry",
    }


def test_the_page_from_nothing_to_a_failing_test(pytester, monkeypatch) -> None:
    monkeypatch.setattr(rounds, "wait_meter", lambda _clock: NeverWaits())
    page = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
    sample = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[0]
    few = ("-p", PLUGIN, "-o", "layerbench_iterations=10", "-o", "layerbench_warmup=1")

    def run(*arguments: str, channels: int = 8) -> pytest.RunResult:
        pytester.makepyfile(test_speed=sample.replace("int = 8", f"int = {channels}"))
        return pytester.runpytest_inprocess(*few, *arguments)

    run().assert_outcomes(passed=1, skipped=1)
    run("--layerbench").assert_outcomes(passed=1, failed=1)
    run(*UPDATE).assert_outcomes(passed=2)
    run("--layerbench", "-o", "layerbench_threshold=90%").assert_outcomes(passed=2)
    failing = run("--layerbench", channels=1024)
    failing.assert_outcomes(failed=2)
    failing.stdout.fnmatch_lines(
        ["*is beyond its limit: parameters *", "*Sequential is SLOWER than reports/net.json*"]
    )
