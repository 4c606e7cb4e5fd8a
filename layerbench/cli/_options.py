"""What the verbs' options have in common: declaring them, and reading what was given."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.errors import TRUTHS, UsageError

if TYPE_CHECKING:
    from layerbench.records.workload import Frozen, Workload

WORKLOAD = "What runs"
REPORT = "What comes out"
PLAN = "Where it runs"

DTYPES = ("float32", "float16", "bfloat16", "float64")
MODES = ("eval", "train")
PRECISIONS = ("float32", "bfloat16", "float16")
BOXES_FROM = ("trimap", "xml")
LABELS = ("breed", "species")

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="SPEC",
        help="A torchvision model's name, timm:NAME, package.module:callable or "
        "path/to/file.py:callable.",
        rich_help_panel=WORKLOAD,
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        "--i",
        "-i",
        metavar="NAME|SHAPE",
        help="cityscapes, pascal, imagenet, coco, cifar100, or a shape: NxCxHxW, or CxHxW "
        "with --batch. Default: the model family's usual input.",
        rich_help_panel=WORKLOAD,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(help="Number of images in a forward.", show_default="1", rich_help_panel=WORKLOAD),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, float16, bfloat16 or float64: what floating weights and inputs are "
        "converted to.",
        show_default="float32; for package.module:callable and file.py:callable what the model has",
        rich_help_panel=WORKLOAD,
    ),
]
ChannelsLast = Annotated[
    bool,
    typer.Option(
        "--channels-last",
        help="Use the channels-last (NHWC) memory format.",
        rich_help_panel=WORKLOAD,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar.", rich_help_panel=REPORT)
]


Classifier = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="SPEC",
        help="vit, deit, swin or resnet (timm's base models), a torchvision model's name, "
        "timm:NAME, package.module:callable or path/to/file.py:callable.",
        rich_help_panel=WORKLOAD,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="cifar100, imagenet (any set with a folder for each class), digits, synthetic.",
        show_default="phase 1: imagenet, phase 2: cifar100",
        rich_help_panel=WORKLOAD,
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data_dir",
        "--data-dir",
        metavar="DIR",
        help="Folder that the data sets lie in.",
        rich_help_panel=WORKLOAD,
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download",
        help="Fetch the data set if it is missing and can be fetched.",
        rich_help_panel=WORKLOAD,
    ),
]
MostPixels = Annotated[
    int,
    typer.Option(
        "--most_pixels",
        "--most-pixels",
        help="Pixels of an image at most: a larger one could fill the memory and is not read.",
        rich_help_panel=WORKLOAD,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="Number of images that synthetic makes up.",
        show_default="1024",
        rich_help_panel=WORKLOAD,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="N|HxW",
        help="Height and width of the images as the model takes them.",
        show_default="what the model is meant for",
        rich_help_panel=WORKLOAD,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch_size",
        "--batch-size",
        "--batch",
        help="Number of images in a step.",
        rich_help_panel=WORKLOAD,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Device: cpu, cuda, cuda:1, xpu or mps.",
        show_default="the accelerator if there is one, else cpu",
        rich_help_panel=PLAN,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Number of intra-op CPU threads.",
        show_default="PyTorch's choice",
        rich_help_panel=PLAN,
    ),
]
BoxedData = Annotated[
    str,
    typer.Option(
        help="pets (Oxford-IIIT Pet), or synthetic: made-up JPEG images with several boxes each.",
        rich_help_panel=WORKLOAD,
    ),
]
BoxesFrom = Annotated[
    str,
    typer.Option(
        help="Boxes of pets: trimap (the whole animal, with its mask) or xml (its head, marked by "
        "hand).",
        rich_help_panel=WORKLOAD,
    ),
]
Labels = Annotated[
    str,
    typer.Option(help="Classes of pets: breed (37) or species (2).", rich_help_panel=WORKLOAD),
]
Autocast = Annotated[
    str,
    typer.Option(
        help="Number format: float32, or by autocast bfloat16 or float16.", rich_help_panel=WORKLOAD
    ),
]
MinSize = Annotated[
    int | None,
    typer.Option(
        "--min_size",
        "--min-size",
        help="The shorter side that a detector resizes its images to.",
        show_default="its own, 800 for most",
        rich_help_panel=WORKLOAD,
    ),
]
Workers = Annotated[
    int, typer.Option(help="Number of processes that load images.", rich_help_panel=PLAN)
]


def size_of(text: str | None) -> tuple[int, int] | None:
    """``224`` or ``480x640`` as height and width.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) <= 2 and all(part.isdigit() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise UsageError(f"--size takes a number such as 224, or HxW such as 480x640, got {text!r}")


def numbers(option: str, text: str) -> list[int]:
    """Positive numbers with commas, ascending and each once; ``1,2,4,...,256`` doubles.

    Raises:
        UsageError: they cannot be read.
    """
    parts = [part.strip() for part in text.split(",")]
    found: list[int] = []
    for index, part in enumerate(parts):
        if part == "..." and found and index + 1 < len(parts) and parts[index + 1].isdigit():
            while found[-1] * 2 < int(parts[index + 1]):
                found.append(found[-1] * 2)
        elif part.isdigit() and int(part) > 0:
            found.append(int(part))
        else:
            raise UsageError(f"{option} takes positive numbers with commas, got {text!r}")
    return sorted(set(found))


Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="LIST",
        help="txt, json, csv, md, html; several with commas.",
        show_default="txt,json with --out, else txt",
        rich_help_panel=REPORT,
    ),
]


def checked_formats(text: str | None, out: Path | None) -> list[str]:
    """The formats asked for, before a long run: they are known and the folder can be written.

    Raises:
        UsageError: no such format, or not for such a record.
        OutputError: nothing can be written there.
    """
    from layerbench import reporters
    from layerbench.store import writing

    names = formats(text, out)
    for name in names:
        reporters.check(name, profile=False)
    if out is not None:
        writing.check_writable(out)
    return names


def deliver(record: Frozen, names: list[str], path: Path | None) -> list[Path]:
    """Print a record in these formats, or write them beside each other and print where.

    Args:
        record: of any kind.
        names: formats.
        path: without an ending; ``None`` prints the reports themselves.

    Returns:
        where they were written.
    """
    if path is not None:
        places = written(record, names, path)
        for place in places:
            typer.echo(str(place))
        return places
    from layerbench import reporters

    for name in names:
        say(reporters.render(name, record))
    return []


def say(text: str) -> None:
    """Print a report; to a terminal no character that it would obey, into a pipe all as it is."""
    from layerbench.text import visible

    if sys.stdout.isatty():
        text = "\n".join(map(visible, text.split("\n")))
    typer.echo(text, nl=False)


def written(record: Frozen, names: list[str], path: Path) -> list[Path]:
    """Write a record in these formats beside each other.

    Args:
        record: of any kind.
        names: formats.
        path: without an ending.

    Returns:
        where.

    Raises:
        OutputError: one of them cannot be written.
    """
    from layerbench import reporters
    from layerbench.store import writing

    places = [path.with_suffix(reporters.suffix(name)) for name in names]
    for place, name in zip(places, names, strict=True):
        writing.write_text(place, reporters.render(name, record))
    return places


def workload_of(given: Mapping[str, Any]) -> Workload:
    """What the options under `WORKLOAD` say to run; loads torch.

    Args:
        given: their values by name.

    Raises:
        UsageError: one of them makes no sense.
    """
    from layerbench import zoo
    from layerbench.cli._streams import model_output_aside

    settings = {
        "batch": given["batch"],
        "dtype": dtype_of(given["dtype"]),
        "memory_format": "channels_last" if given["channels_last"] else "contiguous",
        "mode": one_of("--mode", given["mode"], MODES),
        "seed": given["seed"],
        "weights": given["weights"],
        "compile": given["compile"],
    }
    with model_output_aside():
        return zoo.resolve(given["model"], given["input"], **settings)


def formats(text: str | None, out: Path | None) -> list[str]:
    """The formats asked for; the text and the record where a folder is written."""
    text = text if text is not None else ("txt" if out is None else "txt,json")
    return [name.strip() for name in text.split(",") if name.strip()]


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:  # noqa: ANN401 - a Literal
    """The value if it is one of those known, or a `UsageError`."""
    if value not in known:
        raise UsageError(f"{option} takes {', '.join(known)}, got {value!r}")
    return value


def dtype_of(value: str | None) -> Any:  # noqa: ANN401 - a Literal
    """The number format asked for, or a `UsageError`; ``None`` leaves it to the model."""
    return None if value is None else one_of("--dtype", value, DTYPES)


def truth(option: str, value: str) -> bool:
    """A yes or no in one of its spellings, or a `UsageError`."""
    if value.lower() not in TRUTHS:
        raise UsageError(f"{option} takes True or False, got {value!r}")
    return TRUTHS[value.lower()]
