"""What the verbs' options have in common: what runs, and what comes out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from layerbench.cli import _completion, _output
from layerbench.cli._generated import fields
from layerbench.errors import UsageError
from layerbench.records.bounds import Positive
from layerbench.records.options import MEASURING, OUTCOME, WHAT_RUNS, option
from layerbench.records.view import USUAL, View
from layerbench.records.workload import (
    PRECISIONS,
    ChannelsLast,
    Compile,
    DType,
    Frozen,
    Mode,
    Precision,
    RandomSeed,
)

if TYPE_CHECKING:
    from layerbench.records.workload import Workload
    from layerbench.store.paths import Placed

Computed = Annotated[
    Precision | None,
    option(
        PRECISIONS,
        panel=WHAT_RUNS,
        default_text="fp32; for package.module:callable and file.py:callable what the model has",
    ),
]
Dtype = Annotated[
    DType | None,
    option(
        "Older name of --precision: float32, float16, bfloat16 or float64.",
        panel=WHAT_RUNS,
        default_text=False,
    ),
]
Checkpoint = Annotated[
    str | None,
    option(
        "File of weights to load onto the model: a state dict as .pth, .pt, .bin or .ckpt, or "
        ".safetensors.",
        panel=WHAT_RUNS,
        metavar="FILE",
    ),
]
Ddp = Annotated[
    bool,
    option(
        "One process of a training with DistributedDataParallel: its buckets of gradients count; "
        "needs --train.",
        panel=WHAT_RUNS,
    ),
]
Quiet = Annotated[bool, option("No progress bar.", "--quiet", "-q", panel=OUTCOME)]
Threshold = Annotated[
    float,
    option(
        "Changes between records up to this are none.", metavar="PERCENT", default_text="5%", gt=0
    ),
]
SAME = 0.05
Ceilings = Annotated[
    bool,
    option(
        "Measure afterwards what the device reaches at best: it says what bounds a layer.",
        "--ceilings/--no-ceilings",
        panel=MEASURING,
    ),
]
Strict = Annotated[
    bool,
    option(
        "Exit with status 1, and write nothing, if the machine is busy or the whole model's "
        "verdict is not stable.",
        panel=MEASURING,
    ),
]
NamedModel = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="The model, instead of --model.", autocompletion=_completion.models
    ),
]
NamedInput = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT", help="The input, instead of --input.", autocompletion=_completion.inputs
    ),
]


def on_first_screen(rows: str) -> Any:  # noqa: ANN401 - to be put into `Annotated`
    """The fields of what is shown by a verb whose first screen has these rows, and no layers."""
    top = option(f"Number of {rows} on the first screen.")
    return fields("full", "top", instead={"top": top})


def out(files: str) -> Any:  # noqa: ANN401 - to be put into `Annotated`
    """The option of the folder that these files are written to."""
    text = f"Write {files}; without it the report goes to the terminal."
    return option(text, panel=OUTCOME, metavar="DIR")


def formats(names: str, usual: str = "txt,json") -> Any:  # noqa: ANN401 - to be put into `Annotated`
    """The option of the formats of these names."""
    return option(
        f"{names}; several with commas.",
        "--format",
        panel=OUTCOME,
        metavar="LIST",
        default_text=f"{usual} with --out, else txt",
    )


Formats = Annotated[list[str] | None, formats("txt, json, csv, md, html")]


class WorkloadOptions(Frozen):
    """What runs, as a command line says it."""

    PANEL: ClassVar[str] = WHAT_RUNS

    model: Annotated[
        str,
        option(
            "A torchvision model's name, timm:NAME, hf:NAME, smp:ARCHITECTURE/ENCODER, "
            "open_clip:NAME, package.module:callable, path/to/file.py:callable, or a file of "
            "torch.export (.pt2) or TorchScript (.pt).",
            "--model",
            "-m",
            metavar="SPEC",
        ),
    ] = "mobilenet_v2"
    input: Annotated[
        str | None,
        option(
            "cityscapes, pascal, imagenet, coco, cifar100, or a shape: NxCxHxW, or CxHxW with "
            "--batch. Default: the model family's usual input.",
            "--input",
            "--i",
            "-i",
            metavar="NAME|SHAPE",
        ),
    ] = None
    inputs: Annotated[
        str | None,
        option(
            "File of your own inputs, in place of random ones: .pt, .pth, .npz or .json.",
            metavar="FILE",
        ),
    ] = None
    batch: Annotated[
        Positive | None, option("Number of images in a forward.", default_text="1")
    ] = None
    mode: Annotated[Mode, option("eval or train (forward only).")] = "eval"
    precision: Computed = None
    dtype: Dtype = None
    channels_last: ChannelsLast = False
    compile: Annotated[
        Compile,
        option(
            "Run the model under torch.compile in this mode: default, reduce-overhead, "
            "max-autotune or max-autotune-no-cudagraphs; False does not compile. A layer's time is "
            "then its part of the kernels that it is in.",
            metavar="[=MODE]",
            default_text="False; --compile alone is --compile=default",
        ),
    ] = False
    cuda_graph: Annotated[
        bool,
        option(
            "Capture the forward as a CUDA graph, and time its replay beside the forward without "
            "it; on a GPU."
        ),
    ] = False
    weights: Annotated[
        str | None,
        option(
            "DEFAULT or a name of the library's weights, which it loads where the model runs. "
            "Random ones take the same time and memory.",
            default_text="random ones",
        ),
    ] = None
    checkpoint: Checkpoint = None
    seed: RandomSeed = 0

    def workload(self, **changes: Any) -> Workload:  # noqa: ANN401 - fields of many kinds
        """What that is; loads torch.

        Args:
            changes: of the options.

        Raises:
            UsageError: one of them makes no sense.
        """
        from layerbench import zoo
        from layerbench.cli._streams import model_output_aside

        settings = self.model_dump() | changes
        channels_last = settings.pop("channels_last")
        settings["memory_format"] = "channels_last" if channels_last else "contiguous"
        with model_output_aside():
            return zoo.resolve(settings.pop("model"), settings.pop("input"), **settings)


def as_named(what: WorkloadOptions, model: str | None, input: str | None) -> WorkloadOptions:
    """The options, with a model and an input that were said without an option's name.

    Raises:
        UsageError: one of them was said in both ways.
    """
    named = {"model": model, "input": input}
    said = {name: value for name, value in named.items() if value is not None}
    for name, value in said.items():
        if name in what.model_fields_set:
            raise UsageError(f"say the {name} once: {value}, or --{name} {getattr(what, name)}")
    return what.model_copy(update=said)


def checked_formats(
    names: list[str] | None, out: Path | None, usual: str = "txt,json", *, step: bool = False
) -> list[str]:
    """The formats to write, before a long run: there are such, and the folder can be written.

    Args:
        names: as the command line says them.
        out: the folder.
        usual: the formats where it says none, with a folder.
        step: whether the record is of a training step.

    Raises:
        UsageError: no such format, or not for such a record.
        OutputError: nothing can be written there.
    """
    from layerbench import reporters
    from layerbench.store import writing

    names = names_or_usual(names, out, usual)
    for name in names:
        reporters.check(name, profile=False, step=step)
    if out is not None:
        writing.check_writable(out)
    return names


def names_or_usual(names: list[str] | None, out: Path | None, usual: str = "txt,json") -> list[str]:
    """The formats to write: the text, and with a folder the usual ones, where none is named."""
    return names or ("txt" if out is None else usual).split(",")


def deliver(record: Placed, names: list[str], out: Path | None, view: View = USUAL) -> list[Path]:
    """Print a record in these formats, or write them beside each other and print where.

    Args:
        record: of any kind.
        names: formats.
        out: the folder; ``None`` prints the reports themselves.
        view: what is shown.

    Returns:
        where they were written.
    """
    say_what_is_not_shown(record, view)
    if out is not None:
        places = written(record, names, out, view)
        for place in places:
            typer.echo(str(place))
        return places
    for name in names:
        show(name, record, view)
    return []


def say_what_is_not_shown(record: Frozen, view: View) -> None:
    """Tell what of the layers that somebody asked for the record does not know."""
    from layerbench.analysis.selection import not_shown

    for line in not_shown(record, view):
        _output.complain(line)


def show(format: str, record: Frozen, view: View = USUAL) -> None:
    """Print a report; of a text to a terminal the first screen, unless all of it is wanted.

    Args:
        format: its name.
        record: of any kind.
        view: what is shown.
    """
    from layerbench import reporters

    if format != "txt" or view.full or not sys.stdout.isatty():
        say(reporters.render(format, record, view))
        return
    from layerbench.reporters.screen import columns

    view = view.model_copy(update={"width": columns()})
    say(reporters.render("screen", record, view))
    _output.complain("the first screen of the report: --full shows all of it")


def say(text: str) -> None:
    """Print a report; to a terminal no character that it would obey, into a pipe all as it is."""
    from layerbench.text import visible

    if sys.stdout.isatty():
        text = "\n".join(map(visible, text.split("\n")))
    typer.echo(text, nl=False)


def written(record: Placed, names: list[str], out: Path, view: View = USUAL) -> list[Path]:
    """Write a record in these formats beside each other.

    Args:
        record: of any kind with one report.
        names: formats.
        out: the folder.
        view: what is shown.

    Returns:
        where.

    Raises:
        OutputError: one of them cannot be written.
    """
    from layerbench import reporters
    from layerbench.store import paths, writing

    base = paths.place(record, out)
    places = [base.with_suffix(reporters.suffix(name)) for name in names]
    for place, name in zip(places, names, strict=True):
        writing.write_text(place, reporters.render(name, record, view))
    return places
