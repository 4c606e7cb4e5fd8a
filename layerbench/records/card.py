"""A GPU as its data sheet describes it. No torch."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from layerbench.records.bounds import Name, Positive, Rate, Text
from layerbench.records.workload import Frozen

Format = Literal["fp64", "fp32", "tf32", "fp16", "bf16"]
"""A format of numbers that products are computed in."""

# What people write before or behind a card's name, and it says nothing.
_MAKERS = re.compile(r"\b(nvidia|geforce|tesla|quadro|gpu)\b")


def plain_name(name: str) -> str:
    """A card's name without all that people spell in several ways."""
    return re.sub(r"[^a-z0-9]", "", _MAKERS.sub("", name.lower()))


class Card(Frozen):
    """What is predicted of a GPU comes from these figures.

    Attributes:
        name: as options take it.
        title: as its maker writes it.
        aliases: other names for it.
        capability: CUDA's compute capability, such as ``8.6``.
        multiprocessors: streaming multiprocessors.
        clock_hz: the highest clock that the data sheet's FLOP/s are stated at.
        memory_bytes: as CUDA reports it, which is a little less than what is sold.
        memory_clock_hz: as CUDA reports it: half of the transfers on a line in a second.
        bus_bits: lines to the memory.
        bandwidth: bytes in a second to and from the memory.
        l2_bytes: of the cache that all multiprocessors share.
        flops: of dense products in a second by format; a format that is not here is not computed
            in by the card. Half precision is summed in float32.
        power_w: the board's limit.
        sources: where the figures are from, by what they are.
    """

    name: Name
    title: Text
    aliases: tuple[Name, ...] = ()
    capability: str = Field(pattern=r"^\d+\.\d$")
    multiprocessors: Positive
    clock_hz: Rate
    memory_bytes: Positive
    memory_clock_hz: Rate
    bus_bits: Positive
    bandwidth: Rate
    l2_bytes: Positive
    flops: dict[Format, Rate] = Field(min_length=1)
    power_w: Rate | None = None
    sources: dict[Name, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_capability(self) -> Card:
        if "fp32" not in self.flops:
            raise ValueError("flops has no fp32")
        _ = self.limits
        return self

    def is_named(self, name: str) -> bool:
        """Whether this is one of its names, however it is spelled."""
        names = (self.name, self.title, *self.aliases)
        return plain_name(name) in {plain_name(one) for one in names}

    @property
    def version(self) -> tuple[int, int]:
        """The compute capability as numbers."""
        major, _, minor = self.capability.partition(".")
        return int(major), int(minor)

    @property
    def limits(self) -> Limits:
        """What each multiprocessor bears, which the compute capability decides.

        Raises:
            ValueError: the capability is not in the table.
        """
        try:
            return _LIMITS[self.capability]
        except KeyError:
            known = ", ".join(_LIMITS)
            raise ValueError(
                f"compute capability {self.capability} is not known: {known}"
            ) from None


class Limits(Frozen):
    """What one multiprocessor bears.

    Source: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".

    Attributes:
        threads, blocks: at a time.
        shared_bytes: of its shared memory.
        shared_bytes_block: of it one block can have, where it asks for more than 48 KiB.
        reserved_bytes: of it each block has for the system.
        cores: that multiply and add in float32 in each clock.
    """

    threads: Positive
    blocks: Positive
    shared_bytes: Positive
    shared_bytes_block: Positive
    reserved_bytes: int
    cores: Positive


_KIB = 1024
_LIMITS = {
    capability: Limits(
        threads=threads,
        blocks=blocks,
        shared_bytes=shared * _KIB,
        shared_bytes_block=block * _KIB,
        reserved_bytes=reserved * _KIB,
        cores=cores,
    )
    for capability, threads, blocks, shared, block, reserved, cores in (
        ("7.0", 2048, 32, 96, 96, 0, 64),
        ("7.5", 1024, 16, 64, 64, 0, 64),
        ("8.0", 2048, 32, 164, 163, 1, 64),
        ("8.6", 1536, 16, 100, 99, 1, 128),
        ("8.9", 1536, 24, 100, 99, 1, 128),
        ("9.0", 2048, 32, 228, 227, 1, 128),
        ("10.0", 2048, 32, 228, 227, 1, 128),
        ("10.3", 2048, 32, 228, 227, 1, 128),
        ("12.0", 1536, 24, 100, 99, 1, 128),
        ("12.1", 1536, 24, 100, 99, 1, 128),
    )
}
