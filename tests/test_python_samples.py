"""The pages' Python: each call exists with these arguments; a path may be text or a `Path`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import layerbench
from layerbench import detection, reporters
from layerbench.errors import RecordError
from layerbench.integrations.pytest_checks import LayerbenchFixture
from layerbench.records.timing import Profile
from layerbench.store import paths, reading, writing
from tests.support.paths import ROOT
from tests.support.sample_comparisons import measured, one_slower

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
SAMPLE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SAMPLES = [
    pytest.param(text, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, text in enumerate(SAMPLE.findall(page.read_text(encoding="utf-8")))
]
OURS = {"layerbench": layerbench, "detection": detection}
# In a test the name is that of the fixture.
FIXTURE = {"layerbench": LayerbenchFixture(None, [])}


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_calls_of_a_sample_exist(sample: str) -> None:
    tree = ast.parse(sample)
    in_tests = {
        node: FIXTURE
        for test in ast.walk(tree)
        if isinstance(test, ast.FunctionDef) and "layerbench" in [a.arg for a in test.args.args]
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = _ours(node.func, in_tests.get(node, OURS))
            if called is not None:
                named = {word.arg: None for word in node.keywords if word.arg}
                inspect.signature(called).bind(*[None] * len(node.args), **named)


def _ours(function: ast.expr, homes: dict[str, Any]) -> Any:
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        home = homes.get(function.value.id)
        return None if home is None else getattr(home, function.attr)
    return None


def test_the_sample_on_records_runs(tmp_path, monkeypatch, capsys) -> None:
    for name in ("a.json", "b.json"):
        writing.write_text(tmp_path / name, reporters.render("json", measured()))
    (sample,) = SAMPLE.findall((ROOT / "docs" / "compare.md").read_text(encoding="utf-8"))
    records, _, _ = sample.partition("comparison = layerbench.compare_live")
    monkeypatch.chdir(tmp_path)
    exec(records, {})
    assert capsys.readouterr().out == "SAME []\n"


# --- paths ----------------------------------------------------------------------------------


def _public() -> Iterator[tuple[str, Any]]:
    for home in (layerbench, detection):
        for name in home.__all__:
            found = getattr(home, name)
            if inspect.isfunction(found) or dataclasses.is_dataclass(found):
                yield f"{home.__name__}.{name}", found
    for name, found in vars(reading).items():
        if inspect.isfunction(found) and found.__module__ == reading.__name__ and name[0] != "_":
            yield f"store.{name}", found


def test_every_path_of_a_public_function_may_be_text() -> None:
    """By the annotations, to which mypy holds the code that follows."""
    paths = {
        f"{name}({parameter.name})": str(parameter.annotation)
        for name, found in _public()
        for parameter in inspect.signature(found).parameters.values()
        if "Path" in str(parameter.annotation)
    }
    few = {"layerbench.read(path)", "layerbench.train(data_dir)", "layerbench.sweep(runs)"}
    assert few < set(paths)
    strict = {
        where: annotation
        for where, annotation in paths.items()
        if not re.search(r"\bstr\b|\bAnyPath\b", annotation)
    }
    assert strict == {}


@pytest.mark.parametrize("kind", [str, Path])
def test_the_store_takes_both(kind, tmp_path) -> None:
    folder = kind(tmp_path / "new")
    file = kind(tmp_path / "new" / "a.json")
    writing.check_writable(folder)
    writing.write_text(file, reporters.render("json", measured()))
    writing.write_bytes(kind(tmp_path / "new" / "b.txt"), b"b")
    assert isinstance(layerbench.read(file), Profile)
    assert isinstance(reading.read(file), Profile)
    assert [path for path, _ in reading.read_all([folder])] == [Path(file)]
    assert [path for path, _ in reading.read_all([file])] == [Path(file)]
    assert paths.places(measured(), folder).whole.parent.parent == tmp_path / "new"
    assert paths.place(one_slower(), folder).parent == tmp_path / "new"
    with pytest.raises(RecordError, match="there is no record"):
        layerbench.read(kind(tmp_path / "none.json"))
