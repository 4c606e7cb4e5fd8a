"""A GPU as its data sheet describes it. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from layerbench.records.bounds import Name, Positive, Rate, Text
from layerbench.records.workload import Frozen

Format = Literal["fp64", "fp32", "tf32", "fp16", "bf16"]
"""A format of numbers that products are computed in."""

# What people write before or behind a card's name, and it says nothing.
_MAKERS = re.compile(r"\b(nvidia|geforce|tesla|quadro|tensor core|gpu)\b")
_SIZE = re.compile(r"\b(\d+) ?gi?b\b")
_GIB = 2**30
# So far is what CUDA reports from what is sold: ECC takes a sixteenth, and the driver some.
_AS_SOLD = 0.1


def plain_name(name: str) -> str:
    """A card's name without all that people spell in several ways."""
    return _MAKERS.sub("", _words(name)).replace(" ", "")


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower())


def _without_size(name: str) -> str:
    return plain_name(_SIZE.sub("", _words(name)))


def _plausible(least: float, most: float, unit: str) -> Any:  # noqa: ANN401 - to be put into `Annotated`
    """Refuses figures that no GPU has: mostly another unit than SI."""

    def checked(value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f"{str(value).lower()} is no number")
        try:
            number = float(value)  # type: ignore[arg-type]
        except OverflowError:  # a whole number of more than 300 digits
            number = inf
        except (TypeError, ValueError):
            return value  # pydantic says what it is not
        if not least <= number <= most:
            raise ValueError(f"{number:g} is not plausible: a GPU has {least:g} to {most:g} {unit}")
        return value

    return BeforeValidator(checked)


def _known(capability: str) -> str:
    _ = limits_of(capability)
    return capability


# By format, how often the float32 cores' products fit into the plausible ones of a whole card.
_TIMES_SINGLE: Mapping[Format, tuple[float, float]] = {
    "fp64": (1 / 256, 4),
    "fp32": (1 / 4, 4),
    "tf32": (1 / 4, 64),
    "fp16": (1 / 4, 128),
    "bf16": (1 / 4, 128),
}
# Bandwidth and what the bus moves agree but for how a clock is counted.
_BUS_FACTOR = 10


class Card(Frozen):
    """What is predicted of a GPU comes from these figures.

    A figure that no GPU has is refused, and FLOP/s far from what the multiprocessors do at their
    clock.

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
    capability: Annotated[Name, AfterValidator(_known)]
    multiprocessors: Annotated[Positive, _plausible(1, 1024, "of them")]
    clock_hz: Annotated[Rate, _plausible(1e8, 1e10, "Hz")]
    memory_bytes: Annotated[Positive, _plausible(1e8, 1e13, "bytes")]
    memory_clock_hz: Annotated[Rate, _plausible(1e8, 1e11, "Hz")]
    bus_bits: Annotated[Positive, _plausible(16, 65_536, "bits")]
    bandwidth: Annotated[Rate, _plausible(1e9, 1e14, "bytes a second")]
    l2_bytes: Annotated[Positive, _plausible(1e5, 1e10, "bytes")]
    flops: dict[Format, Annotated[Rate, _plausible(1e9, 1e18, "FLOP/s")]]
    power_w: Annotated[Rate | None, _plausible(1, 1e4, "W")] = None
    sources: dict[Name, Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _in_agreement(self) -> Card:
        if "fp32" not in self.flops:
            raise ValueError("flops has no fp32")
        single = 2 * self.limits.cores * self.multiprocessors * self.clock_hz
        for name, rate in self.flops.items():
            least, most = (times * single for times in _TIMES_SINGLE[name])
            if not least <= rate <= most:
                raise ValueError(
                    f"flops: {name} of {rate:g} is not plausible: {self.multiprocessors} "
                    f"multiprocessors at {self.clock_hz:g} Hz do {least:.2g} to {most:.2g} FLOP/s"
                )
        moved = 2 * self.memory_clock_hz * self.bus_bits / 8
        if not moved / _BUS_FACTOR <= self.bandwidth <= moved * _BUS_FACTOR:
            raise ValueError(
                f"bandwidth: {self.bandwidth:g} is not plausible: {self.bus_bits} bits at "
                f"{self.memory_clock_hz:g} Hz move about {moved:.2g} bytes a second"
            )
        return self

    def is_named(self, name: str) -> bool:
        """Whether this is one of its names, however it is spelled.

        A size of memory in it, such as ``80GB``, has to be this card's; where the size stands in
        the name does not matter.
        """
        names = (self.name, self.title, *self.aliases)
        if plain_name(name) in map(plain_name, names):
            return True
        sizes = [int(size) * _GIB for size in _SIZE.findall(_words(name))]
        if not sizes or any(abs(size / self.memory_bytes - 1) > _AS_SOLD for size in sizes):
            return False
        return _without_size(name) in map(_without_size, names)

    @property
    def version(self) -> tuple[int, int]:
        """The compute capability as numbers."""
        major, _, minor = self.capability.partition(".")
        return int(major), int(minor)

    @property
    def limits(self) -> Limits:
        """What each multiprocessor bears, which the compute capability decides."""
        return limits_of(self.capability)


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


def limits_of(capability: str) -> Limits:
    """What each multiprocessor of a compute capability bears.

    Raises:
        ValueError: the capability is not in the table.
    """
    try:
        return _LIMITS[capability]
    except KeyError:
        known = ", ".join(_LIMITS)
        raise ValueError(f"compute capability {capability} is not known: {known}") from None
