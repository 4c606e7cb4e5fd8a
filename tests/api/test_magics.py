"""``%%layers`` in IPython's own shell."""

from __future__ import annotations

import sys

import pytest

from tests.support.sample_structures import ceilings

CELL = "y = net(x)\nfor _ in range(3):\n    y = net(x)\n"


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """A shell as a notebook has it, with a model and an input; it leaves the process as it was."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    before = {name: getattr(sys, name) for name in ("displayhook", "excepthook", "path")}
    main = sys.modules["__main__"]
    made = InteractiveShell(
        config=Config(HistoryManager={"enabled": False}),
        ipython_dir=str(tmp_path_factory.mktemp("ipython")),
    )
    made.run_line_magic("load_ext", "layerbench")
    made.run_cell(
        "import torch\n"
        "net, x = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), torch.rand(2, 4)\n"
        "part, other = net[0], torch.nn.Tanh()\n"
    )
    yield made
    sys.modules["__main__"] = main
    for name, value in before.items():
        setattr(sys, name, value)


def test_the_models_that_a_cell_names_are_timed(shell) -> None:
    layers = shell.run_cell_magic("layers", "", CELL + "z = part(x)")
    assert layers.forwards == 4
    assert [row.type for row in layers.rows] == ["Sequential", "Linear", "ReLU"]
    assert shell.user_ns["y"].shape == (2, 4)
    both = shell.run_cell_magic("layers", "", CELL + "z = other(x)")
    assert {name: layers.forwards for name, layers in both.items()} == {"net": 4, "other": 1}


def test_models_that_a_cell_makes_are_timed_from_there_on(shell, capsys) -> None:
    cell = (
        "def helper(z):\n    inner = net\n    return inner(z)\n"
        "fresh: torch.nn.Module = torch.nn.Sequential(torch.nn.Linear(4, 4))\n"
        "fresh.append(torch.nn.Tanh())\n"
        "for _ in range(4):\n    made = fresh[1]\n    y = fresh(x)\n"
        "fresh(x).shape"
    )
    layers = shell.run_cell_magic("layers", "", cell)
    assert layers.forwards == 5
    assert [row.type for row in layers.rows] == ["Sequential", "Linear", "Tanh"]
    assert "torch.Size([2, 4])" in capsys.readouterr().out  # the cell's last value
    assert not [name for name in shell.user_ns if name.startswith("_layerbench")]
    assert not any(type(one).__name__ == "_Watch" for one in shell.ast_transformers)


def test_of_a_model_and_its_parts_the_model_is_timed_that_a_cell_makes_later(shell) -> None:
    layers = shell.run_cell_magic(
        "layers", "", "head = torch.nn.Tanh()\nwhole = torch.nn.Sequential(net, head)\nwhole(x)"
    )
    assert [row.path for row in layers.rows] == ["", "0", "0.0", "0.1", "1"]
    both = shell.run_cell_magic(
        "layers", "", "a = torch.nn.Tanh(); a(x)\na = torch.nn.ReLU(); a(x)"
    )
    assert {name: layers.record.model_type for name, layers in both.items()} == {
        "a": "Tanh",
        "a (2)": "ReLU",
    }


def test_a_name_of_a_model_that_the_cell_makes_says_which(shell) -> None:
    cell = "mine, yours = torch.nn.Tanh(), torch.nn.ReLU()\nyours(mine(x))"
    layers = shell.run_cell_magic("layers", "yours", cell)
    assert layers.record.model_type == "ReLU"


def test_ceilings_are_measured_after_the_cell(shell, monkeypatch) -> None:
    monkeypatch.setattr("layerbench.profilers.ceilings._measured", {})
    monkeypatch.setattr("layerbench.profilers.ceilings.measure_ceilings", lambda *_: ceilings())
    layers = shell.run_cell_magic("layers", "--ceilings", "%pwd\nnet(x)")
    assert layers.record.ceilings == ceilings()


def test_an_expression_says_which(shell) -> None:
    layers = shell.run_cell_magic("layers", "net[0]", CELL)
    assert layers.record.model_type == "Linear"


@pytest.mark.parametrize(
    ("line", "cell", "says"),
    [
        ("", "torch.nn.Tanh()(x)", "runs no model that it has a name for: give it one, as in net"),
        (
            "",
            "soon = torch.nn.Tanh()\nsoon.compile(backend='eager')",
            "compile it in a cell before",
        ),
        ("late", "z = 1", "runs no model that it has a name for"),
        ("", "net", "the cell did not run net"),
        ("x", CELL, "x is no torch.nn.Module, but a Tensor"),
        ("x.y", CELL, "%%layers: x.y: AttributeError: 'Tensor' object has no attribute 'y'"),
        ("net[", CELL, "%%layers: net[: SyntaxError"),
    ],
)
def test_what_cannot_be_timed_is_said(shell, capsys, line, cell, says) -> None:
    assert shell.run_cell_magic("layers", line, cell) is None
    assert says in capsys.readouterr().err


def test_an_error_of_the_cell_is_shown_and_the_model_is_left(shell, capsys) -> None:
    assert shell.run_cell_magic("layers", "", "net(x)\nnet('text')") is None
    assert "TypeError" in capsys.readouterr().out
    assert "forward" not in vars(shell.user_ns["net"])
