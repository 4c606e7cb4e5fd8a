"""The pages: links, excerpts and commands hold, and every verb and every part has its place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerbench import cli
from layerbench.cli._several import combinations
from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EXCERPT = re.compile(
    r"<!-- layerbench:(excerpt|output) ([^\n]+) -->\n+```\w*\n(.*?)```\n+<!-- layerbench:end -->",
    re.DOTALL,
)
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@page
def test_links_lead_to_files_of_the_project(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text())]
    missing = [
        target
        for target in targets
        if target and "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def headings(path: Path) -> set[str]:
    """The names that links give to a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@page
def test_links_lead_to_headings(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        file, mark, heading = target.partition("#")
        linked = page.parent / file if file else page
        if mark and "://" not in target and linked.suffix == ".md":
            assert heading in headings(linked), target


def test_tests_that_a_page_names_are_there() -> None:
    """``tests/file.py::test``; without a file, of the file named before."""
    text = (ROOT / "docs/gpu.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", text)
    assert len(named) > 20
    file = ""
    for file_named, test in named:
        file = file_named or file
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@page
def test_excerpts_stand_in_the_report_they_name(page: Path) -> None:
    text = page.read_text()
    excerpts = EXCERPT.findall(text)
    assert len(excerpts) == len(re.findall("<!-- layerbench:(?:excerpt|output) ", text))
    for kind, source, excerpt in excerpts:
        if kind == "excerpt":
            check_parts(excerpt, (ROOT / source).read_text(), source)


OUTPUTS = [
    pytest.param(command, excerpt, id=f"{path.stem}-{command.partition(' ')[0]}")
    for path in PAGES
    for kind, command, excerpt in EXCERPT.findall(path.read_text())
    if kind == "output"
]


@pytest.mark.parametrize(("command", "excerpt"), OUTPUTS)
def test_a_command_prints_what_a_page_shows(
    command: str, excerpt: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["layerbench", *shlex.split(command)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    check_parts(excerpt, capsys.readouterr().out, command)


def check_parts(excerpt: str, report: str, source: str) -> None:
    """The parts of an excerpt follow each other in a report; a line `...` stands between them."""
    assert excerpt.strip()
    position = 0
    for part in re.split(r"^\s*(?:\.\.\.|…)\s*\n", excerpt, flags=re.MULTILINE):
        place = report.find(part, position)
        assert place >= 0, f"{source} does not say:\n{part}"
        position = place + len(part)


def test_the_design_names_every_part_of_the_package() -> None:
    design = (ROOT / "docs" / "DESIGN.md").read_text()
    floors = re.search(r"^cli/ .*?^```$", design, re.DOTALL | re.MULTILINE)
    assert floors is not None
    named = set(re.findall(r"(?:^|\s)(\w+(?:\.py|/))", floors[0], re.MULTILINE))
    package = ROOT / "layerbench"
    parts = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    parts |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert parts <= named


def test_the_walk_of_the_design_passes_files_that_exist() -> None:
    design = (ROOT / "docs" / "DESIGN.md").read_text()
    walk = design.partition("The walk of the data")[2].partition("## ")[0]
    files = re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", walk)
    assert len(files) > 10
    assert [name for name in files if not (ROOT / "layerbench" / name).exists()] == []


# --- commands -------------------------------------------------------------------------------

SCRIPTS = {"timer.py": "timer", "mem.py": "mem", "train.py": "train", "model_viz.py": "view"}
# What a command may name that is not in the project: folders that it writes to.
COMMITTED = ("stats/", "cpu/", "examples/", "model_structures/", "memory_reports/")
VERBS = {name: Path(str(file.__file__)).stem for name, file in cli.verbs().items()}


def lines() -> Iterator[str]:
    """Each command of layerbench in the pages, after the page's name."""
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "CONTRIBUTING.md"):
        text = path.read_text().replace("\\\n", " ")
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.M):
            if language in ("", "sh"):
                for line in re.findall(r"^(?:[A-Z_]+=\S+ )*(?:python|torchrun) .*", block, re.M):
                    yield f"{path.name}: {line}"


def words_of(line: str) -> tuple[str, list[str]] | None:
    """The verb of a command line and what follows it."""
    words = shlex.split(re.split(r"\s[|&>]", line)[0], comments=True)
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[:1] == ["torchrun"]:
        words = ["python", *words[words.index("train.py") :]]
    if words[:3] == ["python", "-m", "layerbench"]:
        verb = " ".join(words[3:5]) if words[3] == "estimate" else words[3]
        return verb, words[3 + len(verb.split()) :]
    if words[:1] == ["python"] and words[1] in SCRIPTS:
        return SCRIPTS[words[1]], words[2:]
    return None


COMMANDS = [
    pytest.param(*command, id=line)
    for line in lines()
    if (command := words_of(line.partition(": ")[2])) is not None
]


@pytest.mark.parametrize(("verb", "words"), COMMANDS)
def test_every_command_of_a_page_is_one(verb: str, words: list[str]) -> None:
    given, _ = cli.arguments_of(VERBS[verb], words)
    if verb == "timer":
        combinations(given["what"], given["models"] or [])
    named = [word for word in words if word.startswith(COMMITTED)]
    assert [name for name in named if not any(ROOT.glob(name.partition(":")[0]))] == []


@pytest.mark.parametrize("verb", sorted({name.partition(" ")[0] for name in VERBS}))
def test_every_verb_has_a_page_and_a_link_to_it(verb: str) -> None:
    page = (ROOT / "docs" / f"{verb}.md").read_text()
    assert page.startswith(f"# {verb}: ")
    assert f"(docs/{verb}.md)" in (ROOT / "README.md").read_text()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220
