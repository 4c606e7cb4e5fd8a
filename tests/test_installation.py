"""The wheel and the source distribution, installed where only what they need is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODEL = """
from torch import nn

def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
"""
# Says of each module of the package which package it lacks, if it cannot be loaded.
IMPORTS = """
import importlib, json, pkgutil, layerbench
lacks = {}
for found in pkgutil.walk_packages(layerbench.__path__, "layerbench."):
    # Of these the host that loads them is there.
    if found.name.endswith("__main__") or found.name.startswith("layerbench.integrations."):
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        lacks[found.name] = error.name
    except (Exception, SystemExit) as error:
        lacks[found.name] = repr(error)
print(json.dumps(lacks))
"""


def closure(requirements: list[str]) -> set[str]:
    """The distributions that are needed, all that these need included, as they are here."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(Requirement(one), frozenset({""})) for one in requirements]
    while waiting:
        one, extras = waiting.pop()
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        wanted = canonicalize_name(one.name), frozenset({"", *one.extras})
        if wanted not in seen:
            seen.add(wanted)
            needed = metadata.requires(one.name) or ()
            waiting += [(Requirement(text), wanted[1]) for text in needed]
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel and the source distribution, built from the files of the project."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    for name in ("layerbench", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        where = ROOT / name
        if where.is_dir():
            shutil.copytree(where, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(where, source / name)
    stale = source / "build" / "lib" / "layerbench" / "cli" / "gone.py"  # of an earlier build
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    words = ("--no-isolation", "--sdist", "--wheel", "--outdir", folder / "dist")
    run(sys.executable, "-m", "build", *words, source)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def run(*words: object, cwd: Path | None = None, status: int = 0) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, text=True,
        cwd=cwd, timeout=280, env={**variables, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment(folder: Path, names: set[str]) -> Path:
    """A fresh virtual environment with these distributions and pip; returns its Python."""
    run(sys.executable, "-m", "venv", folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in names:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            link, target = site / top, Path(str(distribution.locate_file(top)))
            if not link.exists() and target.exists():
                link.symlink_to(target)
    return folder / "bin" / "python"


def listed(python: Path) -> dict[str, str]:
    told = run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
    packages = json.loads(told[: told.rindex("]") + 1])
    return {canonicalize_name(one["name"]): one["version"] for one in packages}


@pytest.fixture(scope="module")
def installed(tmp_path_factory, distributions) -> tuple[Path, dict[str, str], dict[str, str]]:
    """The Python of an environment with the wheel, and what pip lists before and after."""
    python = environment(tmp_path_factory.mktemp("venv"), closure(PROJECT["dependencies"]))
    before = listed(python)
    run(
        python,
        "-m",
        "pip",
        "install",
        "--no-index",
        "--disable-pip-version-check",
        distributions[0],
    )
    return python, before, listed(python)


@pytest.mark.slow
def test_an_environment_that_has_torch_is_left_as_it_is(installed) -> None:
    _, before, after = installed
    assert "torch" in before
    assert after == {**before, "layerbench": PROJECT["version"]}


@pytest.mark.slow
def test_neither_the_services_nor_the_tests_packages_are_needed(installed) -> None:
    base = closure(PROJECT["dependencies"])
    assert not {"fastapi", "uvicorn", "sqlalchemy", "pytest", "ray", "lightning"} & base
    extras = PROJECT["optional-dependencies"].items()
    of_extras = closure([one for name, group in extras if name != "test" for one in group]) - base
    python, _, _ = installed
    lacks = json.loads(run(python, "-c", IMPORTS, cwd=python.parent).splitlines()[-1])
    # The package that an import names is its distribution's, but for these.
    called = {"sklearn": "scikit-learn", "pydantic_settings": "pydantic-settings",
              "prometheus_client": "prometheus-client", "cudnn": "nvidia-cudnn-frontend",
              "markdown_it": "markdown-it-py", "IPython": "ipython"}  # fmt: skip
    unknown = {
        module: name
        for module, name in lacks.items()
        if called.get(name.partition(".")[0], canonicalize_name(name.partition(".")[0]))
        not in of_extras
    }
    assert unknown == {}
    # Nothing that the service does not need waits for its packages.
    allowed = ("layerbench.service", "layerbench.cluster")
    assert [module for module in lacks if not module.startswith(allowed)] == []


@pytest.mark.slow
def test_the_command_measures_and_reports(installed, tmp_path) -> None:
    python, _, _ = installed
    command = python.parent / "layerbench"
    assert run(command, "--version").startswith(f"layerbench {PROJECT['version']} (torch ")
    (tmp_path / "model.py").write_text(MODEL)
    what = ("--model", "model.py:tiny", "--input", "3x8x8", "--device", "cpu")
    rounds = ("--warmup", "1", "--iterations", "3", "--quiet")
    run(command, "timer", *what, *rounds, "--out", "stats", cwd=tmp_path)
    (record,) = tmp_path.glob("stats/*/layers/*.json")
    run(command, "mem", *what, "--out", "memory", cwd=tmp_path)
    run(command, "report", record, "-o", "page.html", cwd=tmp_path)
    assert "<html" in (tmp_path / "page.html").read_text()
    run(command, "plot", record, "--kind", "icicle", "-o", "icicle.svg", cwd=tmp_path)
    assert "t4" in run(command, "devices")


def test_what_an_extra_brings_is_named_where_it_lacks(installed, tmp_path, monkeypatch) -> None:
    python, _, _ = installed
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # no cluster runs there
    for verb in ("serve", "cluster"):
        told = run(python.parent / "layerbench", verb, status=2)
        assert f"layerbench[{verb}]" in told
        assert len(told.strip().splitlines()) == 1


def test_both_distributions_hold_every_file_of_the_package(distributions) -> None:
    wheel, sdist = distributions
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "layerbench").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - in_wheel == set()
    assert tracked - in_sdist == set()
    assert not any(re.match(r"(tests|benchmarks)/", name) for name in in_wheel)
    assert "layerbench/cli/gone.py" not in in_wheel


def test_requirements_say_what_each_pin_is_for() -> None:
    sections = (ROOT / "requirements.txt").read_text().split("\n\n")
    pinned = {
        section.split()[1].rstrip(":,"): {
            canonicalize_name(Requirement(line).name)
            for line in section.splitlines()
            if not line.startswith("#")
        }
        for section in sections
    }

    def names(requirements: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(one).name) for one in requirements}

    extras = PROJECT["optional-dependencies"]
    of_users = names([one for name, group in extras.items() if name != "test" for one in group])
    base = names(PROJECT["dependencies"])
    assert pinned["Reproduction"] == base
    of_tests = names(extras["test"])
    # What IPython's extra and the notebooks of the tests take comes with ipykernel.
    assert of_users - base - of_tests - {"ipython"} == pinned["Extras"] - of_tests
    assert pinned["Tests"] == of_tests | {"setuptools"}


def test_the_page_says_what_each_extra_is_for() -> None:
    page = (ROOT / "docs" / "installing.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(named) == sorted(PROJECT["optional-dependencies"])
