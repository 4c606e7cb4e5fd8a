"""torchinfo's table of a model, and where it agrees with our own structure.

torchinfo runs the model, with hooks: on tensors without memory where our structure is made of
them, else once more for real. It keeps what it made of the model in a table of its own, which is
put back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from layerbench import units
from layerbench.instruments.attach import mode_set
from layerbench.instruments.stored_weights import packed_weights
from layerbench.introspection.modules import named_modules, named_parameters
from layerbench.profilers.peers import PeerFailed, cause_of, loaded, quietly
from layerbench.records.peers import Column, TorchinfoReport, TorchinfoRow
from layerbench.records.structure import Structure, StructureRow
from layerbench.zoo import Built

PACKAGE = "torchinfo"
LONGEST_FORWARD_S = 20.0
"""Where a model runs for real and one forward takes longer, torchinfo runs no other one."""

MOST_STEPS = 2_000_000
"""torchinfo asks each module for what its parts leave, and these their parts: its steps double with
every level. A model of some twenty levels would take minutes, one of a hundred would never end."""

_ALL_DEPTHS = 10_000
# How many types of layers a sentence names for one cause.
_MOST_TYPES = 3


def torchinfo_report(
    model: nn.Module,
    built: Built,
    ours: Structure,
    columns: Sequence[Column],
    forward_s: float = 0.0,
) -> TorchinfoReport:
    """The table of a model on its input; a reason where it has none.

    To be called where whatever a forward changes is put back.

    Args:
        model: as it runs, without what compiles it.
        built: its inputs.
        ours: our structure of the same, with all its rows.
        columns: of the table.
        forward_s: seconds that a forward takes.
    """
    try:
        package, version = loaded(PACKAGE)
    except PeerFailed as error:
        return TorchinfoReport(version=None, columns=tuple(columns), reason=str(error))
    try:
        _check_time(forward_s)
        _check_depth(ours)
        statistics = _summary(package, model, built, ours.workload.mode, columns)
        made = _report(version, statistics, columns)
        agreement = _agreement(made, statistics, model, ours)
        return made.model_copy(update={"agreement": agreement})
    except Exception as error:
        return TorchinfoReport(version=version, columns=tuple(columns), reason=cause_of(error))


def _check_time(forward_s: float) -> None:
    if forward_s > LONGEST_FORWARD_S:
        raise PeerFailed(
            f"a forward takes {forward_s:.0f} s, and torchinfo would run another one; "
            f"the limit is {LONGEST_FORWARD_S:.0f} s"
        )


def _check_depth(ours: Structure) -> None:
    if sum(2**row.depth for row in ours.rows) > MOST_STEPS:
        deepest = max(row.depth for row in ours.rows)
        raise PeerFailed(
            f"its modules lie up to {deepest} deep, and torchinfo's time doubles with each level"
        )


def _summary(
    package: ModuleType, model: nn.Module, built: Built, mode: str, columns: Sequence[Column]
) -> Any:  # noqa: ANN401 - torchinfo's ModelStatistics
    data: Any = list(built.args) or dict(built.kwargs)
    more = built.kwargs if built.args else {}
    with _cache_put_back(package), quietly(), mode_set(model, mode == "train"):
        return package.summary(
            model,
            input_data=data,
            col_names=columns,
            depth=_ALL_DEPTHS,
            mode=mode,
            verbose=0,
            **more,
        )


@contextmanager
def _cache_put_back(package: ModuleType) -> Iterator[None]:
    """Its last forward of each class stays in a table, with the model itself."""
    cache = package.torchinfo._cached_forward_pass
    before = dict(cache)
    try:
        yield
    finally:
        cache.clear()
        cache.update(before)


# --- the table -----------------------------------------------------------------------------


def _report(
    version: str,
    statistics: Any,  # noqa: ANN401 - torchinfo's
    columns: Sequence[Column],
) -> TorchinfoReport:
    return TorchinfoReport(
        version=version,
        columns=tuple(columns),
        total_params=statistics.total_params,
        trainable_params=statistics.trainable_params,
        total_mult_adds=statistics.total_mult_adds,
        rows=tuple(_row(layer, columns) for layer in statistics.summary_list),
    )


def _row(layer: Any, columns: Sequence[Column]) -> TorchinfoRow:  # noqa: ANN401 - a LayerInfo
    own = layer.num_params if layer.is_leaf_layer else max(layer.leftover_params(), 0)
    figures: dict[str, Any] = {
        "input_size": tuple(layer.input_size) or None,
        "output_size": tuple(layer.output_size) or None,
        "num_params": own or None,
        "mult_adds": (layer.macs if layer.is_leaf_layer else 0) or None,
        "kernel_size": str(layer.kernel_size) if layer.kernel_size else None,
        "trainable": layer.trainable if "trainable" in columns else None,
    }
    shown = {*columns, *(["num_params"] if "params_percent" in columns else [])}
    return TorchinfoRow(
        layer=layer.get_layer_name(show_var_name=False, show_depth=True),
        depth=layer.depth,
        frozen=bool(layer.num_params) and not layer.trainable_params,
        recursive=layer.is_recursive,
        **{name: value for name, value in figures.items() if name in shown},
    )


# --- where it agrees -----------------------------------------------------------------------


def _agreement(
    made: TorchinfoReport,
    statistics: Any,  # noqa: ANN401 - torchinfo's
    model: nn.Module,
    ours: Structure,
) -> str:
    return f"{_parameters(made, model, ours)} {_mult_adds(made, statistics, model, ours)}"


def _parameters(made: TorchinfoReport, model: nn.Module, ours: Structure) -> str:
    if made.total_params == ours.parameters:
        return f"Parameters agree: {units.count(ours.parameters)}."
    names = [name for name, _ in named_parameters(model, remove_duplicate=False)]
    reason = ""
    if any(name.endswith("_orig") for name in names):
        reason = ": it counts what a pruning mask leaves of them"
    elif len(names) > sum(1 for _ in named_parameters(model)):
        reason = ": it counts one that modules share in each of them"
    elif any(packed_weights(model)):
        reason = ": it leaves out what a library has packed"
    return (
        f"Parameters differ: {units.count(made.total_params)} by torchinfo, "
        f"{units.count(ours.parameters)} by ours{reason}."
    )


@dataclass(frozen=True)
class _Difference:
    """Multiply-adds of torchinfo beyond ours in the modules of one type, for one cause."""

    cause: str
    type: str
    macs: int


def _mult_adds(
    made: TorchinfoReport,
    statistics: Any,  # noqa: ANN401 - torchinfo's
    model: nn.Module,
    ours: Structure,
) -> str:
    theirs, mine = made.total_mult_adds, ours.macs
    if theirs == mine:
        return f"Multiply-adds agree: {units.count(mine)}."
    differences = _differences(_macs_by_path(statistics, model), ours)
    causes = [_said(cause, differences) for cause in (*_MORE, *_LESS)]
    return (
        f"Multiply-adds differ: {units.count(theirs)} by torchinfo, {units.count(mine)} by ours. "
        f"{'; '.join(cause for cause in causes if cause)}."
    )


_NORMALIZATION = "It adds {} of layers that our convention leaves out ({})"
_BIASES = "it adds {} of biases and the like ({})"
_POSITIONS = "it leaves out {} of layers that work on several positions ({})"
_INSIDE = "it leaves out {} that modules with parts compute themselves, such as attention ({})"
_MORE, _LESS = (_NORMALIZATION, _BIASES), (_POSITIONS, _INSIDE)


def _macs_by_path(statistics: Any, model: nn.Module) -> Counter[str]:  # noqa: ANN401 - torchinfo's
    paths = {id(module): path for path, module in named_modules(model)}
    macs: Counter[str] = Counter()
    for layer in statistics.summary_list:
        if layer.is_leaf_layer:
            macs[paths[layer.layer_id]] += layer.macs
    return macs


def _differences(theirs: Counter[str], ours: Structure) -> list[_Difference]:
    return [
        _Difference(_cause(theirs[row.path], mine, row, theirs), row.type, theirs[row.path] - mine)
        for row in ours.rows
        for mine in ((row.self_flops or 0) // 2,)
        if theirs[row.path] != mine
    ]


def _cause(theirs: int, mine: int, row: StructureRow, seen: Counter[str]) -> str:
    if theirs > mine:
        return _BIASES if mine else _NORMALIZATION
    return _POSITIONS if row.path in seen else _INSIDE


def _said(cause: str, differences: Sequence[_Difference]) -> str:
    """The cause with its multiply-adds and the types that have most of them; empty without any."""
    by_type: Counter[str] = Counter()
    for one in differences:
        if one.cause is cause:
            by_type[one.type] += abs(one.macs)
    if not by_type:
        return ""
    names = [name for name, _ in by_type.most_common(_MOST_TYPES)]
    more = len(by_type) - len(names)
    types = ", ".join(names) + (f" and {more} more types" if more > 0 else "")
    return cause.format(units.count(by_type.total()), types)
