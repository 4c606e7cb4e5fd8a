"""The process that reads records, where reading some of them does what hostile ones might."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from layerbench.records.kinds import Record
from layerbench.service.web import record_reader
from layerbench.store import reading

plain_read = reading.read


def read(path: Path, kind: type[Record]) -> Record:
    if path.stem == "hang":
        time.sleep(1000)
    elif path.stem == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif path.stem == "memory":
        bytearray(4 * 2**30)
    elif path.stem == "native":
        os.abort()
    return plain_read(path, kind)


if __name__ == "__main__":
    reading.read = read
    record_reader.main()
