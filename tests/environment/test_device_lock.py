"""Who measures on a device holds its lock: one file, whatever the process calls the device."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from layerbench.cli._progress import measuring
from layerbench.environment import device_lock
from layerbench.environment.device_lock import held, lock_path

HOLDER = """
import sys
from pathlib import Path
from layerbench.environment.device_lock import lock_of, lock_path
with lock_of(lock_path("cpu")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path))


@pytest.mark.parametrize(
    ("device", "variables", "name"),
    [
        ("cpu", {"CUDA_VISIBLE_DEVICES": "3"}, "cpu"),
        ("cuda:0", {}, "cuda-0"),
        ("cuda", {}, "cuda-0"),
        ("mps", {"CUDA_VISIBLE_DEVICES": "3"}, "mps-0"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "3, 5"}, "cuda-3"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "3, 5"}, "cuda-5"),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "7"}, "cuda-7"),
        ("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-5f3e"}, "cuda-GPU-5f3e"),
        ("cuda:2", {"CUDA_VISIBLE_DEVICES": "3"}, "cuda-2"),
    ],
)
def test_a_hidden_gpu_does_not_change_which_lock_is_taken(
    device: str, variables: dict[str, str], name: str, tmp_path: Path
) -> None:
    assert lock_path(device, tmp_path, variables) == tmp_path / f"layerbench-{name}.lock"


def test_a_verb_waits_for_another_process_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told = threading.Event()
        order: list[str] = []

        def measure() -> None:
            with held("cpu", lambda line: (order.append(line), told.set())):
                order.append("measured")

        thread = threading.Thread(target=measure)
        thread.start()
        assert told.wait(30)
        order.append("the other ends")
        holder.stdin.close()
        thread.join(30)
    assert [one.partition(":")[0] for one in order] == ["waiting", "the other ends", "measured"]


def test_the_lock_is_held_within_the_block_and_not_after(tmp_path: Path) -> None:
    other = device_lock.lock_of(lock_path("cpu"), timeout=0)
    with measuring("a title", True, None, "cpu"), pytest.raises(device_lock.Timeout):
        other.acquire()
    with other:
        pass


def test_a_lock_that_cannot_be_made_is_said_and_measuring_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device_lock.FOLDER, str(tmp_path / "absent" / "file" / "below"))
    (tmp_path / "absent").write_text("a file where a folder should be")
    said: list[str] = []
    with held("cpu", said.append):
        said.append("measured")
    assert len(said) == 2
    assert "others may measure at the same time" in said[0]
