"""What differs between two records besides their times: workload, machine, software."""

from __future__ import annotations

from collections.abc import Iterator

from layerbench.records.bounds import MOST_TEXT
from layerbench.records.comparison import Difference
from layerbench.records.environment import Environment
from layerbench.records.timing import Profile
from layerbench.records.workload import Frozen
from layerbench.units import by_x


def differences(baseline: Profile, contender: Profile) -> Iterator[Difference]:
    """What is not the same in workload, plan and surroundings, in this order."""
    for where in ("workload", "plan"):
        yield from _fields(where, getattr(baseline, where), getattr(contender, where))
    before, after = (_surroundings(record.environment) for record in (baseline, contender))
    for what in dict.fromkeys([*before, *after]):
        if before.get(what) != after.get(what):
            yield _difference("environment", what, before.get(what), after.get(what))


def _fields(where: str, before: Frozen, after: Frozen) -> Iterator[Difference]:
    for name in type(before).model_fields:
        first, second = getattr(before, name), getattr(after, name)
        if first != second:
            yield _difference(where, name, first, second)


def _difference(where: str, what: str, before: object, after: object) -> Difference:
    texts = {"baseline": text_of(before)[:MOST_TEXT], "contender": text_of(after)[:MOST_TEXT]}
    return Difference.model_validate({"where": where, "what": what, **texts})


def text_of(value: object) -> str:
    """A value as reports have it: a shape with ``x`` between, ``-`` for none."""
    if isinstance(value, tuple):
        return by_x(value)
    return "-" if value is None else str(value)


def _surroundings(environment: Environment) -> dict[str, object]:
    """The circumstances of a record that could change its times."""
    machine, software, device = environment.machine, environment.software, environment.device
    return {
        "device": device.name,
        "memory of the device": device.memory_bytes,
        **device.details,
        "cpu": machine.cpu,
        "cores": machine.cores,
        "affinity": None if machine.affinity is None else ",".join(map(str, machine.affinity)),
        "threads": machine.threads,
        "interop threads": machine.interop_threads,
        "governor": machine.governor,
        "boost": machine.boost,
        "os": machine.os,
        "python": software.python,
        **software.packages,
        **software.settings,
        "layerbench": software.layerbench,
        "commit": f"{software.commit}{' with changes' if software.dirty else ''}",
    }
