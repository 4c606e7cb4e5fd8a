"""What the verbs' options have in common: declaring them, and reading what was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerbench.errors import UsageError

if TYPE_CHECKING:
    from layerbench.workload import Workload

WORKLOAD = "What runs"
REPORT = "What comes out"

DTYPES = ("float32", "float16", "bfloat16", "float64")
MODES = ("eval", "train")

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
    typer.Option(help="Images per forward.", show_default="1", rich_help_panel=WORKLOAD),
]
Dtype = Annotated[
    str, typer.Option(help="float32, float16, bfloat16 or float64.", rich_help_panel=WORKLOAD)
]
ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", help="NHWC memory format.", rich_help_panel=WORKLOAD)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar.", rich_help_panel=REPORT)
]


def workload_of(given: Mapping[str, Any]) -> Workload:
    """What the options under `WORKLOAD` say to run; loads torch.

    Args:
        given: their values by name.

    Raises:
        UsageError: one of them cannot be meant.
    """
    from layerbench import zoo

    return zoo.resolve(
        given["model"],
        given["input"],
        batch=given["batch"],
        dtype=one_of("--dtype", given["dtype"], DTYPES),
        memory_format="channels_last" if given["channels_last"] else "contiguous",
        mode=one_of("--mode", given["mode"], MODES),
        seed=given["seed"],
        weights=given["weights"],
        compile=given["compile"],
    )


def formats(text: str | None, out: Path | None) -> list[str]:
    """The formats asked for; the text and the record where a folder is written."""
    text = text if text is not None else ("txt" if out is None else "txt,json")
    return [name.strip() for name in text.split(",") if name.strip()]


def at_least(option: str, value: int, least: int) -> int:
    """The value, or a `UsageError`."""
    if value < least:
        raise UsageError(f"{option} must be at least {least}, got {value}")
    return value


def one_of(option: str, value: str, known: tuple[str, ...]) -> Any:  # noqa: ANN401 - a Literal
    """The value if it is one of those known, or a `UsageError`."""
    if value not in known:
        raise UsageError(f"{option} takes {', '.join(known)}, got {value!r}")
    return value


def truth(option: str, value: str) -> bool:
    """A yes or no in one of its spellings, or a `UsageError`."""
    truths = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in truths:
        raise UsageError(f"{option} takes True or False, got {value!r}")
    return truths[value.lower()]
