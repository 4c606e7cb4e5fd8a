"""What other packages offer: the example of CONTRIBUTING, installed, and one that is broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerbench import registry
from tests.support.paths import ROOT

BLOCK = re.compile(r"```(toml|python)\n(.*?)```", re.DOTALL)
USES = """
import sys, pytest
from layerbench import cli, zoo, reporters
from layerbench.environment import devices
from layerbench.profilers.structure import profile_structure

assert "mine:tiny" in zoo.model_names()
record = profile_structure(zoo.resolve("mine:tiny"))
assert (record.parameters, record.workload.shape) == (30730, (1, 3, 32, 32)), record
with pytest.raises(Exception, match=r"did you mean tiny\\?"):
    zoo.resolve("mine:tinny")
assert devices.names() and "txt" in reporters.names()
sys.argv = ["layerbench", "hello", "--name", "there"]
cli.main()
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The example as pip installs it, in a folder of its own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("### In a package of your own")[2].partition("\n## ")[0]
    (_, project), (_, module) = BLOCK.findall(section)
    source, target = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    (source / "pyproject.toml").write_text(project)
    (source / "my_models.py").write_text(module)
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True
    )
    return target


def test_the_example_of_the_page_works_once_installed(installed: Path) -> None:
    paths = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", USES], env=paths, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hello there\n"), done.stderr


def test_what_cannot_be_loaded_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[layerbench.models]\nbad = no_such_module_at_all:X\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.offered.cache_clear()
    try:
        with pytest.warns(UserWarning, match="broken offers bad for layerbench.models"):
            assert registry.offered("layerbench.models") == ()
    finally:
        registry.offered.cache_clear()
