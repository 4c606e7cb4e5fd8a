"""Estimates for detectors and a detector's training made by hand for tests of what shows them."""

from __future__ import annotations

from layerbench.records.detection_estimate import (
    ContentFit,
    ContentPoint,
    DetectionEstimates,
    DetectorEstimate,
    DetectorFailure,
    DetectorMemory,
    Found,
    PartRow,
)
from layerbench.records.detection_run import (
    Bottleneck,
    DetectionEpoch,
    DetectionRun,
    OperatorRow,
    TunePoint,
    Tuning,
    Usage,
    UsageSample,
)
from layerbench.records.environment import DeviceInfo
from layerbench.records.recipes import DetectionRecipe
from layerbench.records.training_estimate import Seconds
from layerbench.records.training_step import STEP_PHASES, PhaseRow
from tests.support.sample_profiles import environment, summary

MEBIBYTE = 2**20


def phases(*milliseconds: float) -> tuple[PhaseRow, ...]:
    """In the order of the step."""
    return tuple(
        PhaseRow(name=name, time=summary(ms))
        for name, ms in zip(STEP_PHASES, milliseconds, strict=True)
    )


def part(
    name: str, there: float | None, back: float | None, inference: float | None = None, **more: int
) -> PartRow:
    """Milliseconds."""
    times = {"forward": there, "backward": back, "inference": inference}
    made = {key: None if ms is None else summary(ms) for key, ms in times.items()}
    return PartRow(name=name, **made, **more)


def between(value: float) -> Seconds:
    return Seconds(value=value, low=value * 0.9, high=value * 1.12)


def two_stage(**changes: object) -> DetectorEstimate:
    """A step of two seconds, and a latency that depends on proposals and detections."""
    points = ((50, 1, 320.0), (300, 1, 420.0), (1000, 1, 700.0), (1000, 100, 749.5))
    fields: dict[str, object] = {
        "model": "fasterrcnn_resnet50_fpn",
        "model_type": "FasterRCNN",
        "parameters": 41_755_286,
        "memory": DetectorMemory(
            parameters=167_021_144,
            buffers=222_000,
            gradients=167_021_144,
            optimizer=167_021_144,
            activations=1_500 * MEBIBYTE,
            peak=2_400 * MEBIBYTE,
        ),
        "warmup": 2,
        "step": summary(2000.0, n=6),
        "phases": phases(12.0, 0.1, 700.0, 0.4, 1200.0, 87.5),
        "parts": (
            part("the detector itself", 0.5, None, 0.4),
            part("transform", 20.0, None, 18.0),
            part("backbone", 400.0, 700.0, 390.0),
            part("RPN", 80.0, 150.0, 70.0),
            part("heads", 199.4, 349.8, 180.0),
            part("post-processing", 0.1, None, 9.5),
        ),
        "parts_ratio": 1.0,
        "outside_s": 2e-4,
        "between_s": 1e-5,
        "start_s": 0.02,
        "once_s": 0.5,
        "epoch": between(12_500.0),
        "training": between(37_500.5),
        "inference": between(4_175.0),
        "boxes": 2.75,
        "trained": Found(proposals=512),
        "inferred": Found(proposals=1000, detections=37.5),
        "one_image": summary(410.0, n=12),
        "one_batch": summary(668.0, n=7, verdict="noisy", missed=("relative IQR 14 % > 10 %",)),
        "points": tuple(
            ContentPoint(found=Found(proposals=p, detections=d), latency=summary(ms, n=5))
            for p, d, ms in points
        ),
        "fit": ContentFit(base_s=0.2995, per_proposal_s=4e-4, per_detection_s=5e-4, worst=0.0031),
        "notes": ("64 different images are made up, and come again by number",),
    }
    return DetectorEstimate.model_validate({**fields, **changes})


def one_stage() -> DetectorEstimate:
    """Whose memory could not be worked out, and whose latency depends on nothing."""
    return two_stage(
        model="ssd300_vgg16",
        model_type="SSD",
        parameters=35_641_826,
        memory=None,
        step=summary(900.0, n=11),
        phases=phases(12.0, 0.1, 300.0, 0.4, 500.0, 87.5),
        parts=(
            part("the detector itself", 0.5, None, 0.4),
            part("backbone", 250.0, 400.0, 240.0),
            part("anchors", 1.0, None, 1.0),
            part("heads", 40.0, 80.0, 39.0),
            part("transform", 2.5, None, 2.0),
            part("losses", 6.0, 20.0),
            part("post-processing", None, None, 30.0),
        ),
        parts_ratio=1.0004,
        epoch=between(5_600.0),
        training=between(16_800.0),
        inference=between(980.0),
        trained=Found(),
        inferred=Found(proposals=None, detections=200.0),
        one_image=summary(88.0, n=40),
        one_batch=summary(160.0, n=22),
        points=(),
        fit=ContentFit(base_s=0.09, per_proposal_s=None, per_detection_s=None, worst=0.021),
        notes=(),
    )


def estimates(**changes: object) -> DetectionEstimates:
    """Two detectors, and one that does not fit."""
    fields: dict[str, object] = {
        "batch": 8,
        "epochs": 3,
        "samples": 50_000,
        "size": (224, 224),
        "data": "synthetic",
        "workers": 0,
        "environment": environment(
            command="layerbench estimate detection",
            warnings=("the load was 1.8 on 2 cores before the run",),
        ),
        "rows": (two_stage(), one_stage()),
        "failures": (
            DetectorFailure(
                model="maskrcnn_resnet50_fpn",
                why="not enough memory on cpu: requested 9.00 GiB, 8.00 GiB free",
            ),
        ),
        "assumptions": ("All epochs are alike: 6250 steps of 8 images.", "One process."),
    }
    return DetectionEstimates.model_validate({**fields, **changes})


def single() -> DetectionEstimates:
    """One detector: with its phases and the points of its fit."""
    return estimates(rows=(two_stage(),), failures=())


def recipe(**changes: object) -> DetectionRecipe:
    """Two epochs of pets with two loading processes."""
    fields: dict[str, object] = {
        "epochs": 2,
        "batch": 4,
        "workers": 2,
        "limit": 40,
        "pretrained": True,
        "unreadable": "skip",
    }
    return DetectionRecipe.model_validate({**fields, **changes})


def epoch(number: int, **changes: object) -> DetectionEpoch:
    """Forty steps, the later the lower the loss."""
    fields: dict[str, object] = {
        "epoch": number,
        "steps": 40,
        "images": 159,
        "loss": 2.0 / number,
        "losses": {"loss_classifier": 1.5 / number, "loss_box_reg": 0.5 / number},
        "train_s": 88.0,
        "images_per_s": 1.82,
        "phases_s": {phase.name: 40 * phase.time.mean for phase in run_phases()},
        "unreadable": 1,
        "resident": 3 * 2**30,
    }
    return DetectionEpoch.model_validate({**fields, **changes})


def run_phases() -> tuple[PhaseRow, ...]:
    """A step of 2.2 seconds."""
    return phases(1100.0, 0.5, 400.0, 0.4, 650.0, 49.1)


def operators(**device: float) -> tuple[OperatorRow, ...]:
    """More of the backbone's forward than are shown."""
    rows = [
        OperatorRow(
            part="backbone", phase="forward", name=f"aten::op{number}", calls=60 - 10 * number,
            host_s=0.1 / (number + 1), **device,
        )
        for number in range(6)
    ]  # fmt: skip
    rows.append(
        OperatorRow(part="backbone", phase="backward", name="aten::convolution_backward",
                    calls=53, host_s=0.35, **device)
    )  # fmt: skip
    rows.append(
        OperatorRow(part="", phase="optimizer", name="aten::_foreach_add_", calls=0.4,
                    host_s=0.049, **device)
    )  # fmt: skip
    return tuple(rows)


def usage(**device: float) -> Usage:
    """Forty looks; the training works in turns."""
    return Usage(
        interval_s=0.5,
        cores=2,
        samples=tuple(
            UsageSample(
                at_s=0.5 * number,
                process_cpu=1.6 if number % 4 else 0.4,
                system_cpu=0.85,
                resident=(1500 + 10 * number) * MEBIBYTE,
                **device,
            )
            for number in range(1, 41)
        ),
    )


def run(**changes: object) -> DetectionRun:
    """Two epochs on the CPU that wait for data; the loader was tuned."""
    tried = ((0, 2, 0.8, 0.65), (1, 2, 1.4, 0.6), (2, 2, 1.82, 0.5), (2, 4, 1.84, 0.495))
    fields: dict[str, object] = {
        "recipe": recipe(),
        "environment": environment(command="layerbench detect --device cpu --tune"),
        "model_type": "FasterRCNN",
        "parameters": 41_401_661,
        "images": 3680,
        "classes": ("background", "Abyssinian", "American Bulldog"),
        "epochs": (epoch(1), epoch(2, unreadable=0)),
        "measured": 40,
        "step": summary(2200.0, n=40),
        "phases": run_phases(),
        "parts": (
            part("the detector itself", 0.5, None, kept=2 * MEBIBYTE),
            part("transform", 20.0, None, kept=12 * MEBIBYTE),
            part("backbone", 250.0, 450.0, kept=1200 * MEBIBYTE),
            part("RPN", 40.0, 80.0, kept=150 * MEBIBYTE),
            part("heads", 89.4, 119.7, kept=90 * MEBIBYTE),
            part("post-processing", 0.1, None),
        ),
        "parts_ratio": 1.0,
        "outside_s": 3e-4,
        "boxes": 1.0,
        "trained": Found(proposals=512),
        "operators": operators(),
        "profiled": 5,
        "profiled_s": 2.42,
        "usage": usage(),
        "bottleneck": Bottleneck(
            kind="data",
            shares={"data": 0.5, "copy": 0.0002, "launch": 0.1, "compute": 0.3998},
            how="launching: under torch.profiler, time in no operator",
            advice=("without the wait for data a step would take 1.1 s: --tune tries",),
        ),
        "tuning": Tuning(
            points=tuple(
                TunePoint(
                    workers=workers,
                    prefetch_factor=factor,
                    step=summary(4000 / rate, n=8),
                    images_per_s=rate,
                    waiting=waiting,
                )
                for workers, factor, rate, waiting in tried
            ),
            workers=2,
            prefetch_factor=2,
            within=0.03,
        ),
        "unreadable": ("data/oxford-iiit-pet/images/Abyssinian_34.jpg (OSError: truncated)",),
        "notes": ("1 of 3680 images to train on have no XML and cannot be read",),
    }
    return DetectionRun.model_validate({**fields, **changes})


def on_gpu() -> DetectionRun:
    """One epoch of made-up images in bfloat16, nothing tuned."""
    return run(
        recipe=recipe(
            data="synthetic", epochs=1, workers=0, limit=None, pretrained=False,
            precision="bfloat16", model="retinanet_resnet50_fpn",
        ),
        environment=environment(
            device=DeviceInfo(
                kind="cuda", name="NVIDIA H100", slug="nvidia-h100", memory_bytes=80 * 2**30
            )
        ),
        model_type="RetinaNet",
        epochs=(epoch(1, allocated=6 * 2**30, reserved=8 * 2**30, unreadable=0),),
        trained=Found(),
        operators=operators(device_s=0.002),
        usage=usage(device=0.42, allocated=5 * 2**30),
        bottleneck=Bottleneck(
            kind="launch",
            shares={"data": 0.1, "copy": 0.1, "launch": 0.6, "compute": 0.2},
            how="launching: under torch.profiler, time in which no kernel ran",
            advice=("the device waits for Python: a larger batch gives it more work at once",),
        ),
        tuning=None,
        unreadable=(),
        notes=(),
    )  # fmt: skip


def begun() -> DetectionRun:
    """As little as a record can say."""
    return run(
        epochs=(), measured=0, step=None, phases=(), parts=(), parts_ratio=None, outside_s=0,
        boxes=None, trained=Found(), operators=(), profiled=0, profiled_s=None, usage=None,
        bottleneck=None, tuning=None, unreadable=(), notes=(),
    )  # fmt: skip


SAMPLES = {"estimates": estimates, "single": single, "run": run, "on_gpu": on_gpu}
