"""``layerbench estimate latency``: a model's time on GPUs that are not here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerbench.cli import _options
from layerbench.cli._generated import fields
from layerbench.records.memory import Optimizer
from layerbench.records.options import PLACE, WHAT_RUNS, option, spelling
from layerbench.records.view import View
from layerbench.records.workload import Mode, StepOptions

if TYPE_CHECKING:
    from layerbench.records.latency_estimate import LatencyEstimate

NAME = "estimate latency"


def command(
    *,
    what: Annotated[
        _options.WorkloadOptions, fields(omit=("mode", "compile", "cuda_graph", "weights"))
    ],
    mode: Annotated[
        Mode, option("eval for a forward, train for a training step.", panel=WHAT_RUNS)
    ] = "eval",
    optimizer: Annotated[
        Optimizer | None,
        option(
            "sgd, momentum, adam, adamw, rmsprop or adagrad; needs --mode train.",
            panel=WHAT_RUNS,
            default_text="sgd with --mode train",
        ),
    ] = None,
    step: Annotated[StepOptions, fields()],
    device: Annotated[
        list[str] | None,
        option(
            "Cards, with commas: names of `layerbench devices`, or files that describe one. It has "
            "to be said.",
            panel=PLACE,
            metavar="CARDS",
            default_text=False,
        ),
    ] = None,
    out: Annotated[Path | None, _options.out("DIR/<model>_<input>_<card>_time.*")] = None,
    formats: _options.Formats = None,
    view: Annotated[View, fields(omit=("sentences", "kernels"))],
    quiet: _options.Quiet = False,
) -> None:
    """Predict how long a model takes on a GPU that is not here, whole and layer by layer.

    The report says how wrong such predictions were on measured times that the model of times had
    not seen. Of several cards it shows one table, and --out writes a record for each. A card that
    lacks the precision has a row that says so.
    """
    from layerbench.errors import UsageError

    names = _options.checked_formats(formats, out)
    if device is None:
        raise UsageError(
            "say which card, such as --device rtx4090: `layerbench devices` lists them"
        )
    if mode != "train":
        if optimizer is not None:
            raise UsageError("--optimizer belongs to a training step: add --mode train")
        for name in sorted(step.model_fields_set):
            raise UsageError(
                f"{spelling(StepOptions, name)} belongs to a training step: add --mode train"
            )
    from layerbench.environment import cards

    wanted = cards.each_once(device)

    # After the cheap checks: this loads torch.
    from layerbench.cli._progress import shown
    from layerbench.profilers.card_estimates import side_by_side
    from layerbench.profilers.latency.predicted import predict_for_cards, with_format

    chosen = (optimizer or "sgd") if mode == "train" else None
    workload = what.workload(mode=mode).with_step(step)
    able, lacking = with_format(wanted, workload)
    with shown(workload.model, quiet):
        records = predict_for_cards(workload, able, optimizer=chosen)
    if len(wanted) == 1:
        _options.deliver(records[0], names, out, view)
        return
    _options.say_what_is_not_shown(records[0], view)
    for name in names if out is None else ["txt"]:
        _options.show(name, side_by_side(records, lacking), view)
    if out is not None:
        _write(records, names, out, view)


def _write(records: list[LatencyEstimate], names: list[str], out: Path, view: View) -> None:
    for record in records:
        for place in _options.written(record, names, out, view):
            typer.echo(str(place))
