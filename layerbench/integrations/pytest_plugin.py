"""layerbench in pytest: options, the marker, and the fixture ``layerbench``. See docs/pytest.md.

pytest loads this module in every suite of an environment that layerbench is installed in: it
imports nothing else until a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    import pluggy

    from layerbench.integrations.pytest_checks import LayerbenchFixture
    from layerbench.integrations.pytest_summary import Told

NUMBERS = ("iterations", "warmup", "threads", "processes")
"""What a marker or an ini file may say of how time is measured, besides the threshold."""
FOLDER = "layerbench-records"
SKIPPED = "measures time: pytest --layerbench"
# Of an item: what its checks have come to, and no report holds yet.
_PENDING: pytest.StashKey[list[Told]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line, and of the ini file."""
    group = parser.getgroup("layerbench", "time, size and memory of models (layerbench)")
    group.addoption(
        "--layerbench",
        action="store_true",
        default=False,
        help="run the tests that measure time, which are skipped without it",
    )
    group.addoption(
        "--layerbench-update",
        action="store_true",
        default=False,
        help="measure, and write the records that tests compare with; implies --layerbench",
    )
    group.addoption(
        "--layerbench-strict",
        action="store_true",
        default=False,
        help="fail where nothing could be told: the machine was too busy, or the record is of "
        "another one",
    )
    parser.addini(
        "layerbench_folder",
        f"folder of the records that no test names, from the root folder ({FOLDER})",
        default=FOLDER,
    )
    parser.addini("layerbench_threshold", "changes of time up to this are none (5%)", default="")
    meanings = {
        "iterations": "measured rounds of a test of time",
        "warmup": "rounds of a test of time that are not kept",
        "threads": "CPU threads of a test of time",
        "processes": "fresh processes that a test of time measures in",
    }
    for name in NUMBERS:
        parser.addini(f"layerbench_{name}", meanings[name], default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; with the option, read the ini file's defaults, so that errors are early.

    Raises:
        pytest.UsageError: one makes no sense.
    """
    config.addinivalue_line(
        "markers",
        "layerbench(threshold, iterations, warmup, threads, processes): a test of time, skipped "
        "without --layerbench; the arguments are defaults for its checks",
    )
    config.pluginmanager.register(_Gathered(), "layerbench-gathered")
    if is_measuring(config):
        from layerbench.errors import LayerbenchError
        from layerbench.integrations.pytest_settings import of_ini

        try:
            of_ini(config)
        except LayerbenchError as error:
            raise pytest.UsageError(str(error)) from None


def is_measuring(config: pytest.Config) -> bool:
    """Whether times are measured."""
    return bool(config.getoption("layerbench") or config.getoption("layerbench_update"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the marked tests, before any of their fixtures, where no time is measured."""
    if is_measuring(config):
        return
    for item in items:
        if item.get_closest_marker("layerbench") is not None:
            item.add_marker(pytest.mark.skip(reason=SKIPPED))


@pytest.fixture(name="layerbench")
def _layerbench(request: pytest.FixtureRequest) -> LayerbenchFixture:
    """Check a model's time, size or memory: ``layerbench.check(model, inputs, ...)``."""
    from layerbench.integrations.pytest_checks import LayerbenchFixture

    told = request.node.stash.setdefault(_PENDING, [])
    return LayerbenchFixture(request.node, told)


# --- from the tests to the summary ----------------------------------------------------------


# The older kind of wrapper: pytest 7 knows no other.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pluggy.Result[Any], None]:
    """Put what the checks came to on the report: it travels with it from pytest-xdist's workers."""
    pending = item.stash.get(_PENDING, None)
    if not pending:
        yield
        return
    item.user_properties.extend(("layerbench", told["line"]) for told in pending)
    outcome = yield
    # pytest-xdist sends all attributes that are plain values.
    vars(outcome.get_result())["layerbench"] = [*pending]
    pending.clear()


class _Gathered:
    """What the checks of all tests came to, here and in pytest-xdist's workers."""

    def __init__(self) -> None:
        self._told: list[Told] = []
        self._workers: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._told += getattr(report, "layerbench", ())
        self._workers |= {getattr(report, "worker_id", "")} - {""}

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._told:
            return
        from layerbench.integrations.pytest_summary import summary

        config = terminalreporter.config
        # Who asked for nothing of layerbench reads of the limits that hold only with -v.
        listed = config.getoption("verbose") >= (0 if is_measuring(config) else 1)
        terminalreporter.write_sep("=", "layerbench")
        for line in summary(self._told, workers=len(self._workers), listed=listed):
            terminalreporter.write_line(line)
