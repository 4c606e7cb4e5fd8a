"""The verbs on a cluster of nodes on this machine: each has a device, and the locks of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from layerbench.records.cluster_nodes import ClusterNodes
from layerbench.records.detection_estimate import DetectionEstimates
from layerbench.records.device_sweeps import DeviceSweeps
from layerbench.records.sweep import Sweep
from layerbench.records.timing import Profile
from layerbench.store import reading
from tests.support import postgresql
from tests.support.paths import ROOT
from tests.support.ray_cluster import RayCluster
from tests.support.service_process import server
from tests.support.serving import question

pytestmark = pytest.mark.slow

MODELS = """
import os
import signal
import time

from torch import nn

from parts import WIDTH


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, WIDTH))


class Slow(nn.Linear):
    def forward(self, x):
        print("a model may print")
        time.sleep(0.02)
        return super().forward(x.flatten(1))


class Killed(nn.Module):
    def forward(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


def slow():
    return Slow(3072, WIDTH)


def killed():
    return Killed()
"""
# Many more seconds than a point takes: noise shall not end a climb.
QUICK = ("--seconds", "20", "--sizes", "32", "-q")
WITHIN_S = 200.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes, ``one`` and ``two``."""
    with RayCluster(tmp_path_factory.mktemp("locks")) as made:
        made.add("one")
        made.add("two")
        yield made


@pytest.fixture
def folder(tmp_path):
    """A folder with a space in its name, and models in it."""
    made = tmp_path / "my models"
    made.mkdir()
    (made / "tiny.py").write_text(MODELS)
    (made / "parts.py").write_text("WIDTH = 10\n")
    return made


class Driver:
    """A command line of layerbench that runs in a folder."""

    def __init__(self, folder: Path, *words: str, **variables: str) -> None:
        self.words = words
        self.process = subprocess.Popen(
            [sys.executable, "-m", "layerbench", *words],
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background may have interrupts ignored, for all below.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def end(self) -> tuple[int, str, str]:
        """Its status, what it printed and complained about, but for nodes that take long."""
        out, err = self.process.communicate(timeout=WITHIN_S)
        lines = [line for line in err.splitlines(keepends=True) if not line.startswith("waiting: ")]
        return self.process.returncode, out, "".join(lines)


def wait_for(said) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + WITHIN_S
    while not said():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.05)


def noted(out: Path) -> list[dict[str, object]]:
    """The lines of the journal."""
    path = out / "cluster.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measuring(cluster: RayCluster) -> list[psutil.Process]:
    """Processes of the cluster that measure: children of those that fork."""
    found: list[psutil.Process] = []
    for process in psutil.Process(cluster.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "layerbench.cluster.fork_server" in process.cmdline():
                found += process.children()
    return found


def test_nodes_and_their_devices_are_listed(cluster, folder):
    status, _, err = Driver(folder, "cluster", cluster.address, "--out", "out").end()
    assert (status, err) == (0, "")
    record = reading.read(folder / "out/cluster.json", ClusterNodes)
    assert sorted(node.labels for node in record.nodes) == [("one",), ("two",)]
    assert [node.problem for node in record.nodes] == ["", ""]
    assert all(node.devices[0].kind == "cpu" for node in record.nodes)


def test_timer_on_two_devices_where_a_model_kills_its_process(cluster, folder):
    words = ["timer", "tiny.py:killed", "tiny.py:make", "--input", "cifar100", "--w", "True"]
    words += ["--iterations", "2", "--warmup", "0", "--no-ceilings", "--threads", "1"]
    words += ["--cluster", cluster.address, "--devices", "one,two", "--out", "out", "-q"]
    status, out, err = Driver(folder, *words).end()
    assert status == 2
    assert sorted(err.splitlines()) == [
        f"tiny.py:killed on cifar100, {column}: not measured: "
        "its process was ended by signal 9 (out of memory, perhaps)"
        for column in ("one", "two")
    ]
    places = sorted((folder / "out").rglob("*.json"))
    assert all(str(path.relative_to(folder)) in out for path in places)
    records = [reading.read(path, Profile) for path in places]
    assert [record.workload.model for record in records] == ["tiny.py:make"] * 2
    assert [file.path for file in records[0].environment.sent] == ["tiny.py"]
    status, said, err = Driver(folder, "compare", *map(str, places)).end()
    assert (status, err) == (0, "")
    assert "tiny.py:make" in said


def test_a_sweep_goes_on_while_a_node_dies_and_one_joins_and_a_driver_is_killed(cluster, folder):
    """Of one sweep: the driver is killed, then another one goes on with it."""
    batches = [1, 2, 3, 4, 5, 6, 7, 8]
    words = ["sweep", "--models", "tiny.py:slow", "--batches", ",".join(map(str, batches)), *QUICK]
    words += ["--seconds", "2", "--cluster", cluster.address, "--out", "out"]
    out = folder / "out"
    first = Driver(folder, *words)
    wait_for(lambda: len(noted(out)) >= 2)
    first.process.kill()
    first.end()
    before = noted(out)
    assert len(before) < len(batches)

    second = Driver(folder, *words, "--resume")
    wait_for(lambda: len(noted(out)) > len(before))
    cluster.kill("two")
    cluster.add("third")
    status, _, err = second.end()
    assert (status, noted(out)[: len(before)]) == (0, before)
    assert [
        line for line in err.splitlines() if "has joined" not in line and "is gone" not in line
    ] == []
    # A point that a driver has killed in the middle may have been noted by none.
    assert Counter(line["name"] for line in noted(out)) == Counter(
        f"tiny.py:slow at 32, batch {batch}" for batch in batches
    )
    (column,) = reading.read(out / "sweep_devices.json", DeviceSweeps).columns
    assert [point.batch for point in column.sweep.points] == batches
    assert column.missing == ()
    (alone,) = out.glob("*/sweep.json")
    assert reading.read(alone, Sweep) == column.sweep
    for line in noted(out):
        assert reading.read(out / line["files"][0], Sweep).points


def test_an_interrupt_ends_what_runs_everywhere_and_reports_what_there_is(cluster, folder):
    words = ["sweep", "--models", "tiny.py:make,tiny.py:slow", "--batches", "1", *QUICK]
    words += ["--cluster", cluster.address, "--devices", "one,third", "--out", "out"]
    variables = {"LAYERBENCH_SWEEP_SECONDS": "300"}
    words = [word for word in words if word not in QUICK[:2]]
    driver = Driver(folder, *words, **variables)
    wait_for(lambda: len(measuring(cluster)) == 2)
    driver.process.send_signal(signal.SIGINT)
    status, _, err = driver.end()
    assert status == 130, err
    assert err.splitlines() == ["interrupted: the report is of what was measured up to then"]
    reading.read(folder / "out/sweep_devices.json", DeviceSweeps)
    wait_for(lambda: not measuring(cluster))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cluster", "127.0.0.1:1"], "no cluster answers at 127.0.0.1:1 (Connection refused)"),
        (["--device", "cpu"], "--device is of this machine: name the cluster's with --devices"),
        (["--resume"], "--resume goes on with the records of a folder: name it with --out"),
        (["--cluster", "nonsense"], "--cluster takes auto, HOST:6379 or ray://HOST:10001, got"),
        (["--runs", "x"], "--runs is for sweeps of this machine"),
    ],
)
def test_what_cannot_be_meant_is_told_in_a_line(cluster, folder, words, says):
    usual = ["sweep", "--models", "tiny.py:make", "--batches", "1", *QUICK]
    status, out, err = Driver(folder, *usual, "--cluster", cluster.address, *words).end()
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {says}")
    assert err.count("\n") == 1


def test_another_port_of_the_cluster_is_told(cluster, folder):
    status, _, err = Driver(folder, "cluster", f"ray://{cluster.address}").end()
    assert status == 2
    assert err.startswith(f"error: at {cluster.address} is the cluster itself: say ")


def test_a_detector_is_estimated_on_a_node(cluster, folder):
    words = ["estimate", "detection", "--models", "ssdlite320_mobilenet_v3_large", "-q"]
    words += ["--batch", "2", "--size", "64", "--min-size", "64", "--samples", "4", "--epochs", "1"]
    words += ["--warmup", "0", "--steps", "2", "--seconds", "0", "--no-content", "--no-memory"]
    words += ["--cluster", cluster.address, "--devices", "one", "--out", "out"]
    status, _, err = Driver(folder, *words).end()
    assert (status, err) == (0, "")
    (report,) = (folder / "out").glob("*/detection_*.json")
    record = reading.read(report, DetectionEstimates)
    assert [row.model for row in record.rows] == ["ssdlite320_mobilenet_v3_large"]


def test_the_zoo_is_spread_over_the_nodes(cluster):
    words = ["--only", "squeezenet1_0", "--no-memory", "--cluster", cluster.address]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.zoo", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=True,
    )
    assert "1 of 1" in done.stdout
    assert "failed" not in done.stdout


def test_the_service_measures_on_a_node_what_names_its_device(cluster, tmp_path):
    variables = {
        "LAYERBENCH_SERVE_CLUSTER": cluster.address,
        "LAYERBENCH_SERVE_SECONDS": "0",
        "LAYERBENCH_SERVE_CHILD": "layerbench.service.worker.process",
    }
    asked = {**question("squeezenet1_1", device="CPU"), "batch_size": 1, "image_size": [32, 32]}
    asked |= {"application_type": "inference", "parameters": None}
    # Both as several servers of a team have them: nodes to measure on, and one database.
    store = postgresql.store()
    with server(tmp_path, log=tmp_path / "log", database=store, **variables) as (_, url):
        wait_for(lambda: httpx.get(f"{url}/api/v1/server", timeout=60).json()["cluster"])
        answer = httpx.post(f"{url}/api/v1/estimate-inference-time", json=asked, timeout=WITHIN_S)
        assert answer.status_code == 200, answer.text
        about = answer.json()["about"]
        assert about["environment"]["device"]["slug"] == about["device"]
        assert "measured" in about["method"].values()
    ((content,),) = postgresql.server().run("SELECT question FROM results", store)
    assert json.loads(str(content))["architecture"] == "squeezenet1_1"
