"""A cluster of nodes on this machine, driven from standard input.

``python ray_node_script.py``: prints the address, then reads a line a command and answers each with
a line: ``add LABEL [NAME=VALUE ...]`` (with variables of the environment), ``kill LABEL``. The
cluster ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys

import psutil

# Read when Ray is imported. Without the first, nodes ask for the address of the machine.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from ray.cluster_utils import Cluster

MEMORY = 80 * 2**20
SETTINGS = {
    "node_ip_address": "127.0.0.1",
    "object_store_memory": MEMORY,
    "num_cpus": 2,
    "num_gpus": 0,
    "include_dashboard": False,
}


def main() -> None:
    """Serve until standard input ends."""
    cluster = Cluster()
    nodes = {}
    try:
        for line in sys.stdin:
            word, label, *variables = json.loads(line)
            if word == "add":
                added = dict(one.split("=", 1) for one in variables)
                before = {name: os.environ.get(name) for name in added}
                os.environ.update(added)
                nodes[label] = cluster.add_node(resources={label: 1}, **SETTINGS)
                for name, value in before.items():
                    os.environ.pop(name)
                    if value is not None:
                        os.environ[name] = value
            else:
                # As a machine goes: all at once, and nobody is told.
                (raylet,) = nodes.pop(label).all_processes["raylet"]
                parent = psutil.Process(raylet.process.pid)
                for process in (parent, *parent.children(recursive=True)):
                    process.kill()
            print(json.dumps({"address": cluster.address}), flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
