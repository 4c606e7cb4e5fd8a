"""Where a store is: a file, or a database of PostgreSQL, whose password is never shown.

Loads no torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SCHEMES = ("postgresql://", "postgres://")
HIDDEN = "***"
# What is shorter would be found in other words, too, and shown by that.
SHORTEST = 4


def is_postgresql(place: str | Path) -> bool:
    """Whether it is the address of a database rather than a file."""
    return str(place).startswith(SCHEMES)


def shown(place: str | Path) -> str:
    """A place as it may be shown: an address without user, password and parameters."""
    if not is_postgresql(place):
        return os.fspath(place)
    scheme, _, rest = str(place).partition("://")
    # A password may hold what should have been escaped: up to the last @ all is hidden.
    before, at, after = rest.rpartition("@")
    user = before.partition(":")[0]
    return f"{scheme}://{user}{at}{after.partition('?')[0]}"


def without_secrets(message: str, place: str | Path) -> str:
    """A message on a database without what of its address is not `shown`."""
    if not is_postgresql(place):
        return message
    rest = str(place).partition("://")[2]
    secret = rest.rpartition("@")[0].partition(":")[2]
    secrets = {secret, *re.split("[/@:?#]", secret), *re.findall("password=([^&]*)", rest)}
    for one in sorted((one for one in secrets if len(one) >= SHORTEST), key=len, reverse=True):
        message = message.replace(one, HIDDEN)
    return message
