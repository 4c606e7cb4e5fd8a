"""A machine in virtual time that other programs disturb, and measurements of one model on it.

Nothing runs: a clock is moved on by what each layer would take. What disturbs is made after what
was seen on a machine with two cores whose neighbours were busy:

- *contention* comes in stretches of 20 ms to seconds, in which all takes up to three times as long;
- the thread is *switched off* now and then, for 1 ms and rarely for 100 ms;
- the two copies of a model lie in *places* that differ by 4 % a layer, moved as weights are moved;
- Python's *objects* lie elsewhere for as long as the process lives: 0.3 us a layer;
- every layer has *noise* of its own, log-normal, 3 %.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from layerbench.profilers.paired import is_time_to_move, round_order
from layerbench.records import samples
from layerbench.records.environment import DeviceInfo, Environment, Machine, Software
from layerbench.records.samples import RowFacts, Run, RunFacts

# Microseconds, each about twice the one before: a small model has layers of all sizes.
LAYERS_US = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0)
PLANTED = 6
"""The layer that a slow-down is planted in."""


@dataclass
class Disturbance:
    """How busy the machine is.

    Attributes:
        switched_off: how often a second the thread loses its core.
        contended: share of the time in which something else takes the caches' and memory's time.
        stretch_s: how long such a stretch lasts on average.
    """

    switched_off: float = 0.0
    contended: float = 0.0
    stretch_s: float = 0.2


QUIET = Disturbance(switched_off=0.5, contended=0.02)
SHARED = Disturbance(switched_off=60.0, contended=0.5)
CROWDED = Disturbance(switched_off=250.0, contended=0.9, stretch_s=1.0)
MACHINES = {"quiet": QUIET, "shared": SHARED, "crowded": CROWDED}


@dataclass
class VirtualMachine:
    """Time that passes as layers run; positions in nanoseconds."""

    draw: np.random.Generator
    disturbance: Disturbance
    now: float = 0.0
    _until: float = 0.0
    _slow: float = 1.0

    def run(self, layers_ns: np.ndarray) -> tuple[np.ndarray, float]:
        """Run layers one after the other.

        Returns:
            what each took, and what of it all was waited for a core.
        """
        took = layers_ns * self.draw.lognormal(0, 0.03, layers_ns.size) * self._slowness()
        waited = np.zeros(layers_ns.size)
        for _ in range(self.draw.poisson(self.disturbance.switched_off * took.sum() * 1e-9)):
            at = self.draw.choice(layers_ns.size, p=took / took.sum())
            waited[at] += 1e6 * (1 + self.draw.pareto(1.5))
        self.now += float(took.sum() + waited.sum())
        return took + waited, float(waited.sum())

    def _slowness(self) -> float:
        if self.now >= self._until:
            self._until = self.now + 1e9 * self.draw.exponential(self.disturbance.stretch_s)
            contended = self.draw.random() < self.disturbance.contended
            self._slow = 1 + contended * self.draw.beta(1, 3) * 2
        return self._slow


@dataclass
class VirtualModel:
    """A copy of the model somewhere in memory."""

    draw: np.random.Generator
    factor: float
    layers_ns: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._work = np.array(LAYERS_US) * 1e3
        self._work[PLANTED] *= self.factor
        self._objects = np.maximum(self.draw.normal(0, 300, self._work.size), -0.3 * self._work)
        self.move()

    def move(self) -> None:
        """To another place."""
        self.layers_ns = self._work * self.draw.lognormal(0, 0.04, self._work.size) + self._objects


def measured_in_turn(
    seed: int, disturbance: Disturbance, *, rounds: int = 300, moved: bool = True, factor: float = 1
) -> tuple[Run, Run]:
    """Baseline and contender, as `profilers.paired.measure_pair` would have measured them.

    Args:
        seed: of all chance.
        disturbance: how busy the machine is.
        rounds: measured ones.
        moved: whether weights move, as those of a model that was handed over do not.
        factor: of the planted layer's time in the contender.
    """
    draw = np.random.default_rng(seed)
    machine = VirtualMachine(draw, disturbance)
    models = [VirtualModel(draw, 1.0), VirtualModel(draw, factor)]
    order = random.Random(seed)
    kept: list[dict[str, list[object]]] = [{}, {}]
    places, place = [], 0
    for done in range(rounds):
        if moved and is_time_to_move(done, rounds):
            place += 1
            for model in models:
                model.move()
        for kind, side in round_order(done, order):
            took, waited = machine.run(models[side].layers_ns)
            kept[side].setdefault(kind, []).append(took)
            # As the meter has it: small shares are none.
            negligible = waited < 0.05 * took.sum()
            kept[side].setdefault(samples.WAITED + kind, []).append(0 if negligible else waited)
        places.append(place)
    first, second = (_run(one, places) for one in kept)
    return first, second


def _run(kept: dict[str, list[object]], places: list[int]) -> Run:
    untouched, instrumented = (
        np.array(kept[kind]).astype(np.int64) for kind in (samples.UNTOUCHED, samples.INSTRUMENTED)
    )
    whole = instrumented.sum(axis=1, keepdims=True)
    arrays = {
        samples.UNTOUCHED: untouched.sum(axis=1),
        samples.INSTRUMENTED: whole[:, 0],
        samples.INCLUSIVE: np.hstack([whole, instrumented]),
        samples.SELF: np.hstack([0 * whole, instrumented]),
    }
    for kind in (samples.UNTOUCHED, samples.INSTRUMENTED):
        arrays[samples.WAITED + kind] = np.array(kept[samples.WAITED + kind]).astype(np.int64)
        arrays[samples.PLACEMENT + kind] = np.array(places)
    return Run(FACTS, arrays)


def _environment() -> Environment:
    return Environment(
        device=DeviceInfo(kind="cpu", name="virtual", slug="virtual"),
        machine=Machine(cpu="virtual", cores=2, threads=1),
        software=Software(layerbench="", python="", packages={}),
        command="",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:00Z",
    )


FACTS = RunFacts(
    model_type="Virtual",
    parameters=1,
    modules=tuple(
        RowFacts(
            path=f"layer{number - 1}" if number else "",
            type="Layer",
            kind="module",
            depth=min(number, 1),
            order=number,
            calls=1,
            block=number > len(LAYERS_US) // 2,
        )
        for number in range(len(LAYERS_US) + 1)
    ),
    functions=(),
    environment=_environment(),
    stop="iterations",
    mark_cost_s=0,
    wrapper_cost_s=0,
)
