"""A verb's command line from the signature of its function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from layerbench import cli
from layerbench.cli._generated import fields, generated, size_of, truth, values_of
from layerbench.errors import UsageError
from layerbench.records.bounds import Positive
from layerbench.records.options import option
from layerbench.records.workload import Frozen


class Oven(Frozen):
    """What a verb fills."""

    PANEL: ClassVar[str] = "How it bakes"

    trays: Annotated[Positive, option("Number of trays.", "--trays", "--tray-count", "-t")] = 2
    heat: Annotated[Literal["top", "bottom"], option("Where the heat comes from.")] = "top"
    share: Annotated[float | None, option("So much.", metavar="PERCENT", gt=0, lt=1)] = None
    size: Annotated[tuple[int, int], option("Size.", metavar="N|HxW", default_text="3")] = (
        3,
        3,
    )
    clean: Annotated[bool, option("Clean it first.")] = False
    serial: int = 7


@pytest.fixture
def baked():
    """``baked(command, words, **variables)``: what the command got, or the error's text."""

    def call(command, words="", **variables):
        app = typer.Typer()
        got: list[dict[str, Any]] = []

        def verb(**values):
            got.append(values)

        vars(verb)["__signature__"] = cli.inspect.signature(command, eval_str=True)
        app.command()(generated(verb, "BAKE"))
        done = CliRunner().invoke(app, words.split(), env=variables)
        if isinstance(done.exception, UsageError):
            return str(done.exception)
        return got[0] if got else done.output

    return call


def whole(*, oven: Oven, note: Annotated[str, option("A note.", "--note", "-n")] = "none") -> None:
    """Bake."""


def part(*, oven: Annotated[Oven, fields("clean", trays=5)]) -> None:
    """Bake."""


def said(*, values: Annotated[dict[str, Any], values_of(Oven, picked=fields(heat="top"))]) -> None:
    """Bake."""


def needed(place: Path, *, count: Annotated[Positive, option("How many.")]) -> None:
    """Bake."""


def test_a_model_has_an_option_for_each_field(baked):
    got = baked(whole, "-t 4 --heat bottom --share 5% --size 2x6 --clean -n mine")
    assert got == {
        "oven": Oven(trays=4, heat="bottom", share=0.05, size=(2, 6), clean=True),
        "note": "mine",
    }
    assert baked(whole) == {"oven": Oven(), "note": "none"}
    assert baked(whole)["oven"].model_fields_set == set()


def test_a_verb_has_the_fields_that_it_picks(baked):
    assert baked(part)["oven"] == Oven(trays=5)
    assert baked(part, "--trays 3 --clean")["oven"] == Oven(trays=3, clean=True)
    assert "No such option" in baked(part, "--heat top")


def test_the_values_alone_are_those_that_were_said(baked):
    # A default that is said is not one that is left out.
    assert baked(said, "--trays 2")["values"] == {"trays": 2}
    assert baked(said, BAKE_SIZE="4")["values"] == {"size": (4, 4)}
    assert baked(said, "--heat top")["values"] == {"heat": "top"}


def test_an_option_that_has_to_be_said(baked):
    assert "Missing option" in baked(needed, "here")
    assert baked(needed, "here --count 3") == {"place": Path("here"), "count": 3}


@pytest.mark.parametrize("variable", ["BAKE_TRAYS", "BAKE_TRAY_COUNT"])
def test_a_variable_is_called_as_any_spelling(baked, variable):
    assert baked(whole, **{variable: "9"})["oven"].trays == 9
    assert baked(whole, "--trays 1", **{variable: "9"})["oven"].trays == 1


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        (whole, "--tray-count 0", "--trays must be at least 1, got 0"),
        (said, "--trays 0", "--trays must be at least 1, got 0"),
        (needed, "here --count 0", "--count must be at least 1, got 0"),
        (whole, "--heat left", "--heat takes top, bottom, got 'left'"),
        (whole, "--share much", "--share cannot read 'much' as a fraction"),
        (whole, "--size 2x", "--size takes a number such as 224, or HxW"),
    ],
)
def test_a_wrong_value_is_told_by_the_options_name(baked, command, words, says):
    assert baked(command, words).startswith(says)


def test_help_has_the_choices_the_default_and_the_panel(baked):
    shown = " ".join(baked(whole, "--help").replace("│", " ").split())
    assert "How it bakes" in shown
    assert "Where the heat comes from. One of top or bottom." in shown
    assert "--trays,--tray-count" in shown
    assert "default: 3]" in shown
    assert "--no-clean" not in shown
    assert "--clean Clean it first." in shown  # a flag takes no value
    assert "serial" not in shown


def test_texts_that_are_read():
    assert (size_of("224"), size_of("480X640")) == ((224, 224), (480, 640))
    assert (truth("Yes"), truth("0")) == (True, False)
    for read, text in ((size_of, "0x2"), (size_of, "1x2x3"), (truth, "perhaps")):
        with pytest.raises(UsageError, match="takes"):
            read(text)


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ([], False),
        (["--compile"], "default"),
        (["--compile", "--batch", "2"], "default"),
        (["--compile=max-autotune"], "max-autotune"),
        (["--compile=true"], "default"),
        (["--compile=False"], False),
    ],
)
def test_an_option_may_stand_alone_or_have_a_value(words: list[str], mode: object) -> None:
    given, _ = cli.arguments_of("timer", ["--model", "a", *words])
    assert given["what"].compile == mode


def test_a_mode_of_compilation_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--compile takes .*max-autotune.* got 'fast'"):
        cli.arguments_of("timer", ["--model", "a", "--compile=fast"])
