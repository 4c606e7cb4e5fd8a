"""``layerbench estimate detection``: what training and inference with detectors will take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from layerbench.cli import _options
from layerbench.cli._cluster import ClusterOptions
from layerbench.cli._kept import Kept
from layerbench.records.options import WHAT_RUNS, Device, Threads, option
from layerbench.records.recipes import TrainedIn
from layerbench.records.view import View
from layerbench.training.detection.options import STILL, EstimateOptions, Learning

NAME = "estimate detection"


def command(
    *,
    models: Annotated[
        list[str],
        option(
            "all, or names of torchvision's detection models with commas.",
            "--models",
            "--model",
            "-m",
            panel=WHAT_RUNS,
            metavar="DETECTORS",
            default_text="all",
        ),
    ] = ["all"],  # noqa: B006 - nobody changes it
    options: EstimateOptions,
    precision: TrainedIn = "fp32",
    device: Device = None,
    on: ClusterOptions = ClusterOptions(),  # noqa: B008 - frozen
    threads: Threads = None,
    out: Annotated[
        Path | None, _options.out("detection_<models>_<data>_<size>_b<batch>.* to DIR/<device>/")
    ] = None,
    formats: _options.Formats = None,
    view: Annotated[View, _options.on_first_screen("detectors")],
    quiet: _options.Quiet = False,
) -> None:
    """Memory, forward, backward, training time and inference time of torchvision's detectors.

    One table for all of them. Training and inference are measured and extrapolated with an
    interval. The report states proposals and detections, and the time as a function of them.
    Reports of --out are written after each detector, so an interrupted run keeps its rows.
    """
    names = _options.checked_formats(formats, out)
    if on.check(device, out):
        from layerbench.cli import _cluster_detection
        from layerbench.training.detection import models as known

        detectors = list(known.names()) if models == ["all"] else list(map(known.check, models))
        _cluster_detection.estimate(on, detectors, names=names, out=out, view=view, quiet=quiet)
        return
    changes: dict[str, object] = {"learning": Learning(lr=STILL, precision=precision)}
    if options.data != "synthetic" and "samples" not in options.model_fields_set:
        changes["samples"] = None
    options = options.model_copy(update=changes)

    # After the cheap checks: this loads torch.
    from layerbench.cli._progress import measuring
    from layerbench.training.detection.estimate import estimate_detectors

    kept = Kept(names, out, view)
    with measuring("estimate", quiet, device) as progress:
        record = estimate_detectors(
            [] if models == ["all"] else models,
            options,
            device=device,
            threads=threads,
            progress=progress,
            so_far=kept.so_far,
        )
    kept.deliver(record)
