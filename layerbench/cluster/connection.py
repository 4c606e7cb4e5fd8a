"""The connection to a Ray cluster. Loads no torch."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerbench.errors import UsageError, first_line

AUTO = "auto"
CLIENT = "ray://"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A machine that is there answers sooner.
REACH_S = 5.0
HEALTH = "/grpc.health.v1.Health/Check"
HOW_TO_START = (
    "start one with `ray start --head`, join further machines with `ray start --address HOST:6379`"
)


@contextmanager
def connected(address: str, files: Path | None = None) -> Iterator[Any]:
    """Ray, connected to a cluster while the block runs.

    Args:
        address: ``auto`` (the cluster that this machine is part of), ``HOST:6379``, or
            ``ray://HOST:10001`` from outside of the cluster.
        files: a folder that goes to every node; tasks run in a copy of it.

    Raises:
        UsageError: there is no cluster, or it cannot be reached, or its version of Ray or Python
            is another one.
    """
    # Nobody has asked for reports of use to Ray's makers; whoever wants them sets it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address, place = _place_of(address)
    local = place.partition(":")[0] in LOOPBACK
    if local:
        # Else Ray takes the machine's outer address for it, where such a cluster does not listen.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    _reach(address, place)
    ray = _imported()
    _check_service(address, place)
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if files is not None:
        settings["runtime_env"] = {"working_dir": str(files)}
    if local and not address.startswith(CLIENT):
        settings["_node_ip_address"] = "127.0.0.1"
    try:
        ray.init(address if address.startswith(CLIENT) else place, **settings)
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"cannot join the cluster at {address}: {_reason(error)}") from None
    _quiet()
    try:
        yield ray
    finally:
        ray.shutdown()


def _quiet() -> None:
    """Ray prints on standard output what it notices of nodes: reports are there, and we say it."""
    worker = sys.modules.get("ray._private.worker")
    if hasattr(worker, "print_to_stdstream"):
        vars(worker)["print_to_stdstream"] = lambda *_, **__: None


def _reason(error: BaseException) -> str:
    """The first line of an error, or the last where the first one only announces a traceback."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return more[-1] if more and first.endswith(":") else first_line(error)


def _imported() -> Any:  # noqa: ANN401 - a module
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--cluster needs Ray: pip install 'layerbench[cluster]' here and on every node"
        ) from None
    except Exception as error:
        # amdsmi does so on machines without AMD's libraries.
        raise UsageError(
            f"Ray cannot be imported ({first_line(error)}): pip uninstall amdsmi, if that is it"
        ) from None
    return ray


def _place_of(address: str) -> tuple[str, str]:
    """The address, or the one that the environment says; and its ``HOST:PORT``."""
    named = "--cluster"
    if address == AUTO:
        named, address = "RAY_ADDRESS", os.environ.get("RAY_ADDRESS", "").strip() or AUTO
    if address != AUTO:
        host, colon, port = address.removeprefix(CLIENT).rpartition(":")
        if not (colon and host and port.isdigit()):
            raise UsageError(f"{named} takes auto, HOST:6379 or ray://HOST:10001, got {address!r}")
        return address, f"{host}:{port}"
    # Where `ray start` writes it.
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    try:
        return AUTO, (folder / "ray" / "ray_current_cluster").read_text().strip()
    except OSError:
        _imported()  # without Ray, its own command could not start one
        raise UsageError(f"this machine is part of no Ray cluster: {HOW_TO_START}") from None


def _check_service(address: str, place: str) -> None:
    """Whether what listens there is what the address says. Ray itself would try for minutes.

    A cluster answers gRPC's question after its health. What `ray://` is for does not know it.

    Raises:
        UsageError: it is something else.
    """
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return
    try:
        grpc = importlib.import_module("grpc")
    except ImportError:
        return
    settings = [("grpc.enable_http_proxy", 0)]
    try:
        with grpc.insecure_channel(place, options=settings) as channel:
            channel.unary_unary(HEALTH)(b"", timeout=REACH_S)
        says = "OK"
    except grpc.RpcError as error:
        says = error.code().name
    client = address.startswith(CLIENT)
    if says in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        raise UsageError(f"what answers at {place} is no Ray cluster: {HOW_TO_START}")
    if client and says == "OK":
        raise UsageError(
            f"at {place} is the cluster itself: say {place} on its machines, and the port of "
            "ray:// (10001) elsewhere"
        )
    if not client and says == "UNIMPLEMENTED":
        raise UsageError(
            f"what answers at {place} is no Ray cluster; if it is the port for machines outside "
            f"of one, say {CLIENT}{place}"
        )


def _reach(address: str, place: str) -> None:
    """Look whether anything listens there. Ray itself would try for minutes."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        at = place if address == AUTO else address
        raise UsageError(f"no cluster answers at {at} ({reason}): {HOW_TO_START}") from None
