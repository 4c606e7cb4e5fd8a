"""Connections to a server of this machine that send slowly, or nothing, for some seconds.

A third sends nothing, a third half a header and then a byte a second, a third half a body. One that
the server closes is opened again, at most `AGAIN` a second. Ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import selectors
import socket
import time
from itertools import cycle

HEAD = b"POST /api/v1/estimate-resource HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY = b"POST /api/v1/estimate-resource HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
AGAIN = 200
MOST = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    count = min(given.count, MOST)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 64), hard))
    selector = selectors.DefaultSelector()
    kinds = cycle((b"", HEAD, BODY))
    held: dict[socket.socket, bytes] = {}
    ends = time.monotonic() + given.seconds
    closed = opened = 0
    told = False
    while time.monotonic() < ends:
        second = time.monotonic() + 1.0
        # The first ones at once; then those that were closed.
        for _ in range(min(count - len(held), AGAIN if opened >= count else count)):
            kind = next(kinds)
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", given.port), timeout=1.0)
                connection.setblocking(False)
                connection.send(kind)
                held[connection] = kind
                selector.register(connection, selectors.EVENT_READ)
                opened += 1
        if not told:
            told = True
            print("open", flush=True)
        while (left := second - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                # An answer, a refusal or the end: this one is over.
                closed += _end(selector, held, key.fileobj)
        for connection in [one for one, kind in held.items() if kind == HEAD]:
            try:
                connection.send(b"x")
            except OSError:
                closed += _end(selector, held, connection)
    print(f"opened {opened}, closed by the server {closed}, held at the end {len(held)}")


def _end(
    selector: selectors.BaseSelector, held: dict[socket.socket, bytes], connection: object
) -> int:
    assert isinstance(connection, socket.socket)
    selector.unregister(connection)
    connection.close()
    del held[connection]
    return 1


if __name__ == "__main__":
    main()
