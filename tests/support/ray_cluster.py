"""A Ray cluster for tests, in a process of its own: the tests' process never loads Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# `.ci/run` sets it: there a missing Ray is a failure.
REQUIRED = "LAYERBENCH_CLUSTER_REQUIRED"
SCRIPT = Path(__file__).with_name("ray_node_script.py")


class RayCluster:
    """A cluster without nodes; it ends with the block.

    Args:
        locks: a folder; devices of each node have locks of their own, as those of machines do.
    """

    def __init__(self, locks: Path) -> None:
        if importlib.util.find_spec("ray") is None:
            missing = "no Ray: pip install 'layerbench[cluster]'"
            if os.environ.get(REQUIRED):
                pytest.fail(missing)
            pytest.skip(missing)
        self._locks = locks
        # Short, since the paths of its sockets are.
        self._folder = tempfile.mkdtemp(prefix="lb-ray")
        variables = {"RAY_TMPDIR": self._folder, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **variables},
            text=True,
        )
        self.pid = self._process.pid
        self.address = ""

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, label: str, **variables: str) -> None:
        """Start a node that has this label, with variables of the environment."""
        locks = self._locks / label
        locks.mkdir()
        variables = {"LAYERBENCH_LOCKS": str(locks), **variables}
        self._do("add", label, *(f"{name}={value}" for name, value in variables.items()))

    def kill(self, label: str) -> None:
        """End a node as a power failure would."""
        self._do("kill", label)

    def _do(self, *words: str) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        self.address = json.loads(process.stdout.readline())["address"]
