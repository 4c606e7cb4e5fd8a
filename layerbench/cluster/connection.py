"""The connection to a Ray cluster. Loads no torch."""

from __future__ import annotations

import os
import socket
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
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if files is not None:
        settings["runtime_env"] = {"working_dir": str(files)}
    if local and not address.startswith(CLIENT):
        settings["_node_ip_address"] = "127.0.0.1"
    try:
        ray.init(address if address.startswith(CLIENT) else place, **settings)
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"cannot join the cluster at {address}: {first_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


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
        raise UsageError(f"this machine is part of no Ray cluster: {HOW_TO_START}") from None


def _reach(address: str, place: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        at = place if address == AUTO else address
        raise UsageError(f"no cluster answers at {at} ({reason}): {HOW_TO_START}") from None
