"""``estimate detection --cluster``: each detector is measured on every device that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from layerbench.cli import _options
from layerbench.cli._cluster import ClusterOptions
from layerbench.cli._cluster_each import Each, Measured, end, measure
from layerbench.cluster import environments
from layerbench.environment.software import command_line
from layerbench.records.detection_estimate import DetectionEstimates, DetectorFailure
from layerbench.records.view import View
from layerbench.reporters import json
from layerbench.store import writing

VERB = "estimate detection"


def estimate(
    options: ClusterOptions,
    detectors: Sequence[str],
    *,
    names: list[str],
    out: Path | None,
    view: View,
    quiet: bool,
) -> None:
    """Measure each detector on each device, and print or write a record for each device.

    Args:
        options: the cluster's.
        detectors: their names.
        names, out, view, quiet: formats, folder, what is shown, and whether progress is.

    Raises:
        UsageError: no cluster, or no such device.
        typer.Exit: somebody interrupted, or some are missing.
    """

    def deliver(measured: Measured[DetectionEstimates]) -> list[Path]:
        if out is None:
            return []
        folder = out / measured.record.environment.device.slug / "points"
        path = folder / f"{measured.name}_{measured.key[:8]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        writing.write_text(path, json.render(measured.record))
        return [path]

    each = Each(
        VERB,
        frozenset({"models"}),
        (),
        lambda _: {name: [f"--models={name}"] for name in detectors},
        DetectionEstimates,
        deliver,
    )
    interrupted = measure(each, options, out, quiet=quiet)
    for column in dict.fromkeys(one.column for one in each.measured):
        of_column = [one.record for one in each.measured if one.column == column]
        _options.deliver(joined(of_column, detectors), names, out, view)
    end(each, interrupted)


def joined(records: Sequence[DetectionEstimates], detectors: Sequence[str]) -> DetectionEstimates:
    """One record of those of single detectors, in the order that was asked for."""
    rows = {row.model: row for record in records for row in record.rows}
    failures = [failure for record in records for failure in record.failures]
    told = {failure.model for failure in failures}
    absent = [
        DetectorFailure(model=name, why="not measured on this device")
        for name in detectors
        if name not in rows and name not in told
    ]
    surroundings = [record.environment for record in records]
    environment = environments.joined(surroundings, command_line(sys.argv))
    return records[0].model_copy(
        update={
            "environment": environment,
            "rows": tuple(rows[name] for name in detectors if name in rows),
            "failures": (*failures, *absent),
        }
    )
