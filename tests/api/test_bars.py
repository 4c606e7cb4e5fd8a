"""The ``progress`` of the calls: a bar in a notebook or on a terminal, or whoever listens."""

from __future__ import annotations

import sys

import pytest

import layerbench
from layerbench.api.bars import heard
from layerbench.environment import notebook
from layerbench.profilers.progress import Silent


class Handle:
    """A place in a cell's output, as IPython has them."""

    shown: list[tuple[str, str]]

    def display(self, markup) -> None:
        self.shown.append(("display", markup.data))

    def update(self, markup) -> None:
        self.shown.append(("update", markup.data))


@pytest.fixture
def shown(monkeypatch) -> list[tuple[str, str]]:
    """What a notebook has shown."""
    pytest.importorskip("IPython")
    Handle.shown = []
    monkeypatch.setattr(notebook, "is_running", lambda: True)
    monkeypatch.setattr("IPython.display.DisplayHandle", Handle)
    return Handle.shown


def test_a_notebook_has_one_bar_that_goes_at_the_end(shown) -> None:
    with heard(True) as bar:
        for done in range(1, 1001):
            bar.step("<b>", done, 1000)
    assert shown[0] == (
        "display",
        '<progress value="10" max="1000" aria-label="&lt;b&gt;" style="vertical-align:middle">'
        "</progress> &lt;b&gt; 10/1000",
    )
    assert len(shown) == 101
    assert 'value="1000"' in shown[-2][1]
    assert shown[-1] == ("update", "")


def test_a_measurement_draws_it(shown) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    layerbench.profile(
        model, torch.rand(1, 2), warmup=1, iterations=2, ceilings=False, progress=True
    )
    assert any("functions 1/2" in markup for _, markup in shown)


def test_who_listens_hears_and_nobody_else(monkeypatch, capsys) -> None:
    listener = Silent()
    with heard(listener) as hearing:
        assert hearing is listener
    for nobody in (None, False, True):  # standard error is no terminal here
        with heard(nobody) as hearing:
            hearing.step("measuring", 1, 2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with heard(True) as bar:
        bar.step("measuring", 1, 2)
    assert "measuring" in capsys.readouterr().err
