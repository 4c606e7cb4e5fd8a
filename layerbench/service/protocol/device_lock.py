"""The lock that a measurement of a device holds, and why none would get it. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

# Whoever measures on the machine has to be able to open it.
MODE = 0o666


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
