"""The files of a driver, on a node whose folder another node may renew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from layerbench.cluster import sent_files
from layerbench.errors import WorkerError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder as Ray unpacks one, in which this process is."""
    made = tmp_path / "_ray_pkg_0123456789abcdef"
    made.mkdir()
    (made / "tiny.py").write_text("first")
    monkeypatch.chdir(made)
    sent_files.folder.cache_clear()
    yield made
    sent_files.folder.cache_clear()


def test_files_stay_when_another_node_unpacks_them_anew(package):
    folder = Path(sent_files.folder())
    shutil.rmtree(package)
    assert (folder / "tiny.py").read_text() == "first"
    assert sent_files.folder() == str(folder)


def test_a_folder_that_was_renewed_before_the_first_look_is_found(package):
    shutil.rmtree(package)
    package.mkdir()
    (package / "tiny.py").write_text("again")
    assert (Path(sent_files.folder()) / "tiny.py").read_text() == "again"


def test_files_that_are_not_there_are_told(package, monkeypatch):
    shutil.rmtree(package)
    monkeypatch.setattr(sent_files, "PATIENCE_S", 0.0)
    with pytest.raises(WorkerError, match="the files that were sent to this node are not in /"):
        sent_files.folder()


def test_where_nothing_was_sent_a_process_stays_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "session").mkdir()
    monkeypatch.chdir(tmp_path / "session")
    sent_files.folder.cache_clear()
    assert sent_files.folder() == str(tmp_path / "session")
    shutil.rmtree(tmp_path / "session")
    sent_files.folder.cache_clear()
    assert Path(sent_files.folder()).is_dir()
    sent_files.folder.cache_clear()
