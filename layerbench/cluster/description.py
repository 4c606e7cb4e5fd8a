"""``python -m layerbench.cluster.description``: what a node has, as JSON. Loads torch."""

from __future__ import annotations

import json
import platform
from typing import Any

from layerbench._version import __version__
from layerbench.environment import cards, devices
from layerbench.environment.software import package_versions


def described() -> dict[str, Any]:
    """Devices of this machine with the names that a user may call them by, and versions."""
    return {
        "layerbench": __version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "devices": [_device(name) for name in devices.names()],
    }


def _device(name: str) -> dict[str, Any]:
    info = devices.get(name).describe()
    card = cards.find(info.name)
    return {
        "place": name,
        "kind": info.kind,
        "name": info.name,
        "slug": info.slug,
        "card": None if card is None else card.name,
    }


if __name__ == "__main__":
    print(json.dumps(described()))
