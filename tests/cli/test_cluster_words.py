"""Options on their way to a node: what a child reads is what the driver's user said."""

from __future__ import annotations

import inspect

import pytest

from layerbench import cli
from layerbench.cli import _cluster, _cluster_sweep, estimate_detection, sweep, timer

MODULES = {"timer": timer, "sweep": sweep, "estimate_detection": estimate_detection}
LEFT_OUT = {
    "timer": _cluster.PLACE_OPTIONS | _cluster.VIEW_OPTIONS | timer.ON_NODES,
    "sweep": _cluster.PLACE_OPTIONS | _cluster.VIEW_OPTIONS | _cluster_sweep.OWN,
    "estimate_detection": _cluster.PLACE_OPTIONS | _cluster.VIEW_OPTIONS | {"models"},
}


@pytest.fixture
def words(monkeypatch):
    """``words(verb, *line)``: what the nodes get of a command line."""

    def read(verb: str, *line: str) -> list[str]:
        made: list[list[str]] = []

        def command(**_: object) -> None:
            made.append(_cluster.words_without(LEFT_OUT[verb]))

        module = MODULES[verb]
        command.__signature__ = inspect.signature(module.command, eval_str=True)
        command.__doc__ = module.command.__doc__
        monkeypatch.setattr(module, "command", command)
        monkeypatch.setattr("sys.argv", [f"{verb}.py", *line])
        with pytest.raises(SystemExit) as left:
            cli.run(verb)
        monkeypatch.undo()
        assert left.value.code == 0
        return made[0]

    return read


SAME = {
    "timer": (
        "",
        "--iterations 7 --warmup 0",
        "--iterations=7 --iterations 9",
        "--no-ceilings",
        "--no-ceilings --ceilings",
        "--ceilings --no-ceilings --strict",
        "--w True",
        "--w False",
        "--w=yes --w no",
        "--channels-last --threads 3 --batch 4",
        "--channels_last --cuda-graph",
        "--compile",
        "--compile=max-autotune",
        "--compile --w True",
        "--precision bf16 --seed 3",
        "--until 2% --processes 2 --energy",
        "--mode train --dtype float64 --inputs my.pt",
    ),
    "estimate_detection": ("", "--data voc --size 64x96 --batch 2 --precision bf16 --threads 2"),
    "sweep": (
        "",
        "--seconds 0.5",
        "--seconds 3 --precision fp16 --threads 1 --channels-last",
        "--checkpoint=w.pt",
    ),
}


@pytest.mark.parametrize(
    ("verb", "line"), [(verb, line) for verb, lines in SAME.items() for line in lines]
)
def test_a_node_reads_what_was_said(words, verb, line):
    sent = words(verb, *line.split())
    assert cli.arguments_of(verb, sent) == cli.arguments_of(verb, line.split())


@pytest.mark.parametrize(
    ("verb", "line", "variables", "read"),
    [
        ("timer", "", {"ITERATIONS": "7", "W": "True"}, "--iterations 7 --w True"),
        ("timer", "", {"WHOLE": "yes", "UNTIL": "2%"}, "--w yes --until 2%"),
        ("timer", "--iterations 3", {"ITERATIONS": "7"}, "--iterations 3"),
        ("timer", "", {"CEILINGS": "0", "STRICT": "1"}, "--no-ceilings --strict"),
        ("timer", "", {"STRICT": "0", "CHANNELS_LAST": "true"}, "--channels-last"),
        ("timer", "", {"COMPILE": "max-autotune"}, "--compile=max-autotune"),
        ("timer", "", {"QUIET": "1", "TOP": "3", "FORMAT": "md", "TRACEBACK": "1"}, ""),
        ("sweep", "", {"SECONDS": "0.5", "DTYPE": "float64"}, "--seconds 0.5 --dtype float64"),
        ("sweep", "", {"MODELS": "resnet18", "SIZES": "32", "FORMATS": "md"}, ""),
    ],
)
def test_a_node_reads_what_the_environment_says_here(
    words, monkeypatch, verb, line, variables, read
):
    for name, value in variables.items():
        monkeypatch.setenv(f"LAYERBENCH_{verb.upper()}_{name}", value)
    sent = words(verb, *line.split())
    assert cli.arguments_of(verb, sent) == cli.arguments_of(verb, read.split())


def test_the_same_options_in_another_order_are_the_same_words(words):
    said = "--seed 3 --w True --batch 2"
    again = "--batch 2 --seed=3 --w=True -q --full --sort time --out x --format md"
    assert words("timer", *said.split()) == words("timer", *again.split())
