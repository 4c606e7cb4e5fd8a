"""The pages: links lead somewhere, excerpts are what the reports say, no part is left unnamed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EXCERPT = re.compile(
    r"<!-- layerbench:excerpt (\S+) -->\n+```\w*\n(.*?)```\n+<!-- layerbench:end -->", re.DOTALL
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


@page
def test_excerpts_stand_in_the_report_they_name(page: Path) -> None:
    text = page.read_text()
    excerpts = EXCERPT.findall(text)
    assert len(excerpts) == text.count("<!-- layerbench:excerpt ")
    for source, excerpt in excerpts:
        assert excerpt.strip()
        report = (ROOT / source).read_text()
        # A line that is only an ellipsis stands for what was left out.
        position = 0
        for part in re.split(r"^\s*(?:\.\.\.|…)\s*\n", excerpt, flags=re.MULTILINE):
            found = report.find(part, position)
            assert found >= 0, f"{source} does not say:\n{part}"
            position = found + len(part)


def test_the_design_names_every_part_of_the_package() -> None:
    design = (ROOT / "docs" / "DESIGN.md").read_text()
    floors = re.search(r"^cli/ .*?^```$", design, re.DOTALL | re.MULTILINE)
    assert floors is not None
    named = set(re.findall(r"(?:^|\s)(\w+(?:\.py|/))", floors[0], re.MULTILINE))
    package = ROOT / "layerbench"
    parts = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    parts |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert parts <= named
