"""What the environment says of how the service runs: ``LAYERBENCH_SERVE_*``.

Loads no torch.
"""

from __future__ import annotations

from typing import Any

import psutil
from pydantic_settings import BaseSettings, SettingsConfigDict

from layerbench.errors import UsageError
from layerbench.records.options import checked
from layerbench.service.web.options import ServiceOptions
from layerbench.text import one_line

# That every machine has.
ALWAYS_THERE = (None, "", "auto", "cpu")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
PREFIX = "LAYERBENCH_SERVE_"
KEY_VARIABLE = f"{PREFIX}API_KEY"
# Of the host's memory, for a measuring process.
HOST_SHARE = 0.8
# Of that, beside it, for the process that works out structures; and what it needs to begin.
STRUCTURE_SHARE = 0.2
STRUCTURE_FEWEST = 2 * 2**30


class Settings(BaseSettings, ServiceOptions):
    """`ServiceOptions`; fields that are not passed are read from the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    @property
    def device_may_be_missing(self) -> bool:
        """Whether a device is named that not every machine has."""
        return self.device not in ALWAYS_THERE

    @property
    def memory_bytes(self) -> int:
        """That a measuring process may take."""
        return self.memory or int(HOST_SHARE * psutil.virtual_memory().total)

    @property
    def structure_bytes(self) -> int:
        """That the process which works out structures may take, beside one that measures."""
        share = int(STRUCTURE_SHARE * self.memory_bytes)
        return min(self.memory_bytes, max(STRUCTURE_FEWEST, share))


def settings_of(**fields: Any) -> Settings:  # noqa: ANN401 - of many kinds
    """The settings with these fields; the others are those of the surroundings.

    Raises:
        UsageError: they make no sense; one line.
    """
    try:
        return checked(Settings, fields, lambda name: f"{PREFIX}{name.upper()}")
    except ValueError as error:
        # A variable of the surroundings that should hold a list, and is none.
        raise UsageError(one_line(error)) from None
