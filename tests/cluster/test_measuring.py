"""The process that forks, as its owner sees it, and what is in the environment of both."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from layerbench.cluster import measuring
from layerbench.cluster.measuring import ForkServer
from layerbench.errors import WorkerError

# As the real one, but for what it loads: each order is a Python statement of the child.
SERVER = """
import json, os, sys

print(json.dumps({"loaded": os.getpid()}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if order.get("silent"):
        continue
    child = os.fork()
    if child == 0:
        os.setsid()
        exec(order["code"])
        os._exit(0)
    print(json.dumps({"begun": child}), flush=True)
    _, status = os.waitpid(child, 0)
    print(json.dumps({"ended": os.waitstatus_to_exitcode(status)}), flush=True)
"""


@pytest.fixture
def started(tmp_path):
    """``started(code)``: a server of this code; the usual one where none is given."""
    servers: list[ForkServer] = []

    def start(code: str = SERVER) -> ForkServer:
        package = tmp_path / "layerbench" / "cluster"
        package.mkdir(parents=True, exist_ok=True)
        (package / "fork_server.py").write_text(code)
        for folder in (package, package.parent):
            (folder / "__init__.py").write_text("")
        servers.append(ForkServer({**os.environ, "PYTHONPATH": str(tmp_path)}))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def interrupted(server: ForkServer, order: dict[str, object], path: Path | None = None) -> None:
    """Run an order that is interrupted once the file is there, as Ray interrupts a task."""

    def interrupt() -> None:
        while path is not None and not path.exists():
            pass
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Timer(0.05, interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            server.run(order)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_an_order_gives_the_status_of_its_child(started):
    server = started()
    statuses = ["pass", "os._exit(3)", "os.kill(os.getpid(), 9)", "pass"]
    assert [server.run({"code": code}) for code in statuses] == [0, 3, -9, 0]
    assert server.alive


def test_an_interrupt_ends_the_child_and_the_next_order_has_its_own_answers(started, tmp_path):
    server = started()
    path = tmp_path / "pid"
    code = (
        "import pathlib, time\n"
        f"made = pathlib.Path({str(tmp_path / 'new')!r})\n"
        "made.write_text(str(os.getpid()))\n"
        f"made.rename({str(path)!r})\n"
        "time.sleep(600)"
    )
    interrupted(server, {"code": code}, path)
    assert not psutil.pid_exists(int(path.read_text()))
    assert server.alive
    assert server.run({"code": "os._exit(3)"}) == 3


def test_an_interrupt_before_a_child_has_begun_ends_the_server(started):
    server = started()
    interrupted(server, {"silent": True})
    assert not server.alive


def test_a_server_that_cannot_load_says_why(started):
    with pytest.raises(WorkerError, match="ended: RuntimeError: no such library"):
        started("raise RuntimeError('no such library')")


def test_a_server_that_says_nothing_while_it_loads_is_ended(started, monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "LOADING_S", 0.3)
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    with pytest.raises(WorkerError, match=r"said nothing for 0.3 s"):
        started(f"{code}time.sleep(600)")
    written = tmp_path / "pid"
    assert not written.exists() or not psutil.pid_exists(int(written.read_text()))


def test_the_users_files_shadow_nothing_that_the_server_loads(monkeypatch):
    sent = "/sessions/one/working_dir_files/_ray_pkg_0123456789abcdef"
    variables = {"PYTHONPATH": os.pathsep.join([sent, "/other"]), "HOME": "/root"}
    monkeypatch.setattr(measuring, "node_variables", lambda: variables)
    home = str(Path(measuring.__file__).parents[2])
    monkeypatch.setattr(measuring, "HOME", Path(home))
    assert measuring._variables() == {
        "PYTHONPATH": os.pathsep.join(["/other", home]),
        "HOME": "/root",
    }
    # Where it is installed, Python finds it, and what lies beside it would come before Python's.
    monkeypatch.setattr(measuring, "HOME", Path("/usr/lib/site-packages"))
    assert measuring._variables()["PYTHONPATH"] == "/other"


def test_a_nodes_own_options_of_the_verb_do_not_count():
    variables = {
        "LAYERBENCH_SWEEP_CLUSTER": "auto",
        "LAYERBENCH_SWEEP_SECONDS": "1",
        "LAYERBENCH_TIMER_SEED": "2",
        "LAYERBENCH_LOCKS": "/locks",
    }
    left = measuring._without_options(variables, ["sweep", "--seconds=3"])
    assert set(left) == {"LAYERBENCH_TIMER_SEED", "LAYERBENCH_LOCKS"}
    assert measuring._without_options(variables, []) == variables
