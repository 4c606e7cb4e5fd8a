"""On a node: the files that a driver has sent, in a folder that stays.

Nodes of one machine share the folder that Ray unpacks them into, and each new node unpacks them
anew: the folder of a process that runs already is deleted under it. So each process takes a copy.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from layerbench.errors import WorkerError

DELETED = " (deleted)"
# Of the names that Ray gives the folders of packages.
PACKAGE = "_ray_pkg_"
PATIENCE_S = 30.0
AGAIN_S = 0.2


@cache
def folder() -> str:
    """The folder of the files; where none were sent, the one that this process is in.

    Raises:
        WorkerError: they are not there.
    """
    here = _current()
    if not here.name.startswith(PACKAGE):
        return str(here) if here.is_dir() else str(_new_folder())
    copy = _new_folder()
    ends = time.monotonic() + PATIENCE_S
    while not _copied(here, copy):
        if time.monotonic() > ends:
            raise WorkerError(f"the files that were sent to this node are not in {here}")
        time.sleep(AGAIN_S)
    return str(copy)


def _new_folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="layerbench-sent-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _current() -> Path:
    """Where this process is, be the folder there or not."""
    try:
        return Path(os.getcwd())
    except FileNotFoundError:
        return Path(os.readlink("/proc/self/cwd").removesuffix(DELETED))


def _copied(source: Path, target: Path) -> bool:
    """Copy a folder, while nobody unpacks it; whether it was whole all the time."""
    lock = FileLock(f"{source}.zip.lock", timeout=PATIENCE_S)
    # Ray holds it meanwhile. Where it is another's, the look at the folder has to do.
    with suppress(OSError, Timeout):
        lock.acquire()
    try:
        before = source.stat().st_ino
        shutil.copytree(source, target, dirs_exist_ok=True)
        return source.stat().st_ino == before
    except (OSError, shutil.Error):
        return False
    finally:
        lock.release()
