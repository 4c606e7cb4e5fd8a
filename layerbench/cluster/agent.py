"""``python -m layerbench.cluster.agent ADDRESS``: a cluster for the service's web process.

That one never waits for Ray, and goes on where Ray ends. Both speak in lines of JSON.

==============================================  ======================================
the web process asks                            the agent says
==============================================  ======================================
``{"run": id, "node": ..., "order": {...}}``    ``{"of": id, "line": "..."}`` for each line that the
                                                measuring process says
``{"cancel": id}``                              ``{"of": id, "ended": status, "complaint": "..."}``
..                                              ``{"of": id, "gone": "..."}``: the node is not there
..                                              ``{"slots": [...]}`` whenever nodes come or go
==============================================  ======================================
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from layerbench.cluster import service_process
from layerbench.cluster.connection import connected
from layerbench.cluster.nodes import Prober, alive, last_line, on_node
from layerbench.environment.orphans import end_with_parent
from layerbench.errors import LayerbenchError
from layerbench.records.cluster_nodes import ClusterNode

LOOK_S = 2.0


class Agent:
    """One connection, for as long as standard input is open.

    Args:
        ray: connected.
    """

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - the module
        self._ray = ray
        self._prober = Prober(ray)
        self._measure = ray.remote(num_cpus=0, max_retries=0, num_returns="streaming")(
            service_process.lines
        )
        self._nodes: dict[str, ClusterNode] = {}
        self._running: dict[str, Any] = {}
        self._saying = threading.Lock()

    def serve(self) -> None:
        """Answer until standard input ends."""
        threading.Thread(target=self._watch, daemon=True, name="layerbench nodes").start()
        for line in sys.stdin:
            asked = json.loads(line)
            if "cancel" in asked:
                self._cancel(asked["cancel"])
            else:
                threading.Thread(target=self._run, args=(asked,), daemon=True).start()

    def _say(self, message: Mapping[str, Any]) -> None:
        with self._saying:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    # --- nodes -----------------------------------------------------------------------------

    def _watch(self) -> None:
        told: list[dict[str, Any]] | None = None
        while True:
            there = alive(self._ray)
            self._nodes = {id: node for id, node in self._nodes.items() if id in there}
            asked = {id: self._prober.ask(id) for id in there.keys() - self._nodes.keys()}
            for id, answer in asked.items():
                if (node := self._prober.read(there[id], answer)) is not None:
                    self._nodes[id] = node
            slots = [slot for node in self._nodes.values() for slot in _slots(node)]
            if slots != told:
                self._say({"slots": slots})
                told = slots
            time.sleep(LOOK_S)

    # --- measurements ------------------------------------------------------------------------

    def _run(self, asked: Mapping[str, Any]) -> None:
        from ray import exceptions

        id = asked["run"]
        try:
            place = self._measure.options(scheduling_strategy=on_node(asked["node"]))
            self._running[id] = lines = place.remote(asked["order"])
            for reference in lines:
                self._say({"of": id, **self._ray.get(reference)})
        except exceptions.TaskCancelledError:
            self._say({"of": id, "ended": 1, "complaint": "cancelled"})
        except exceptions.RayTaskError as error:
            self._say({"of": id, "ended": 1, "complaint": last_line(error)})
        except exceptions.RayError as error:
            self._say({"of": id, "gone": str(error).strip().splitlines()[0]})
        finally:
            self._running.pop(id, None)

    def _cancel(self, id: str) -> None:
        if (lines := self._running.get(id)) is not None:
            self._ray.cancel(lines, force=False)


def _slots(node: ClusterNode) -> list[dict[str, Any]]:
    """Its devices, as a question may name them."""
    return [
        {
            "node": node.id,
            "title": node.title,
            "place": device.place,
            "name": device.usual_name,
            "names": [
                device.usual_name,
                device.slug,
                device.name,
                *(["cpu"] if device.kind == "cpu" else []),
                *(node.labels if device in node.usual_devices() else ()),
            ],
            "torch": node.torch,
        }
        for device in node.devices
    ]


def main() -> None:
    """Connect, and serve."""
    end_with_parent()
    try:
        with connected(sys.argv[1]) as ray:
            Agent(ray).serve()
    except LayerbenchError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
