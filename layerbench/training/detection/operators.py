"""Some training steps under torch.profiler: operators by part and phase, and a Chrome trace.

Ranges are put around each phase of the step and each part of the detector. An operator of the
forward belongs to the innermost range around it; one of the backward to the part whose forward put
its node into the graph, told by autograd's sequence number, which the profiler notes on both sides.
What a forward runs again within the backward is a phase of its own, *recomputation*.
What accumulates gradients carries no number: it belongs to what ran before it.

Known limitation: every operator takes longer for being watched, small ones by more.
"""

from __future__ import annotations

import gzip
import secrets
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from layerbench.environment.devices import Device
from layerbench.errors import OutputError
from layerbench.instruments.attach import Forward, Replacement, attributes_replaced
from layerbench.instruments.detector_parts import ITSELF, parts_of
from layerbench.instruments.kernel_timer import kernel_activity
from layerbench.instruments.profiler_use import library_silent
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.step_timer import run_phases
from layerbench.records.detection_run import OperatorRow
from layerbench.records.training_step import STEP_PHASES
from layerbench.store import writing
from layerbench.training.detection.batches import BoxedBatch
from layerbench.training.detection.step import Kept, Stepper

PHASE, PART = "layerbench phase: ", "layerbench part: "
# Around what a checkpoint runs again, with the part that it was made in.
AGAIN = "layerbench again: "
RECOMPUTATION = "recomputation"
BACKWARD_NODE = "autograd::engine::evaluate_function"
# Ranges that PyTorch itself puts around the optimizer and the loader.
RANGES = ("Optimizer.", "enumerate(DataLoader)")
MICROSECOND = 1e-6
# Phases in which work is done; in the others it is waited for.
WORKING = ("forward", "loss", "backward", "optimizer")
WORKED = (*WORKING, RECOMPUTATION)
# Of each part and phase, so many operators are kept.
MOST_OPERATORS = 20


@dataclass(frozen=True)
class Profiled:
    """What the profiler saw.

    Attributes:
        steps: how many; ``step_s``: their mean.
        operators: by part and phase, the longest first.
        kept: bytes, by part, that its forward allocated and left behind, on average.
        busy: of the working phases, the share in which an operator (on an accelerator: a kernel)
            ran; ``None`` for no steps.
        kernels_s: on an accelerator, the mean time of a step's kernels in these phases; ``None``
            where the profiler sees none.
    """

    steps: int
    step_s: float
    operators: tuple[OperatorRow, ...]
    kept: dict[str, int]
    busy: float | None
    kernels_s: float | None


def profile_steps(
    stepper: Stepper,
    fetch: Callable[[], BoxedBatch],
    steps: int,
    device: Device,
    trace: Path,
    stepped: Callable[[int], None] = lambda _images: None,
) -> Profiled:
    """Run steps under the profiler and write their trace.

    One more runs before them, whose profile is thrown away: the profiler's beginnings are in it.

    Args:
        stepper: a detector that learns.
        fetch: gives batches.
        steps: at least 1.
        device: where it runs.
        trace: a Chrome trace, compressed if it ends in ``.gz``.
        stepped: called after each step with the images that it learned from.

    Raises:
        OutputError: the trace cannot be written.
        LayerbenchError: as `Stepper.step`.
    """
    activity = kernel_activity(device)
    with (
        library_silent(),
        profile(
            activities=[ProfilerActivity.CPU, *([] if activity is None else [activity])],
            schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
            profile_memory=True,
        ) as profiler,
    ):
        for _ in range(1 + steps):
            images = watched_step(stepper, fetch)
            profiler.step()
            stepped(images)
    _write_trace(profiler, trace)
    return summarized(list(profiler.events()), steps, on_cpu=device.kind == "cpu")


def watched_step(stepper: Stepper, fetch: Callable[[], BoxedBatch]) -> int:
    """A step with a range around each phase and each part; gives the images it learned from."""
    kept = Kept()
    pieces = stepper.pieces(fetch, kept)
    functions: dict[str, Any] = {
        name: _in_range(PHASE + phase, getattr(pieces, name)) for name, phase in _PIECES
    }
    ranged = replace(pieces, **functions)
    watch = _Again()
    with (
        stepper.explained(),
        stepper.checkpoints(),
        recomputations_told(watch),
        attributes_replaced(_ranges(stepper, watch)),
    ):
        for _ in run_phases(ranged, lambda: 0):
            pass
    return len(kept.batch.images)


_PIECES = tuple(
    zip(("fetch", "move", "forward", "loss", "backward", "update"), STEP_PHASES, strict=True)
)


class _Again:
    """Puts a range around what runs again; a `layerbench.instruments.recomputation.Watch`."""

    def __init__(self) -> None:
        self.running = [ITSELF]

    def asked(self) -> str:
        return self.running[-1]

    def again(self, where: str) -> AbstractContextManager[object]:
        return record_function(AGAIN + where)

    def graph_made(self, where: str, outputs: object) -> None:
        """Nodes of such a graph are told by their numbers."""


def _ranges(stepper: Stepper, watch: _Again) -> list[Replacement]:
    parts = parts_of(stepper.model)
    return [
        (
            what.module,
            what.attribute,
            _in_range(
                PART + (name := parts.names[what.row]),
                getattr(what.module, what.attribute),
                partial(_noted, watch.running, name),
            ),
        )
        for what in parts.timed
    ]


@contextmanager
def _noted(running: list[str], part: str) -> Iterator[None]:
    running.append(part)
    try:
        yield
    finally:
        running.pop()


def _in_range(
    name: str,
    function: Forward,
    noted: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Forward:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any function
        with noted(), record_function(name):
            return function(*args, **kwargs)

    return run


def _write_trace(profiler: Any, path: Path) -> None:  # noqa: ANN401 - torch's profile
    plain = path.with_name(f".{secrets.token_hex(4)}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(plain))
        data = plain.read_bytes()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            plain.unlink(missing_ok=True)
    # A fixed time in the archive's head: equal traces are equal files.
    writing.write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


# --- adding up -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where in a step an event belongs."""

    phase: str
    part: str


def summarized(events: Sequence[Any], steps: int, *, on_cpu: bool) -> Profiled:
    """Add the events of profiled steps up.

    Args:
        events: torch's ``FunctionEvent``, of all steps.
        steps: how many they are of.
        on_cpu: whether the work itself runs there.
    """
    hosted = [event for event in events if event.device_type == DeviceType.CPU]
    hosted.sort(key=lambda event: (event.time_range.start, -event.time_range.end))
    phases = [event for event in hosted if event.name.startswith(PHASE)]
    places = _places(hosted, phases)
    sums: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for event in hosted:
        if event.name.startswith((PHASE, PART, AGAIN, "ProfilerStep")) or id(event) not in places:
            continue
        place = places[id(event)]
        entry = sums[place.part, place.phase, event.name]
        entry[0] += 1
        entry[1] += event.self_cpu_time_total * MICROSECOND
        entry[2] += event.self_device_time_total * MICROSECOND
    working = sum(e.time_range.elapsed_us() for e in phases if _named(e) in WORKING) * MICROSECOND
    worked = [(name, entry) for (_, phase, name), entry in sums.items() if phase in WORKED]
    # What the optimizer's and the loader's own ranges hold besides operators is Python.
    host = sum(entry[1] for name, entry in worked if not name.startswith(RANGES))
    # Where the profiler knows no kernels of this kind of device, nothing is known of them.
    kernels = sum(entry[2] for _, entry in worked) or None
    did = host if on_cpu else kernels
    busy = did / working if working and did is not None else None
    return Profiled(
        steps=steps,
        step_s=sum(event.time_range.elapsed_us() for event in phases) * MICROSECOND / steps,
        operators=_rows(sums, steps, on_cpu),
        kept=_kept([e for e in hosted if not _runs_again(places.get(id(e)))], steps, on_cpu),
        busy=None if busy is None else min(1.0, busy),
        kernels_s=None if on_cpu or kernels is None else kernels / steps,
    )


def _named(event: Any) -> str:  # noqa: ANN401 - torch's FunctionEvent
    return str(event.name).partition(": ")[2]


def _places(hosted: Sequence[Any], phases: Sequence[Any]) -> dict[int, _Place]:
    """The place of each event in a phase, by the object's identity.

    Not by its number: those of operators and those of an accelerator's driver overlap.
    """
    starts = [event.time_range.start for event in phases]
    places: dict[int, _Place] = {}
    part_of_number: dict[int, str] = {}
    last_in_thread: dict[int, str] = {}
    for event in hosted:
        phase = _phase_at(event, phases, starts)
        if phase is None:
            continue
        around = places.get(id(event.cpu_parent))
        if phase == "backward" and event.name.startswith((PART, AGAIN)):
            place = _Place(RECOMPUTATION, _named(event))
        elif phase == "backward" and around is not None and _runs_again(around):
            place = around
        elif phase == "backward":
            part = _backward_part(event, places, part_of_number, last_in_thread)
            place = _Place(phase, part)
        else:
            place = _Place(phase, _enclosing(event, phase))
        places[id(event)] = place
        if place.phase in ("forward", RECOMPUTATION) and event.sequence_nr >= 0:
            # Threads count for themselves: the forward's numbers come first.
            if phase == "forward":
                part_of_number[event.sequence_nr] = place.part
            else:
                part_of_number.setdefault(event.sequence_nr, place.part)
    return places


def _runs_again(place: _Place | None) -> bool:
    return place is not None and place.phase == RECOMPUTATION


def _phase_at(event: Any, phases: Sequence[Any], starts: Sequence[float]) -> str | None:  # noqa: ANN401
    """By time: on an accelerator the backward runs in a thread that no range is in."""
    index = bisect_right(starts, event.time_range.start) - 1
    if index < 0 or event.time_range.start > phases[index].time_range.end:
        return None
    return _named(phases[index])


def _enclosing(event: Any, phase: str) -> str:  # noqa: ANN401 - torch's FunctionEvent
    """The innermost part around an event; of the forward's rest, the detector itself."""
    around = event
    while around is not None:
        if around.name.startswith(PART):
            return _named(around)
        around = around.cpu_parent
    return ITSELF if phase == "forward" else ""


def _backward_part(
    event: Any,  # noqa: ANN401 - torch's FunctionEvent
    places: Mapping[int, _Place],
    part_of_number: Mapping[int, str],
    last_in_thread: dict[int, str],
) -> str:
    if event.name.startswith(BACKWARD_NODE):
        # Without a number it accumulates a gradient, of what ran before it; with one that no
        # part's forward drew, it belongs to none.
        before = last_in_thread.get(event.thread, "") if event.sequence_nr < 0 else ""
        part = part_of_number.get(event.sequence_nr, before)
        last_in_thread[event.thread] = part
        return part
    around = event.cpu_parent
    return places[id(around)].part if around is not None and id(around) in places else ""


def _rows(
    sums: Mapping[tuple[str, str, str], Sequence[float]], steps: int, on_cpu: bool
) -> tuple[OperatorRow, ...]:
    """The parts in the order of the time they take, in each the longest operators first."""

    def weight(entry: Sequence[float]) -> float:
        return entry[1] if on_cpu else entry[2] or entry[1] * 1e-6

    grouped: dict[tuple[str, str], list[tuple[str, Sequence[float]]]] = defaultdict(list)
    for (part, phase, name), entry in sums.items():
        grouped[part, phase].append((name, entry))

    def together(key: tuple[str, str]) -> float:
        return sum(weight(entry) for _, entry in grouped[key])

    return tuple(
        OperatorRow(
            part=part,
            phase=phase,
            name=name,
            calls=entry[0] / steps,
            host_s=entry[1] / steps,
            device_s=None if on_cpu else entry[2] / steps,
        )
        for part, phase in sorted(grouped, key=together, reverse=True)
        for name, entry in sorted(
            grouped[part, phase], key=lambda row: weight(row[1]), reverse=True
        )[:MOST_OPERATORS]
    )


def _kept(hosted: Iterable[Any], steps: int, on_cpu: bool) -> dict[str, int]:
    """Bytes that parts' forwards left behind, without the parts inside them."""
    kept: dict[str, float] = defaultdict(float)
    for event in hosted:
        if not event.name.startswith(PART):
            continue
        size = event.cpu_memory_usage if on_cpu else event.device_memory_usage
        kept[_named(event)] += size
        around = event.cpu_parent
        while around is not None and not around.name.startswith(PART):
            around = around.cpu_parent
        if around is not None:
            kept[_named(around)] -= size
    return {part: round(size / steps) for part, size in kept.items()}
