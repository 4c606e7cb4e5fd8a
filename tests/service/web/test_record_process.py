"""Records that the viewer shows, and what a folder of them may hold besides."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from layerbench.errors import RecordError
from layerbench.service.web import record_library as folders_module
from layerbench.service.web import record_process
from layerbench.service.web.record_library import RecordLibrary, Unknown
from layerbench.service.web.record_process import Crowded, Records
from layerbench.service.web.settings import Settings
from tests.support.sample_bundles import whole as bundle
from tests.support.sample_profiles import layered

MOST = 2**20
TEXT = layered().model_dump_json(by_alias=True)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two records, and what is none."""
    found = tmp_path / "some"
    (found / "deep").mkdir(parents=True)
    for name in ("a.json", "deep/b.json"):
        (found / name).write_text(TEXT)
    outside = tmp_path / "outside.json"
    outside.write_text(TEXT)
    os.mkfifo(found / "fifo.json")
    # Bound by a short name: that of a temporary folder may be too long.
    here = Path.cwd()
    os.chdir(found)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.json")
    os.chdir(here)
    (found / "folder.json").mkdir()
    for name, place in (
        ("zero", "/dev/zero"), ("out", outside), ("up", "../outside.json"), ("gone", "nowhere"),
        ("loop", "loop.json"), ("fifo2", "fifo.json"), ("proc", "/proc/self/environ"),
        ("folder2", tmp_path),
    ):  # fmt: skip
        (found / f"{name}.json").symlink_to(place)
    (found / "elsewhere").symlink_to(tmp_path)
    (found / "within.json").symlink_to("deep/b.json")
    return found


# --- what is looked at ----------------------------------------------------------------------


def test_only_regular_files_within_the_folder_are_looked_at(folder):
    found = RecordLibrary([folder], MOST)
    # The link within it is the file that it leads to, once.
    assert [place.shown for place in found.listed()] == ["some/a.json", "some/within.json"]
    assert {found.described(place.id).kind for place in found.listed()} == {"profile"}


def test_a_joined_record_is_described_shown_and_compared_by_its_times(tmp_path):
    for name in ("a", "b"):
        bundle().save(tmp_path / "some" / name)
    found = RecordLibrary([tmp_path / "some"], MOST)
    first, second = (place.id for place in found.listed())
    assert found.described(first).kind == "bundle"
    assert b"of tensors alive, reached in" in found.document(first)
    assert b"contender" in found.comparison(first, second)


def test_a_file_that_was_named_may_be_a_link_and_must_be_regular(folder, tmp_path):
    named = [folder / name for name in ("out.json", "zero.json", "fifo.json", "gone.json")]
    (place,) = RecordLibrary(named, MOST).listed()
    assert (place.shown, place.file) == ("out.json", tmp_path / "outside.json")


def test_a_file_that_becomes_another_kind_is_no_longer_there(folder):
    found = RecordLibrary([folder], MOST)
    first = found.listed()[0]
    (folder / "a.json").unlink()
    os.mkfifo(folder / "a.json")
    with pytest.raises(Unknown):
        found.document(first.id)


def test_a_long_file_is_not_read(folder):
    found = RecordLibrary([folder], len(TEXT) - 1)
    described = found.described(found.listed()[0].id)
    assert described.kind is None
    assert "records of up to" in described.problem
    with pytest.raises(RecordError, match=r"^some/a\.json has "):
        found.document(described.id)


def test_folders_within_folders_end_somewhere(tmp_path):
    deep = tmp_path
    for _ in range(folders_module.MOST_DEEP + 1):
        (deep / "a.json").write_text(TEXT)
        deep /= "x"
        deep.mkdir()
    (deep / "b.json").write_text(TEXT)
    shown = [place.shown for place in RecordLibrary([tmp_path], MOST).listed()]
    assert len(shown) == folders_module.MOST_DEEP + 1


def test_only_so_many_are_listed(folder, monkeypatch):
    monkeypatch.setattr(folders_module, "MOST_FILES", 1)
    assert len(RecordLibrary([folder], MOST).listed()) == 1


def test_names_that_do_not_print_are_shown(tmp_path):
    name = os.fsencode(tmp_path) + "/\u202ea".encode() + b"\xff.json"
    with open(name, "w", encoding="utf-8") as file:
        file.write(TEXT.replace('"model":"', '"model":"\u202e'))
    library = RecordLibrary([tmp_path], MOST)
    (place,) = library.listed()
    assert place.shown.endswith("/\\u202ea\\udcff.json")
    assert library.described(place.id).model.startswith("\\u202e")


# --- read by a process of its own -----------------------------------------------------------


def asked(work: Callable[[Records], Awaitable[None]], *places: Path) -> None:
    async def run() -> None:
        records = Records(Settings(records=places, records_memory=2**30))
        try:
            await work(records)
        finally:
            await records.stop()

    asyncio.run(run())


@pytest.mark.slow
def test_what_reading_a_record_does_the_server_outlives(tmp_path, monkeypatch):
    monkeypatch.setattr(record_process, "MODULE", "tests.support.service_reader")
    monkeypatch.setattr(record_process, "READ_S", 2.0)
    says = {
        "hang": "cannot be read: it took longer than 2 s",
        "kill": "ended by SIGKILL",
        "memory": "it takes too much memory",
        "native": "ended by SIGABRT",
    }
    for name in (*says, "whole"):
        (tmp_path / f"{name}.json").write_text(TEXT)

    async def work(records: Records) -> None:
        listed = {Path(one.path).stem: one for one in await records.entries()}
        assert listed["whole"].kind == "profile"
        for name, said in says.items():
            assert said in listed[name].problem
        process = records._process._child.process
        # They are not tried again while they stay as they are.
        assert [one.path for one in await records.entries()] == sorted(
            one.path for one in listed.values()
        )
        assert records._process._child.process is process
        monkeypatch.setattr(record_process, "MAKE_S", 1.0)
        for _ in range(2):
            with pytest.raises(RecordError, match="it took longer than 1 s"):
                await records.document(listed["hang"].id)
        assert b'"tiny' in await records.document(listed["whole"].id)

    asked(work, tmp_path)


def test_a_comparison_is_made_once_for_all_who_ask(folder, monkeypatch):
    made = []

    async def work(records: Records) -> None:
        first, second = [one.id for one in await records.entries()]
        ask = records._ask

        async def noted(what: str, *rest: object) -> dict[str, object]:
            made.append(what)
            return await ask(what, *rest)

        monkeypatch.setattr(records, "_ask", noted)
        found = await asyncio.gather(*(records.comparison(first, second) for _ in range(40)))
        assert len(set(found)) == 1
        assert made.count("comparison") == 1
        # The other way round is another one; and a file that has changed is read anew.
        assert await records.comparison(second, first) != found[0]
        (folder / "a.json").write_text(TEXT + " ")
        await records.comparison(first, second)
        assert made.count("comparison") == 3
        assert "list" not in made
        monkeypatch.setattr(record_process, "MOST_WAITING", 2)
        many = await asyncio.gather(
            *(records.comparison(first, second) for _ in range(5)), return_exceptions=True
        )
        assert sorted(map(type, many), key=str) == [*[bytes] * 2, *[Crowded] * 3]
        with pytest.raises(record_process.Unknown):
            await records.document("0" * 16)

    asked(work, folder)


def test_without_records_there_is_no_process():
    async def work(records: Records) -> None:
        assert await records.entries() == []
        with pytest.raises(record_process.Unknown):
            await records.document("0" * 16)
        assert records._process._child is None

    asked(work)


def test_a_list_that_takes_long_says_what_was_not_read(folder, monkeypatch):
    monkeypatch.setattr(record_process, "LISTING_S", -1.0)

    async def work(records: Records) -> None:
        assert {one.problem for one in await records.entries()} == {record_process.UNREAD}
        monkeypatch.setattr(record_process, "LISTING_S", 30.0)
        assert {one.problem for one in await records.entries()} == {None}

    asked(work, folder)
