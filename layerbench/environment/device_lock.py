"""The lock that a measurement of a device holds, and why none would get it. Loads no torch.

Command lines, the service and the tasks of a cluster take the same one: whatever measures on a
device of this machine waits for what measures there already.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

# Whoever measures on the machine has to be able to open it.
MODE = 0o666
FOLDER = "LAYERBENCH_LOCKS"
"""The variable that names the folder of the locks; without it they lie among temporary files."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def lock_path(
    device: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> Path:
    """The file of a device's lock, the same for every process of the machine.

    Args:
        device: as PyTorch calls it: ``cpu``, ``cuda:0``.
        folder: of the locks; ``None`` for the usual one.
        variables: the environment, in which some GPUs may be hidden; ``None`` for this process's.

    Example:
        >>> lock_path("cuda:1", Path("/locks"), {"CUDA_VISIBLE_DEVICES": "4,6"}).as_posix()
        '/locks/layerbench-cuda-6.lock'
    """
    variables = os.environ if variables is None else variables
    folder = folder or Path(variables.get(FOLDER) or tempfile.gettempdir())
    return folder / f"layerbench-{_place(device, variables).replace(':', '-')}.lock"


def _place(device: str, variables: Mapping[str, str]) -> str:
    """A GPU by the number that it has where none is hidden."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return kind
    shown = [one.strip() for one in variables.get(VISIBLE, "").split(",") if one.strip()]
    index = int(number or 0)
    # GPU-5f3e... where they are told by their own names.
    return f"{kind}:{shown[index] if kind == 'cuda' and index < len(shown) else index}"


@contextmanager
def held(device: str, tell: Callable[[str], object]) -> Iterator[None]:
    """Measure while no other process of this machine measures on the device.

    Args:
        device: as for `lock_path`.
        tell: hears, in one line, that the device is waited for, or that the lock cannot be taken;
            then the block runs without it.
    """
    path = lock_path(device)
    lock = lock_of(path)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tell(f"waiting: another process measures on {device}, by the lock {path}")
            lock.acquire()
    except OSError as error:
        tell(f"{cannot_be_taken(path, error)}; others may measure at the same time")
    try:
        yield
    finally:
        lock.release()


def lock_of(path: Path, timeout: float = -1) -> FileLock:
    """A lock file of a device; by default it is waited for."""
    return FileLock(path, timeout=timeout, mode=MODE)


class DeviceLock:
    """Why no measurement would get the device.

    Attributes:
        missed: whether the last measurement that waited for the device ended without it.
    """

    def __init__(self) -> None:
        self.missed = False

    def complaint(self, path: Path) -> str | None:
        """Why a measurement could not begin, asked while none of this server runs.

        A lock that is held is a reason only if a measurement has waited for it in vain: servers of
        one machine take turns.
        """
        try:
            with lock_of(path, timeout=0):
                self.missed = False
        except Timeout:
            return held_by_another(path) if self.missed else None
        except OSError as error:
            return cannot_be_taken(path, error)
        return None


def held_by_another(path: Path) -> str:
    """That a measurement waited for the lock until its time was over."""
    return f"another process holds the device, by the lock {path}: a measurement waited in vain"


def cannot_be_taken(path: Path, error: OSError) -> str:
    """That the lock's file cannot be opened or made."""
    return f"the lock of the device cannot be taken, {path}: {error.strerror or error}"
