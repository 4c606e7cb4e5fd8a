"""The half of a report that no machine can change, and whether a committed one still says it.

Shapes, parameters, FLOPs, bytes and the names of what ran follow from model, input and the
libraries alone. They are worked out anew on tensors without memory and must be the committed ones
to the byte; times, and what a process held, are left out.

Which operators a model runs is up to PyTorch and changes with its releases. So all this is compared
with records of the same release only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from layerbench import reporters
from layerbench.analysis.aggregation import assemble
from layerbench.analysis.views import finest, with_training_memory
from layerbench.environment.run_context import torch_version
from layerbench.errors import DeviceUnavailable, LayerbenchError
from layerbench.profilers.dry_run import dry_run
from layerbench.profilers.memory.measured import profile_memory_on_fakes, reproduce_memory
from layerbench.profilers.memory.predicted import predict
from layerbench.profilers.progress import Progress, Silent
from layerbench.profilers.structure import profile_structure
from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryEstimate, MemoryReport, named_optimizer
from layerbench.records.structure import Structure
from layerbench.records.timing import CALLS_VARIED, VARIED, Profile
from layerbench.records.training_step import TrainingProfile, TrainingRow
from layerbench.records.view import View
from layerbench.records.workload import Frozen
from layerbench.reporters.json import document
from layerbench.store import reading

_ROW_TIMES = {"inclusive", "self_", "host_inclusive", "host_self"}
_STEP_TIMES = {
    f"{name}{own}" for name in ("forward", "backward", "recomputation") for own in ("", "_self")
}
_STEP_MEASURED = {*_STEP_TIMES, *(f"host_{name}" for name in _STEP_TIMES), "kernels"}
_STEP = {"record", "schema_version", "workload", "optimizer", "model_type", "parameters", "memory"}
_VERSIONS = dict.fromkeys(("torch", "layerbench"), True)
# What of a record is measured, or follows from plan and surroundings. Whether a model fits depends
# on one device.
_MEASURED: dict[type[Frozen], dict[str, Any]] = {
    Profile: {
        **dict.fromkeys(("plan", "environment", "whole", "whole_host", "process_medians"), True),
        **dict.fromkeys(("stop", "reconciliation", "ceilings", "absent", "notes"), True),
        **dict.fromkeys(("device_rounds", "kernels", "compilation"), True),
        "layers": {"__all__": {*_ROW_TIMES, "scaled", "kernels", "shared", "self_shared"}},
    },
    Structure: _VERSIONS,
    MemoryReport: dict.fromkeys(("environment", "process", "allocator", "notes", "memlab"), True),
    MemoryEstimate: {**_VERSIONS, "fit": True},
    TrainingProfile: {
        **dict.fromkeys(TrainingProfile.model_fields.keys() - _STEP, True),
        "rows": {"__all__": _STEP_MEASURED},
    },
}


class Checked(NamedTuple):
    """What came of checking one report.

    Attributes:
        path: of the record.
        complaint: what is wrong with it or with the text beside it; ``None`` if nothing is.
        other_torch: the release of PyTorch that it was made with, where that is another and only
            the text beside it was compared; else ``None``.
    """

    path: Path
    complaint: str | None
    other_torch: str | None = None


def checked(places: Sequence[Path], progress: Progress | None = None) -> Iterator[Checked]:
    """Check every report in files and folders, one after the other.

    Args:
        places: records, and folders of them.
        progress: hears of each record.

    Raises:
        RecordError: a place is not there, or a file is damaged.
    """
    listener = progress or Silent()
    records = reading.read_all(places)
    for number, (path, record) in enumerate(records):
        listener.step("reports", number, len(records))
        other = _other_torch(record)
        try:
            change = _change(record, again(record)) if other is None else None
            yield Checked(path, change or _text_beside(path, record), other)
        except LayerbenchError as error:
            yield Checked(path, f"cannot be worked out anew: {error}", other)


def _other_torch(record: Frozen) -> str | None:
    """The release of PyTorch that it was made with, if that is not the one here."""
    here = torch_version()
    return next((release for release in _made_with(record) if release != here), None)


def _made_with(record: Frozen) -> Iterator[str]:
    """The releases of PyTorch that made what `again` makes anew, where the record names them."""
    if isinstance(record, Bundle):
        for part in record.parts().values():
            yield from _made_with(part)
    elif type(record) in _MEASURED:
        environment = getattr(record, "environment", None)
        installed = environment.software.packages if environment is not None else {}
        version = getattr(record, "torch", None) or installed.get("torch")
        if version is not None:
            yield version.partition("+")[0]


def half(record: Frozen) -> dict[str, Any]:
    """What of a record depends on no machine, as plain values."""
    return record.model_dump(mode="json", by_alias=True, exclude=_MEASURED.get(type(record)))


@singledispatch
def again(record: Frozen) -> Frozen:
    """The record made anew without measuring; a kind that is made from others stays as it is."""
    return record


@again.register
def _(record: Profile) -> Profile:
    granularity = record.plan.granularity if record.layers else "whole"
    plan = record.plan.model_copy(update={"granularity": granularity})
    # Records of before FLOPs were counted have none.
    counted = any(row.flops is not None for row in record.layers)
    return assemble(record.workload, plan, [dry_run(record.workload, plan, counted=counted)])


@again.register
def _(record: TrainingProfile) -> TrainingProfile:
    made = profile_structure(record.workload)
    names = set(TrainingRow.model_fields) - _STEP_MEASURED - {"kept", "live"}
    rows = (TrainingRow(**{name: getattr(row, name) for name in names}) for row in made.rows)
    update = {"rows": tuple(rows), "model_type": made.model_type, "parameters": made.parameters}
    made_anew = record.model_copy(update=update)
    optimizer = named_optimizer(record.optimizer)
    if record.memory is None or optimizer is None:
        return made_anew
    try:
        report = profile_memory_on_fakes(record.workload, optimizer, record.environment)
    except DeviceUnavailable:
        # Autograd refuses stand-ins for a GPU's tensors where there is none: memory goes unchecked.
        held = {row.path: {"kept": row.kept, "live": row.live} for row in record.rows}
        taken = tuple(row.model_copy(update=held.get(row.path, {})) for row in made_anew.rows)
        return made_anew.model_copy(update={"rows": taken})
    return with_training_memory(made_anew, report)


@again.register
def _(record: Structure) -> Structure:
    beside = record.torchinfo
    columns = () if beside is None else beside.columns
    made = profile_structure(record.workload, torchinfo=columns)
    if record.graphs is None:
        made = made.model_copy(update={"graphs": None})
    if beside is None:
        return made
    if made.torchinfo is None or made.torchinfo.version == beside.version:
        return made
    # Another release, or none, says nothing of this one.
    return made.model_copy(update={"torchinfo": beside})


@again.register
def _(record: Bundle) -> Bundle:
    return record.model_copy(update={place: again(part) for place, part in record.parts().items()})


@again.register
def _(record: MemoryReport) -> MemoryReport:
    return reproduce_memory(record)


@again.register
def _(record: MemoryEstimate) -> MemoryEstimate:
    return predict(record.workload, optimizer=record.optimizer)


def _change(record: Frozen, made: Frozen) -> str | None:
    """What a record says otherwise than the one made anew, and whether chance has a part in it."""
    if isinstance(record, Bundle) and isinstance(made, Bundle):
        anew = made.parts()
        changes = (_change(part, anew[place]) for place, part in record.parts().items())
        return next((change for change in changes if change), None)
    varied = [note for one in (record, made) for note in _notes(one) if VARIED in note]
    if isinstance(record, Profile) and any(note.startswith(CALLS_VARIED) for note in varied):
        return _difference(_modules_alone(half(record)), _modules_alone(half(made)))
    if isinstance(record, Profile) and (record.device_rounds or record.compilation):
        return _difference(_without_functions(half(record)), _without_functions(half(made)))
    change = _difference(half(record), half(made))
    return f"{change}; {varied[0]}" if change and varied else change


def _notes(record: Frozen) -> tuple[str, ...]:
    return getattr(record, "notes", ())


def _modules_alone(profile: dict[str, Any]) -> dict[str, Any]:
    """Of a profile whose forwards differed, what holds whichever of them is looked at."""
    kept = ("path", "type", "depth", "parameters")
    rows = [
        {name: row[name] for name in kept} for row in profile["layers"] if row["kind"] == "module"
    ]
    return {**profile, "layers": sorted(rows, key=lambda row: row["path"])}


def _without_functions(profile: dict[str, Any]) -> dict[str, Any]:
    """Of a profile whose functions are the operators that launched a device's kernels, the rest."""
    rows = [
        {name: value for name, value in row.items() if name != "turn"}
        for row in profile["layers"]
        if row["kind"] == "module"
    ]
    return {**profile, "layers": rows}


def _difference(committed: dict[str, Any], made: dict[str, Any]) -> str | None:
    """The first line in which two halves differ, in words; ``None`` if they are the same bytes."""
    pairs = zip_longest(document(committed).splitlines(), document(made).splitlines())
    for before, after in pairs:
        if before != after:
            letters = zip(before or "", after or "", strict=False)
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))
            return f"says {_short(before, alike)}, and it comes out as {_short(after, alike)}"
    return None


def _short(line: str | None, alike: int) -> str:
    """A line in at most 160 characters: how it begins, and where it differs from another."""
    if line is None:
        return "nothing more"
    text = line.strip().rstrip(",")
    alike -= len(line) - len(line.lstrip())
    if len(text) > 160 and alike > 100:
        text = f"{text[:60]}...{text[alike - 20 :]}"
    return text if len(text) <= 160 else f"{text[:157]}..."


def _text_beside(path: Path, record: Frozen) -> str | None:
    """What is wrong with the reports that lie beside a record under its name."""
    for name in reporters.names():
        beside = path.with_suffix(reporters.suffix(name))
        if not beside.is_file():
            continue
        written = beside.read_text(encoding="utf-8", errors="replace")
        if written not in _renderings(name, record):
            return f"{beside.name} is not what the record renders to"
    return None


def _renderings(name: str, record: Frozen) -> Iterator[str]:
    """As measuring wrote it; or as ``layerbench export`` does, a row for every layer."""
    yield reporters.render(name, record)
    if isinstance(record, Profile):
        yield reporters.render(name, finest(record), View(folded=False))
