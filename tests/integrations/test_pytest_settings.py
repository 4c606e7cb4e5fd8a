"""The pytest plugin: limits, what markers and ini files say, other plugins, and its page."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from layerbench.integrations.pytest_summary import complaint
from layerbench.records.comparison import Difference
from tests.support.paths import ROOT
from tests.support.pytest_suites import AGAINST, FLOPS, PARAMETERS, PLUGIN, QUICK, TELLS, UPDATE
from tests.support.sample_comparisons import one_slower

pytest_plugins = ("pytester",)


# --- limits -----------------------------------------------------------------------------------

LIMITS = """
def test_within(layerbench):
    values = layerbench.check(
        Net(), X, max_parameters={parameters}, max_flops=1e6, max_peak_bytes="1,048,576"
    ).values
    assert values["FLOPs"] == {flops}
    layerbench.check(Net, X, max_peak_bytes=values["peak bytes"])

def test_beyond(layerbench):
    layerbench.check(Net(), X, max_parameters={parameters} - 1, max_flops={flops} - 0.5)

def test_peak(layerbench):
    layerbench.check(Net(), X, max_peak_bytes=3 * 16 * 16 * 4)
"""


@pytest.mark.parametrize("arguments", [("-v",), ("--layerbench",)])
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
        [
            "EXCEEDED *test_speed.py::test_beyond",
            "1 limit holds (-v lists it)",
            "SKIPPED *measures time: pytest --layerbench",
        ]
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
        ("", "max_flops='many'", "max_flops of layerbench.check: cannot read 'many' *"),
        ("", "max_flops=float('inf')", "max_flops of layerbench.check must be *number, got inf"),
        ("", "max_peak_bytes=-1", "max_peak_bytes of layerbench.check must be at least 0, got -1"),
        ("", "max_parameters='2 GFLOPs'", "max_parameters of *: cannot read '2 GFLOPs' *"),
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


def test_without_torch_it_is_said_what_to_install(loaded, alone, pytester, monkeypatch) -> None:
    pytester.makepyfile("def test_size(layerbench): layerbench.check('resnet18', max_flops=1)")
    monkeypatch.delitem(sys.modules, "layerbench.integrations.pytest_measuring")
    monkeypatch.setitem(sys.modules, "torch", None)
    done = pytester.runpytest_inprocess("-p", PLUGIN)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines("E *Failed: torch is not installed: pip install torch")


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
    done.stdout.fnmatch_lines(
        [
            '*raise ValueError("of the model")',
            "*layerbench.check(Breaks(), X, reference=Net())",
            "E *ModelRunError: Breaks: the forward failed*of the model*",
            "WITHIN *test_speed.py::test_speed",
        ]
    )
    # Its own calls, and those between them, are of no use.
    done.stdout.no_fnmatch_line("*layerbench/*.py:*")
    done.stdout.no_fnmatch_line("*contextlib.py:*")


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
@pytest.mark.parametrize("path", ["net.json", "new/../net.json"])
def test_speed(layerbench, path):
    layerbench.check(Net(), X, against=path, {QUICK})
"""
    done = suite(body, "--layerbench-update")
    done.stdout.fnmatch_lines("UPDATED net.json, by 2 checks: the last one's stays")


def test_workers_of_xdist_send_what_they_have_to_tell(alone, pytester, monkeypatch) -> None:
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


def test_a_narrow_terminal_has_the_whole_test_and_not_all_columns(
    alone, pytester, monkeypatch
) -> None:
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


def test_a_failing_check_says_that_the_two_did_not_run_alike() -> None:
    unlike = Difference(where="workload", what="dtype", baseline="bfloat16", contender="float32")
    other = unlike.model_copy(update={"what": "seed"})  # which changes no time
    said = complaint(one_slower().model_copy(update={"differences": (other, unlike)}), "a.json")
    assert "\nWhat ran differs: dtype bfloat16 → float32\n" in said


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_failing_check_fits_the_terminal_and_cuts_no_figure(monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table = complaint(one_slower(), "a.json").splitlines()[1:5]
    assert max(map(len, table)) <= width - len("E   ")
    assert table[-1].split()[-4:] == ["+30.0", "%", "[+28.8,", "+31.2]"]


def test_without_a_terminal_reporter(alone, pytester, monkeypatch) -> None:
    pytester.makepyfile(TELLS)
    result = pytester.inline_run("-p", PLUGIN, "-p", "no:terminal")
    result.assertoutcome(passed=4)


def test_asked_for_twice_it_is_there_once(alone, pytester) -> None:
    pytester.makeconftest(f"pytest_plugins = ['{PLUGIN}']")
    pytester.makepyfile(TELLS)
    entry = "layerbench.integrations.pytest_entry_point"
    done = pytester.runpytest_inprocess("-p", PLUGIN, "-p", entry)
    done.assert_outcomes(passed=4)
    assert done.stdout.str().count("SAME ") == 4
    done.stdout.fnmatch_lines(["*= layerbench =*", "Verdict *"], consecutive=True)


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


def test_the_page_from_nothing_to_a_failing_test(loaded, alone, undisturbed, pytester) -> None:
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
