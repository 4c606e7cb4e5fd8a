from __future__ import annotations

import hashlib
import sys

import pytest

from layerbench.cluster import shipping
from layerbench.cluster.shipping import Parcel
from layerbench.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, empty, with room beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def parcel(tmp_path):
    folder = tmp_path / "sent"
    folder.mkdir()
    return Parcel(folder)


def write(folder, *names: str, text: str = "") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or name)


def sent(parcel: Parcel) -> dict[str, str]:
    """What was put in: contents by place."""
    files = (path for path in parcel.folder.rglob("*") if path.is_file())
    return {path.relative_to(parcel.folder).as_posix(): path.read_text() for path in files}


@pytest.mark.parametrize(
    "value", ["resnet18", "", "timm:vit", "absent.py:make", "absent.pt", "a" * 5000, "a\0b", "."]
)
def test_what_names_no_file_is_left_as_it_is(here, parcel, value):
    assert parcel.add(value) == value
    assert (sent(parcel), parcel.files, parcel.digest) == ({}, [], "")


def test_a_model_goes_with_the_code_beside_and_below_it(here, parcel):
    write(here, "nets/tiny.py", "nets/parts.py", "nets/deep/er/x.py", "other.py", "nets/data.bin")
    assert parcel.add("nets/tiny.py:make") == "nets/tiny.py:make"
    assert set(sent(parcel)) == {"nets/tiny.py", "nets/parts.py", "nets/deep/er/x.py"}
    (file,) = parcel.files
    assert (file.path, file.sha256) == (
        "nets/tiny.py",
        hashlib.sha256(b"nets/tiny.py").hexdigest(),
    )


def test_the_same_words_name_the_same_files_here_and_there(here, parcel):
    write(here, "a b/my net.py", "weights.pt")
    for word in ("a b/my net.py:make", "weights.pt"):
        assert parcel.add(word) == word
        assert parcel.add(f"./{word}") == word
        assert parcel.add(str(here / word)) == word


def test_environments_and_caches_are_left_out(here, parcel):
    write(
        here,
        "tiny.py",
        ".git/x.py",
        "__pycache__/x.py",
        "node_modules/x.py",
        "lib/site-packages/x.py",
        "env/lib/x.py",
        "env/pyvenv.cfg",
    )
    (here / ".#tiny.py").symlink_to("nobody@nowhere")
    parcel.add("tiny.py:make")
    assert set(sent(parcel)) == {"tiny.py"}


def test_files_from_elsewhere_never_take_each_others_places(here, parcel, tmp_path):
    write(here, "net.py", "helper.py", "c/net.py", text="here")
    write(tmp_path / "a", "net.py", "helper.py", text="a")
    write(tmp_path / "b/a", "net.py", "helper.py", text="b")
    write(tmp_path / "c", "net.py", text="c")
    named = [
        parcel.add(f"{place}:make")
        for place in ("net.py", "../a/net.py", str(tmp_path / "b/a/net.py"), "../c/net.py")
    ]
    assert named == ["net.py:make", "a/net.py:make", "a-2/net.py:make", "c-2/net.py:make"]
    assert sent(parcel) == {
        "net.py": "here",
        "helper.py": "here",
        "c/net.py": "here",
        "a/net.py": "a",
        "a/helper.py": "a",
        "a-2/net.py": "b",
        "a-2/helper.py": "b",
        "c-2/net.py": "c",
    }


def test_a_file_of_a_package_brings_the_package(here, parcel, tmp_path):
    write(tmp_path / "project/pkg", "__init__.py", "parts/__init__.py", "parts/layers.py")
    write(tmp_path / "project", "pkg/nets/__init__.py", "setup.py")
    write(tmp_path / "project/pkg", "nets/net.py", text="from ..parts import layers\n")
    assert parcel.add("../project/pkg/nets/net.py:make") == "project/pkg/nets/net.py:make"
    assert set(sent(parcel)) == {
        "project/pkg/__init__.py",
        "project/pkg/parts/__init__.py",
        "project/pkg/parts/layers.py",
        "project/pkg/nets/__init__.py",
        "project/pkg/nets/net.py",
    }


def test_a_file_in_a_hidden_folder_and_one_at_home_are_sent(here, parcel, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(here, ".nets/net.py")
    write(tmp_path / "home", "own.py")
    assert parcel.add(".nets/net.py:make") == ".nets/net.py:make"
    assert parcel.add("~/own.py:make") == "home/own.py:make"
    assert set(sent(parcel)) == {".nets/net.py", "home/own.py"}


def test_weights_keep_their_name_where_they_are_a_link(here, parcel, tmp_path):
    write(tmp_path / "blobs", "12ab")
    (here / "weights.safetensors").symlink_to("../blobs/12ab")
    assert parcel.add("weights.safetensors") == "weights.safetensors"
    assert sent(parcel) == {"weights.safetensors": "12ab"}


def test_too_much_is_refused_before_it_is_copied(here, parcel, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_BYTES", 10)
    write(here, "small.pt", text="12345")
    write(here, "large.pt", text="123456")
    parcel.add("small.pt")
    parcel.add("./small.pt")
    with pytest.raises(UsageError, match=r"large.pt makes the files .* at most 10 B"):
        parcel.add("large.pt")
    assert set(sent(parcel)) == {"small.pt"}


def test_a_model_beside_too_much_code_is_refused(here, parcel, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_CODE", 10)
    write(here, "tiny.py", "more.py")
    with pytest.raises(UsageError, match="more than 10 B of Python files: put the model into a"):
        parcel.add("tiny.py:make")


@pytest.mark.skipif(sys.platform != "linux", reason="a file that nobody can read is Linux's")
def test_a_file_that_cannot_be_read_is_told(here, parcel):
    (here / "mem.pt").symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match=r"cannot read .* to send it: Input/output error"):
        parcel.add("mem.pt")


def test_the_digest_tells_contents_and_places_apart(here, tmp_path):
    def digest(**files: str) -> str:
        folder = tmp_path / f"sent{len(digests)}"
        folder.mkdir()
        for path in here.iterdir():
            path.unlink()
        for name, text in files.items():
            write(here, f"{name}.py", text=text)
        parcel = Parcel(folder)
        parcel.add("net.py:make")
        digests.append(parcel.digest)
        return parcel.digest

    digests: list[str] = []
    usual = digest(net="1", helper="2")
    assert digest(helper="2", net="1") == usual
    assert usual not in (digest(net="1", helper="3"), digest(net="1", other="2"), digest(net="1"))
