"""Requests to a server of this machine that are all sent before the first answer is read.

They are spread over some connections, are of several kinds, some of which are refused, and come
again with a new connection as soon as one was answered. Ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import selectors
import socket
import time
from itertools import cycle, islice

HOST = b"Host: localhost\r\n"
QUESTION = b'{"task_type": "classification", "architecture": "quick"}'
LENGTH = b"Content-Length: %d\r\nContent-Type: application/json\r\n\r\n%b" % (
    len(QUESTION),
    QUESTION,
)
REQUESTS = (
    b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /health/live HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"POST /api/v1/estimate-resource HTTP/1.1\r\n" + HOST + LENGTH,
)
MOST = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("requests", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    count = min(given.connections, MOST)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 64), hard))
    burst = b"".join(islice(cycle(REQUESTS), given.requests // count))
    selector = selectors.DefaultSelector()
    left: dict[socket.socket, memoryview] = {}
    ends = time.monotonic() + given.seconds
    opened = received = 0
    while time.monotonic() < ends:
        for _ in range(count - len(left)):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", given.port), timeout=1.0)
                connection.setblocking(False)
                left[connection] = memoryview(burst)
                selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
                opened += 1
        if opened == count:
            print("open", flush=True)
        for key, events in selector.select(0.1):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                received += _goes_on(selector, left, connection, events)
            except OSError:
                selector.unregister(connection)
                connection.close()
                del left[connection]
    print(f"{opened} connections, {received / 1e6:.1f} MB of answers")


def _goes_on(
    selector: selectors.BaseSelector,
    left: dict[socket.socket, memoryview],
    connection: socket.socket,
    events: int,
) -> int:
    """Send on, and read; the bytes that were read.

    Raises:
        OSError: the connection has ended.
    """
    if events & selectors.EVENT_WRITE:
        left[connection] = left[connection][connection.send(left[connection]) :]
        if not left[connection]:
            selector.modify(connection, selectors.EVENT_READ)
    if not events & selectors.EVENT_READ:
        return 0
    answers = connection.recv(2**16)
    if not answers:
        raise ConnectionResetError
    return len(answers)


if __name__ == "__main__":
    main()
