"""What a shell is offered, asked as the shells ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# The command of an installation, without one.
COMMAND = """\
#!{python}
import sys

sys.path.insert(0, {root!r})
sys.argv[0] = "layerbench"
from layerbench.__main__ import main

main()
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """With the command on the path."""
    folder = tmp_path_factory.mktemp("bin")
    file = folder / "layerbench"
    file.write_text(COMMAND.format(python=sys.executable, root=str(ROOT)))
    file.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


def run(environment: dict[str, str], *words: str, **variables: str) -> str:
    done = subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        env={**environment, **variables},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def offered_by_bash(environment: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last word, with the script that the command prints."""
    script = """
eval "$(layerbench --show-completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_layerbench_completion layerbench
printf '%s\\n' "${COMPREPLY[@]}"
"""
    asked = ("bash", "--norc", "-c", script, "bash", "layerbench", *words)
    return run(environment, *asked).split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["tra"], ["train", "train-profile"]),
        (["estimate", ""], ["detection", "gpus", "latency", "training-time"]),
        (["timer", "--chan"], ["--channels-last"]),
        (["timer", "--model", "resnet1"], ["resnet101", "resnet152", "resnet18"]),
        (["timer", "resnet15"], ["resnet152"]),
        (["timer", "--input", "p"], ["pascal"]),
        (["timer", "--precision", "amp"], ["amp", "amp-bf16"]),
        (["timer", "--device", "c"], ["cpu", "cuda"]),
        (["mem", "--device", "t"], ["t4"]),
        (["detect", "--model", "ssd"], ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"]),
        (
            ["estimate", "detection", "--models", "fcos_resnet50_fpn,s"],
            ["fcos_resnet50_fpn,ssd300_vgg16", "fcos_resnet50_fpn,ssdlite320_mobilenet_v3_large"],
        ),
        (["estimate", "gpus", "--device", "t4,l"], ["t4,l4", "t4,l40s"]),
        (["sweep", "--models", "alexnet,resnet15"], ["alexnet,resnet152"]),
    ],
)
def test_bash_is_offered(environment, words, some) -> None:
    assert offered_by_bash(environment, *words) == some


def test_files_are_left_to_the_shell(environment) -> None:
    assert offered_by_bash(environment, "timer", "--checkpoint", "") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_offered_the_same(environment, shell: str) -> None:
    variables = {
        "_LAYERBENCH_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "layerbench estimate gp",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert "gpus" in run(environment, "layerbench", **variables)


def test_it_is_installed_for_the_command_even_by_the_module(environment) -> None:
    # Typer finds out by itself from which shell it was started.
    line = f"{sys.executable} -m layerbench --install-completion; exit $?"
    told = run(environment, "bash", "--norc", "-c", line, PYTHONPATH=str(ROOT))
    assert "bash completion installed" in told
    script = Path(environment["HOME"], ".bash_completions", "layerbench.sh").read_text()
    assert script.rstrip().endswith("-F _layerbench_completion layerbench")


def test_the_version_loads_no_torch(environment) -> None:
    code = (
        "import sys; sys.argv = ['layerbench', '--version']\n"
        "from layerbench.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: sys.exit(end.code or 'torch' in sys.modules)"
    )
    told = run(environment, sys.executable, "-c", code, PYTHONPATH=str(ROOT))
    import torch

    from layerbench import __version__

    assert told.startswith(f"layerbench {__version__} (torch {torch.__version__.partition('+')[0]}")
