"""What verbs that measure on a cluster have in common: options, words, connection, endings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from layerbench.cli import _output
from layerbench.cli._generated import said_in
from layerbench.cli._help import current_line
from layerbench.errors import UsageError
from layerbench.records.options import option
from layerbench.records.workload import Frozen, ReadFile

if TYPE_CHECKING:
    from layerbench.cluster.columns import Column, Columns
    from layerbench.cluster.scheduling import Dispatcher, Work
    from layerbench.profilers.progress import Progress

PLACE_OPTIONS = frozenset(
    {"cluster", "devices", "resume", "device", "quiet", "out", "formats", "traceback"}
)
"""Options that are the driver's alone, as are those of what is shown."""
VIEW_OPTIONS = frozenset({"full", "sort", "top", "type", "depth", "kernels", "sentences"})


class ClusterOptions(Frozen):
    """Where on a cluster something is measured."""

    PANEL: ClassVar[str] = "On a cluster"

    cluster: Annotated[
        str | None,
        option(
            "Ray cluster to measure on: auto, HOST:6379, or ray://HOST:10001.",
            metavar="ADDRESS",
            default_text="this machine alone",
        ),
    ] = None
    devices: Annotated[
        list[str] | None,
        option(
            "Devices of the cluster, with commas: all, cpu, a100, or names that nodes were given "
            "as resources.",
            metavar="LIST",
            default_text="all: each node's accelerators, or its CPU",
        ),
    ] = None
    resume: Annotated[bool, option("Only what is missing in the folder of --out.")] = False

    def check(self, device: str | None, out: Path | None) -> bool:
        """Whether a cluster is meant.

        Raises:
            UsageError: the options contradict each other.
        """
        if self.cluster is None:
            for name in ("devices", "resume"):
                if getattr(self, name):
                    raise UsageError(f"--{name} is of a cluster: name one with --cluster")
            return False
        if device is not None:
            raise UsageError("--device is of this machine: name the cluster's with --devices")
        if self.resume and out is None:
            raise UsageError("--resume goes on with the records of a folder: name it with --out")
        return True


def words_without(left_out: Collection[str]) -> list[str]:
    """The running command line's options, besides some, as another process takes them.

    Those that the environment says are among them: another machine's says something else.

    Args:
        left_out: names of parameters.
    """
    line = current_line()
    values, _, _ = line.command.make_parser(line.context).parse_args(args=list(line.words))
    words: list[str] = []
    for parameter in line.command.get_params(line.context):
        name = parameter.name
        if name in left_out or parameter.param_type_name != "option":
            continue
        if name in values:
            words += _said(parameter, values[name])
        elif name in said_in(line.context):
            words += _said(parameter, line.context.params[name])
    return words


def _said(option: Any, value: Any) -> list[str]:  # noqa: ANN401 - typer's own copy of click
    """An option with its value, in words."""
    if not getattr(option, "is_flag", False):
        several = value if isinstance(value, (list, tuple)) else [value]
        return [f"{_long(option.opts)}={one}" for one in several]
    spellings = option.opts if value else option.secondary_opts
    return [_long(spellings)] if spellings else []


def _long(spellings: Sequence[str]) -> str:
    return next((one for one in spellings if one.startswith("--")), spellings[0])


@dataclass
class Joined:
    """A connection to a cluster, with what was sent there.

    Attributes:
        ray: connected.
        words: options for the nodes.
        renamed: each of the user's files and models as a node has to name it.
        files: that were sent, as the user named them.
        digest: of all that was sent; empty where nothing was.
    """

    ray: Any
    words: tuple[str, ...]
    renamed: dict[str, str] = field(default_factory=dict)
    files: tuple[ReadFile, ...] = ()
    digest: str = ""


@contextmanager
def joined(address: str, models: Sequence[str], left_out: Collection[str]) -> Iterator[Joined]:
    """A cluster to measure on, with the user's own files.

    Args:
        address: of the cluster.
        models: as the user named them.
        left_out: options that the nodes do not get.

    Raises:
        UsageError: there is no such cluster, or the files are too large to send.
    """
    from layerbench.cluster.connection import connected
    from layerbench.cluster.shipping import Parcel

    with tempfile.TemporaryDirectory(prefix="layerbench-sent-") as folder:
        parcel = Parcel(Path(folder))
        renamed = {model: parcel.add(model) for model in models}
        words = tuple(_sent(word, parcel.add) for word in words_without(left_out))
        sends = Path(folder) if parcel.files else None
        with connected(address, sends) as ray:
            yield Joined(ray, words, renamed, tuple(parcel.files), parcel.digest)


def _sent(word: str, add: Callable[[str], str]) -> str:
    name, equals, value = word.partition("=")
    return f"{name}={add(value)}" if equals else word


def dispatcher(
    joined: Joined,
    devices: Sequence[str] | None,
    work_of: Callable[[Columns, Column], Work],
) -> Dispatcher:
    """A dispatcher that has asked every node.

    Raises:
        UsageError: a device that is asked for is nowhere.
    """
    from layerbench.cluster.nodes import Wanted
    from layerbench.cluster.scheduling import Dispatcher

    wanted = Wanted(tuple(devices)) if devices else Wanted()
    made = Dispatcher(joined.ray, wanted, work_of, tell=_output.complain)
    made.begin()
    return made


class Counted(Protocol):
    """Work whose progress can be told."""

    @property
    def done(self) -> int:
        """How many of its tasks have ended."""

    @property
    def total(self) -> int:
        """How many it has."""


def run(dispatcher: Dispatcher, works: Sequence[Counted], progress: Progress, phase: str) -> bool:
    """Run all work, and tell how far it is.

    Args:
        dispatcher: of the work.
        works: of each column; more may come while it runs.
        progress: hears of each end.
        phase: what the tasks are, for people.

    Returns:
        whether somebody interrupted.
    """

    def step() -> None:
        total = sum(work.total for work in works)
        progress.step(phase, sum(work.done for work in works), total)

    try:
        step()
        for _ in dispatcher.run():
            step()
    except KeyboardInterrupt:
        return True
    return False
