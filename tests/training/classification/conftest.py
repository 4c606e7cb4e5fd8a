"""Fixtures of several files here."""

from __future__ import annotations

import sys

import pytest

from layerbench import cli
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def _in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def train(monkeypatch, capsys):
    """``train(*arguments)``: exit status, what was printed, what was complained about."""

    def call(*arguments: object):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments), "--quiet"])
        with pytest.raises(SystemExit) as left:
            cli.run("train")
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return call
