"""What is trained and how, of classifiers and detectors, and the options that trainings share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from layerbench.records.bounds import (
    MOST_FIGURE,
    MOST_SEED,
    Amount,
    Count,
    Name,
    Positive,
    is_none,
)
from layerbench.records.defaults import MOST_PIXELS
from layerbench.records.options import LEARNING, OUTCOME, PLACE, WHAT_RUNS, Device, Threads, option
from layerbench.records.workload import (
    PRECISIONS,
    ChannelsLast,
    CheckpointActivations,
    Frozen,
    Precision,
    StepOptions,
)

# As it was said before there were more of them: the formats that autocast computes in.
_OLDER = {"float32": "fp32", "bfloat16": "amp-bf16", "float16": "amp"}


def _newer(precision: object) -> object:
    return _OLDER.get(precision, precision) if isinstance(precision, str) else precision


# Of Adam and its like. The usual 1e-8 is 0 in float16, whose smallest number is 6e-8: they would
# divide by 0. Users of PyTorch take this: https://discuss.pytorch.org/t/adam-half-precision-nans/1765
EPS_FLOAT16 = 1e-4

TrainingPrecision = Annotated[Precision, BeforeValidator(_newer)]
Unreadable = Literal["fatal", "skip"]
# Of an image, in pixels.
Side = Positive
BoxesFrom = Literal["trimap", "xml"]
Labels = Literal["breed", "species"]

StepBatch = Annotated[
    Positive, option("Number of images in a step.", "--batch_size", "--batch", panel=WHAT_RUNS)
]
MicroBatch = Annotated[
    Positive,
    option(
        "Number of images in a forward, in each process; a step has --gradient-accumulation times "
        "as many.",
        "--batch_size",
        "--batch",
        panel=WHAT_RUNS,
    ),
]
TrainedIn = Annotated[TrainingPrecision, option(PRECISIONS, panel=LEARNING)]
WhatUnreadableDoes = Annotated[
    Unreadable,
    option(
        "What an image that cannot be read does: fatal, or skip (named and counted).",
        panel=LEARNING,
    ),
]
TrainingSeed = Annotated[
    int,
    Field(ge=0, le=MOST_SEED),
    option("Seed of the weights, the order and the augmentation.", panel=LEARNING),
]
SyntheticSamples = Annotated[
    Positive | None,
    option(
        "Number of synthetic images to train on.",
        panel=WHAT_RUNS,
        default_text="1024; 256 for detectors",
    ),
]
MinSize = Annotated[
    Side | None,
    option(
        "The shorter side that a detector resizes its images to.",
        "--min_size",
        panel=WHAT_RUNS,
        default_text="its own, 800 for most",
    ),
]
Boxes = Annotated[
    BoxesFrom,
    option(
        "Boxes of pets: trimap (the whole animal, with its mask) or xml (its head, marked by "
        "hand).",
        panel=WHAT_RUNS,
    ),
]
Classes = Annotated[
    Labels, option("Classes of pets: breed (37) or species (2).", "--classes", panel=WHAT_RUNS)
]
Workers = Annotated[
    Count,
    option(
        "Number of further processes that load images.", "--workers", "--num_workers", panel=PLACE
    ),
]


def _folder(place: str | Path) -> Path:
    return Path(place)


class DataOptions(Frozen):
    """Where data sets lie."""

    data_dir: Annotated[
        str | Path,
        AfterValidator(_folder),
        option("Folder that the data sets lie in.", "--data_dir", panel=WHAT_RUNS, metavar="DIR"),
    ] = Path("data")
    download: Annotated[
        bool, option("Fetch the data set if it is missing and can be fetched.", panel=WHAT_RUNS)
    ] = False


class MachineOptions(DataOptions):
    """Where a training runs, and what changes no weight."""

    most_pixels: Annotated[
        Positive,
        option(
            "Pixels of an image at most: a larger one could fill the memory and is not read.",
            "--most_pixels",
            panel=WHAT_RUNS,
        ),
    ] = MOST_PIXELS
    device: Device = None
    threads: Threads = None


class Recipe(StepOptions):
    """What is trained, and how: with the data, everything that the weights depend on.

    Attributes:
        phase: where the defaults came from.
        weights: that the model begins with; ``None`` for random ones.
        batch: of each process; with several processes, or micro-batches, a step has as many times
            more.
        ranks: processes.
        precision: of the forward by autocast; else of weights, gradients and optimizer, too.
        patience: epochs without a better validation accuracy before the run stops.
        limit: also validation batches.
    """

    model: Annotated[
        Name,
        option(
            "vit, deit, swin or resnet (timm's base models), a torchvision model's name, "
            "timm:NAME, hf:NAME, package.module:callable or path/to/file.py:callable.",
            "--model",
            "-m",
            panel=WHAT_RUNS,
            metavar="SPEC",
        ),
    ]
    data: Annotated[
        Name,
        option(
            "cifar100, imagenet (any set with a folder for each class), digits, synthetic.",
            panel=WHAT_RUNS,
            default_text="phase 1: imagenet, phase 2: cifar100",
        ),
    ]
    phase: Annotated[
        Literal[1, 2] | None,
        option("1: ImageNet-1K from scratch. 2: fine-tuning on CIFAR-100.", panel=WHAT_RUNS),
    ] = None
    weights: Name | None = None
    size: Annotated[
        tuple[Count, Count],
        option(
            "Height and width of the images as the model takes them.",
            panel=WHAT_RUNS,
            metavar="N|HxW",
            default_text="what the model is meant for",
        ),
    ]
    batch: MicroBatch
    ranks: Positive = 1
    epochs: Annotated[
        Positive, option("Epochs to train at most.", panel=LEARNING, default_text="50")
    ]
    lr: Annotated[
        float,
        Field(gt=0, le=MOST_FIGURE),
        option("The largest learning rate, of AdamW.", panel=LEARNING, default_text="0.001"),
    ]
    weight_decay: Annotated[
        Amount,
        option("Weight decay of AdamW.", "--weight_decay", panel=LEARNING, default_text="0.1"),
    ]
    warmup_epochs: Annotated[
        Amount,
        option(
            "Epochs in which the learning rate climbs; then it falls to 0 linearly.",
            "--warmup_epochs",
            panel=LEARNING,
            default_text="phase 1: 5, phase 2: 1, at most a tenth of the epochs",
        ),
    ]
    precision: TrainedIn = "fp32"
    patience: Positive | None = None
    limit: Annotated[
        Positive | None,
        option("Batches an epoch at most, for a trial.", panel=LEARNING, default_text="all"),
    ] = None
    samples: SyntheticSamples = None
    channels_last: ChannelsLast = False
    unreadable: WhatUnreadableDoes = "fatal"
    seed: TrainingSeed = 0

    @property
    def step_images(self) -> int:
        """Images of a step in each process: of all its micro-batches."""
        return self.batch * self.gradient_accumulation


class DetectionRecipe(Frozen):
    """What a detector is trained on, how, and what of it is profiled.

    Attributes:
        momentum, weight_decay: of SGD.
        profile_steps: of the first epoch.
        checkpoint_activations: as in `StepOptions`.
    """

    model: Annotated[
        Name,
        option(
            "A torchvision detection model.", "--model", "-m", panel=WHAT_RUNS, metavar="DETECTOR"
        ),
    ] = "fasterrcnn_resnet50_fpn"
    data: Annotated[
        Name,
        option("pets (Oxford-IIIT Pet), or synthetic.", "--data", "--dataset", panel=WHAT_RUNS),
    ] = "pets"
    boxes: Boxes = "trimap"
    labels: Classes = "breed"
    pretrained: Annotated[
        bool,
        option(
            "Begin with torchvision's weights, fetched if they are not there.",
            "--pretrained/--no-pretrained",
            panel=WHAT_RUNS,
            default_text="random weights",
        ),
    ] = False
    min_size: MinSize = None
    epochs: Annotated[
        Positive, option("Epochs to train.", "--epochs", "--num_epochs", panel=LEARNING)
    ] = 1
    batch: StepBatch = 2
    limit: Annotated[
        Positive | None,
        option("Steps an epoch at most, for a trial.", panel=LEARNING, default_text="all"),
    ] = None
    workers: Workers = 0
    prefetch_factor: Annotated[
        Positive,
        option("Batches that each loading process has ready.", "--prefetch_factor", panel=PLACE),
    ] = 2
    lr: Annotated[
        float,
        Field(gt=0, le=MOST_FIGURE),
        option("Learning rate of SGD with momentum.", panel=LEARNING),
    ] = 0.005
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: Amount = 0.0005
    precision: TrainedIn = "fp32"
    checkpoint_activations: CheckpointActivations = Field(default=None, exclude_if=is_none)
    warmup: Annotated[
        Count, option("Number of first steps that count for no figure.", panel=OUTCOME)
    ] = 3
    profile_steps: Annotated[
        Count,
        option(
            "Steps under torch.profiler; they count for no time. 0: none.",
            "--profile_steps",
            panel=OUTCOME,
        ),
    ] = 5
    samples: SyntheticSamples = None
    size: Annotated[
        tuple[Side, Side] | None,
        option(
            "Height and width of the synthetic images.",
            panel=WHAT_RUNS,
            metavar="N|HxW",
            default_text="375x500",
        ),
    ] = None
    unreadable: WhatUnreadableDoes = "fatal"
    seed: TrainingSeed = 0
