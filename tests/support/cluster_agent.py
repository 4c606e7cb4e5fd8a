"""Stands for `layerbench.cluster.agent`: the nodes are those of a file, and tasks run here.

``python -m tests.support.cluster_agent FILE``: the file holds nodes by name, each with the names of
its device; it is read again and again, so that a test lets nodes come and go.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from layerbench.cluster import service_process

LOOK_S = 0.05
# A node is this process here, and not the one that started it.
service_process.node_variables = lambda: dict(os.environ)  # type: ignore[assignment]


class Agent:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.saying = threading.Lock()
        self.cancelled: set[str] = set()

    def nodes(self) -> dict[str, list[str]]:
        return json.loads(self.path.read_text())

    def say(self, **message: Any) -> None:
        with self.saying:
            print(json.dumps(message), flush=True)

    def watch(self) -> None:
        told = None
        while True:
            slots = [
                {"node": node, "title": node, "place": "cpu", "name": names[0], "names": names}
                for node, names in self.nodes().items()
            ]
            if slots != told:
                self.say(slots=[{**slot, "torch": "2.14.1"} for slot in slots])
                told = slots
            time.sleep(LOOK_S)

    def run(self, id: str, node: str, order: dict[str, Any]) -> None:
        for line in service_process.lines(order, tick=True):
            if node not in self.nodes():
                self.say(of=id, gone="it was killed")
                return
            if id in self.cancelled:
                return
            if line:
                self.say(of=id, **line)


def main() -> None:
    if not Path(sys.argv[1]).exists():
        print(json.dumps({"refused": f"no cluster answers at {sys.argv[1]}"}), flush=True)
        sys.exit(2)
    agent = Agent(Path(sys.argv[1]))
    threading.Thread(target=agent.watch, daemon=True).start()
    for line in sys.stdin:
        asked = json.loads(line)
        if "cancel" in asked:
            agent.cancelled.add(asked["cancel"])
        else:
            values = (asked["run"], asked["node"], asked["order"])
            threading.Thread(target=agent.run, args=values, daemon=True).start()


if __name__ == "__main__":
    main()
