"""What somebody wants to see of a record that it cannot show, in words. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layerbench.analysis.largest import sorts_of
from layerbench.errors import UsageError
from layerbench.records.bundle import Bundle, times_in
from layerbench.records.comparison import Comparison
from layerbench.records.timing import Profile
from layerbench.records.training_step import TrainingProfile
from layerbench.records.view import Sort, View
from layerbench.records.workload import Frozen

_WORDS: dict[Sort, str] = {
    "self": "own time",
    "time": "time",
    "flops": "FLOPs",
    "params": "parameters",
    "memory": "memory",
}


def not_shown(record: Frozen, view: View) -> list[str]:
    """What is shown in place of what was asked for, a line each; empty where all is shown.

    Args:
        record: of any kind.
        view: what was asked for; what was not said is not missed.
    """
    return [*_of_sort(record, view), *_of_type(record, view), *_of_kernels(record, view)]


def _of_sort(record: Frozen, view: View) -> Iterator[str]:
    if "sort" not in view.model_fields_set:
        return
    kind, wanted = getattr(record, "record", "such"), _WORDS[view.sort]
    content = _main(record, view.sort)
    if isinstance(content, Profile):
        if _unknown(content, view.sort):
            yield f"sorted by {_WORDS['self']}: this record knows no {wanted} of its layers"
        return
    if isinstance(content, Comparison):
        yield f"sorted by the change of time: a {kind} record knows no order by {wanted}"
        return
    try:
        known = sorts_of(content)
    except UsageError:
        yield f"--sort has no effect: a {kind} record has no rows of layers"
        return
    if view.sort not in known:
        instead = _WORDS[known[0]]
        yield f"sorted by {instead}: a {kind} record knows no {wanted} of its layers"


def _unknown(record: Profile, sort: Sort) -> bool:
    """Whether none of the layers has any of it."""
    field = {"flops": "self_flops", "params": "own_parameters"}.get(sort)
    return field is not None and all(getattr(row, field) is None for row in record.layers)


def _main(record: Any, sort: Sort | None = None) -> Any:  # noqa: ANN401 - a record of any kind
    """Of a bundle the record that its first screen is of."""
    if not isinstance(record, Bundle):
        return record
    if sort == "memory" and record.profile and record.memory:
        return record.memory
    return record.comparison or record.any_with_rows()


def _of_type(record: Frozen, view: View) -> Iterator[str]:
    """A report says which types there are, unless it has no layers at all."""
    content = _main(record)
    if view.type is not None and not (hasattr(content, "layers") or _has_types(content)):
        yield f"--type has no effect: a {getattr(record, 'record', 'such')} record has no layers"


def _of_kernels(record: Frozen, view: View) -> Iterator[str]:
    """Why there are none, in one line."""
    if not view.kernels:
        return
    content = _main(record)
    if isinstance(content, Comparison):
        if content.kernels_beside is None:
            yield (
                "--kernels has no effect: it needs kernels on both sides, or a compiled model "
                "beside one with layers"
            )
        return
    profile = record if isinstance(record, TrainingProfile) else times_in(record)
    if profile is None:
        kind = getattr(record, "record", "such")
        yield f"--kernels has no effect: a {kind} record has no kernels"
    elif not profile.kernels:
        yield f"--kernels has no effect: {_why_no_kernels(profile)}"


_ELSEWHERE = "kernels stand in the record that has the layers"


def _why_no_kernels(record: Profile | TrainingProfile) -> str:
    if isinstance(record, Profile) and record.compilation is not None:
        return record.absent.get("layers", _ELSEWHERE)
    if record.environment.device.kind == "cpu":
        return "a CPU has kernels under --compile alone"
    return record.absent["kernels"] if "kernels" in record.absent else _none_in(record)


def _none_in(record: Profile | TrainingProfile) -> str:
    rounds = record.device_rounds
    if isinstance(record, Profile) and not record.layers:
        return _ELSEWHERE
    if rounds is None:
        return "this record was measured without rounds that show kernels"
    if rounds.how == "events":
        return "device times are between events, and the profiler saw no kernels"
    return "this record has none: its forwards, or its processes, ran different ones"


def _has_types(content: Any) -> bool:  # noqa: ANN401 - a record of any kind
    return any(hasattr(row, "type") for row in getattr(content, "rows", ()))
