"""What the steps share: where they run, how much they do, and what they leave behind."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from layerbench import zoo
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.environment.run_context import torch_version
from layerbench.errors import first_line
from layerbench.records.workload import Workload
from layerbench.store.writing import write_text
from layerbench.zoo import Built
from layerbench.zoo.family import on_device

MODELS = ("mobilenet_v2", "resnet50", "swin_t")
TINY = "benchmarks.gpu.tiny:tiny"
LIMIT = "LAYERBENCH_STEP_SECONDS"
"""Variable of the environment with the seconds after which the script stops the step."""


@dataclass(frozen=True)
class Settings:
    """Where a step runs, and how much it does.

    Attributes:
        device: its name, as for ``--device``.
        out: the folder of results.
        quick: a tiny model and a few repeats, to try the steps themselves.
        tell: writes figures of work that gives them while it runs.
    """

    device: str
    out: Path
    quick: bool = False
    tell: Callable[[Figures], None] = lambda _figures: None

    @property
    def models(self) -> tuple[str, ...]:
        """Model specs."""
        return (TINY,) if self.quick else MODELS

    @property
    def size(self) -> int | None:
        """Height and width of the images; ``None`` for what each model is meant for."""
        return 16 if self.quick else None

    def either(self, full: Any, quick: Any) -> Any:
        """One of two amounts."""
        return quick if self.quick else full

    def opened(self) -> Device:
        """The device."""
        return devices.get(self.device)

    def workload(self, model: str, batch: int) -> Workload:
        """What runs."""
        shape = None if self.size is None else f"3x{self.size}x{self.size}"
        return zoo.resolve(model, shape, batch=batch)

    def built(self, model: str, batch: int) -> Built:
        """A model in evaluation mode with its input, on the device."""
        made = on_device(zoo.build(self.workload(model, batch)), self.opened().torch_device)
        made.module.eval()
        return made


@dataclass
class Figures:
    """What a step has found out so far. Times in seconds, sizes in bytes.

    Attributes:
        absent: what could not be done there, and why.
    """

    absent: dict[str, str] = field(default_factory=dict)

    def headline(self) -> str:
        """The figures that matter, in a line."""
        return ""

    def table(self) -> list[list[str]]:
        """Rows for people, the first with the columns' names."""
        return []


Step = Callable[[Settings], Iterator[Figures]]
"""Gives its figures whenever there are more of them: a step that is stopped has left the others."""


def run_step(name: str, step: Step, settings: Settings) -> None:
    """Run a step and write what it has found out, each time that it has something new."""
    begin = time.perf_counter()

    def tell(figures: Figures, finished: bool = False) -> None:
        write(name, figures, settings, time.perf_counter() - begin, finished)

    figures: Figures | None = None
    for figures in step(dataclasses.replace(settings, tell=tell)):
        tell(figures)
    if figures is not None:
        tell(figures, finished=True)


def write(name: str, figures: Figures, settings: Settings, seconds: float, finished: bool) -> None:
    """Write ``<out>/<name>.json`` and ``<out>/<name>.txt``.

    Args:
        name: of the step.
        figures: so far.
        settings: of the step.
        seconds: since it began.
        finished: whether nothing more is to come.
    """
    headline = figures.headline() or "; ".join(figures.absent.values())
    record = {
        "step": name,
        "device": _device_name(settings.device),
        "torch": torch_version(),
        "quick": settings.quick,
        "finished": finished,
        "seconds": round(seconds, 3),
        "headline": headline,
        "figures": dataclasses.asdict(figures),
    }
    write_text(settings.out / f"{name}.json", json.dumps(record, indent=1) + "\n")
    write_text(settings.out / f"{name}.txt", _text(name, headline, figures))


@cache
def _device_name(device: str) -> str:
    """Asked for once: the answer may come from a process of its own."""
    return devices.get(device).describe().name


def _text(name: str, headline: str, figures: Figures) -> str:
    parts = [f"{name}: {headline}"]
    table = figures.table()
    if table:
        parts += ["", tabulate(table[1:], table[0], tablefmt="github", disable_numparse=True)]
    if figures.absent:
        parts += ["", *(f"without {what}: {why}" for what, why in figures.absent.items())]
    return "\n".join(parts) + "\n"


def tried(figures: Figures, what: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """What some work gives; ``None`` where it fails, with the reason among what is absent."""
    try:
        return work(*arguments)
    except Exception as error:
        figures.absent[what] = f"{type(error).__name__}: {first_line(error)}"
        return None


def forward_of(built: Built) -> Callable[[], Any]:
    """A call of the model without gradients."""

    def forward() -> Any:
        with torch.inference_mode():
            return built.module(*built.args, **built.kwargs)

    return forward
