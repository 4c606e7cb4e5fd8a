"""What other packages offer: the examples of CONTRIBUTING, installed, and one that is broken."""

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


KIND = """
import sys, layerbench, pytest
from pathlib import Path
from layerbench import cli, reporters
from my_zeros import Zeros, profile_zeros

def run(*words):
    sys.argv = ["layerbench", *words]
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code

record = profile_zeros("squeezenet1_1")
assert 0 < record.zeros < record.weights == 1235496, record
Path("a.json").write_text(reporters.render("json", record))
assert layerbench.read("a.json") == layerbench.read("a.json", Zeros) == record
assert reporters.render("txt", record).endswith(f"Zeros     {record.zeros} of 1235496\\n")
for format in ("txt", "md", "html", "json"):
    assert not run("export", "a.json", "--format", format, "-o", f"a.{format}")
    assert Path(f"a.{format}").read_text() == reporters.render(format, record)
assert not run("report", "a.json")
assert f"<dd>{record.zeros} of 1235496</dd>" in Path("a.html").read_text()
assert not run("check", "--static", "a.json")
assert run("export", "a.json") == run("check", "a.json") == 2
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The packages of the page as pip installs them, in a folder of their own."""
    folder = tmp_path / "packages"
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    projects = [block for language, block in blocks if language == "toml"]
    modules = [block for language, block in blocks if language == "python"]
    for project, module in zip(projects, modules, strict=True):
        (name,) = re.findall(r'py-modules = \["(\w+)"\]', project)
        (folder / name).mkdir(parents=True)
        (folder / name / "pyproject.toml").write_text(project)
        (folder / name / f"{name}.py").write_text(module)
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    target, sources = folder / "installed", list(folder.iterdir())
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, *sources], check=True
    )
    return target


@pytest.mark.slow
def test_the_examples_of_the_page_work_once_installed(installed: Path, tmp_path: Path) -> None:
    """In one process, as most of the time goes into loading torch."""
    done = subprocess.run(
        [sys.executable, "-c", KIND + USES],
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 reports say what comes out here\n" in done.stdout
    assert done.stdout.endswith("hello there\n")


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
