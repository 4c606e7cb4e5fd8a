"""Suites of their own for the tests of the pytest plugin."""

from __future__ import annotations

import importlib

import pytest

from tests.support.pytest_suites import MODELS, PLUGIN


@pytest.fixture(scope="session")
def loaded() -> None:
    """Load what checks load: pytester forgets modules that its suites were the first to import."""
    import torch
    from torch import nn

    import layerbench

    model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.rand(1, 2)
    layerbench.compare_live(model, nn.Linear(2, 2), x, iterations=10, warmup=0)
    record = layerbench.profile(model, x, iterations=1, warmup=0, ceilings=False)
    layerbench.compare(record, record).to_markdown()
    layerbench.structure(model, x)
    layerbench.memory(model, x)
    for name in ("pytest_checks", "pytest_measuring"):
        importlib.import_module(f"layerbench.integrations.{name}")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other plugins: each suite would load those of this environment anew."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No forward waits for a core."""
    from layerbench.profilers import rounds
    from tests.support.undisturbed import NeverWaits

    monkeypatch.setattr(rounds, "wait_meter", lambda _clock: NeverWaits())


@pytest.fixture
def suite(loaded, alone, undisturbed, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """``suite(body, *arguments)`` runs tests that import the models, on an undisturbed machine."""
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makepyfile(nets_of_the_suite=MODELS)

    def run(body: str, *arguments: str, **options: bool) -> pytest.RunResult:
        head = "import pytest, torch\nfrom nets_of_the_suite import Net, Work, X\n"
        pytester.makepyfile(test_speed=f"{head}{body}")
        return pytester.runpytest_inprocess(
            "-p", PLUGIN, "--strict-markers", "-rs", *arguments, **options
        )

    return run
