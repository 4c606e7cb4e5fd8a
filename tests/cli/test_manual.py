"""docs/cli.md is what the commands say."""

from __future__ import annotations

import re

import pytest

from layerbench import cli
from layerbench.cli._manual import manual
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say(monkeypatch, request) -> None:
    # Other packages' verbs are not of this project.
    monkeypatch.setattr(cli, "offered", lambda _: [])
    if request.config.getoption("--overwrite"):
        PAGE.write_text(manual(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == manual()


@pytest.mark.parametrize("verb", sorted(cli.verbs()))
def test_every_verb_has_a_section(verb: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
    assert f"layerbench {verb} [OPTIONS]" in section
    file = cli.verbs()[verb]
    said = re.sub(r"\s+", " ", section.replace("\\", ""))
    assert re.sub(r"\s+", " ", (file.command.__doc__ or "").split("\n\n")[0]) in said
