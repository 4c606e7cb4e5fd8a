"""Out of memory in several ways: what the errors say, and whether they are recognised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.gpu.step import Figures, Settings, forward_of
from layerbench import units, zoo
from layerbench.environment.devices import Device

# Left free when libraries first ask for memory.
LEFT_BYTES = 16 << 20
# No single try for less, when memory is filled.
PIECE_BYTES = 2 << 20
FIRST_BATCH, DOUBLINGS = 1024, 12
TEXT = 600


@dataclass
class Attempt:
    """Something that may run out of memory.

    Attributes:
        what: in words.
        free: bytes before it.
        error: the class of what it raised; ``""`` where it did its work.
        text: what that says, its beginning.
        recognised: whether layerbench takes it for a lack of memory.
        requested: bytes that layerbench reads out of it.
        usable: whether the device still computes afterwards.
    """

    what: str
    free: int
    error: str = ""
    text: str = ""
    recognised: bool | None = None
    requested: int | None = None
    usable: bool | None = None


@dataclass
class Limit(Figures):
    """Attempts in order."""

    attempts: list[Attempt] = field(default_factory=list)

    def headline(self) -> str:
        """How many errors are recognised, and which not."""
        failed = [attempt for attempt in self.attempts if attempt.error]
        if not failed:
            return ""
        missed = [attempt.what for attempt in failed if not attempt.recognised]
        text = f"{len(failed) - len(missed)} of {len(failed)} errors recognised"
        return f"{text}; not: {', '.join(missed)}" if missed else text

    def table(self) -> list[list[str]]:
        """A row an attempt."""
        return [
            ["what", "free before", "error", "recognised", "usable after", "it says"],
            *(
                [
                    attempt.what,
                    units.bytes_(attempt.free),
                    attempt.error or "none",
                    {None: "-", True: "yes", False: "no"}[attempt.recognised],
                    {None: "-", True: "yes", False: "no"}[attempt.usable],
                    " ".join(attempt.text.split())[:150],
                ]
                for attempt in self.attempts
            ),
        ]


def run(settings: Settings) -> Iterator[Limit]:
    """Libraries' first calls with memory full, one tensor too large, batches that grow."""
    device = settings.opened()
    figures = Limit()
    if device.kind == "cpu":
        figures.absent["all"] = "on a CPU the system ends a process that takes too much memory"
        yield figures
        return

    def attempt(what: str, work: Callable[[], object]) -> Limit:
        figures.attempts.append(_attempt(what, work, device))
        return figures

    torch.ones(1, device=device.torch_device)  # the context takes its memory first
    # Before anything has made the libraries' handles: they are made once in a process.
    for what, first_call in _first_calls(device.torch_device):
        filling = _filled(device, LEFT_BYTES)
        yield attempt(f"{what}, memory full", first_call)
        filling.clear()
        device.forget_freed()
    whole = device.memory().total_bytes
    yield attempt("one tensor larger than the device", partial(_bytes, whole * 2, device))
    for model in settings.models[:2]:
        if not figures.attempts[-1].usable:
            figures.absent[model] = "the device is of no use to this process any more"
            continue
        yield from _growing(settings, model, device, attempt)


def _first_calls(where: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    matrix = torch.ones(256, 256, device=where)
    yield "torch.mm", lambda: matrix @ matrix
    images, convolution = torch.ones(4, 8, 32, 32, device=where), nn.Conv2d(8, 8, 3).to(where)
    yield "a convolution", lambda: convolution(images)
    yield "a convolution, again", lambda: convolution(images)
    batches = torch.ones(8, 64, 64, device=where)
    yield "torch.linalg.inv", lambda: torch.linalg.inv(batches + torch.eye(64, device=where))


def _growing(
    settings: Settings,
    model: str,
    device: Device,
    attempt: Callable[[str, Callable[[], object]], Limit],
) -> Iterator[Limit]:
    """Forwards of a batch that doubles, until one fails."""
    built = settings.built(model, 1)
    shape = built.args[0].shape[1:]
    batch = settings.either(FIRST_BATCH, 256)
    for _ in range(DOUBLINGS):

        def forward(batch: int = batch) -> object:
            images = torch.ones(batch, *shape, device=device.torch_device)
            return forward_of(zoo.Built(built.module, (images,)))()

        figures = attempt(f"{model}, batch {batch}", forward)
        yield figures
        if figures.attempts[-1].error:
            return
        batch *= 2


def _attempt(what: str, work: Callable[[], object], device: Device) -> Attempt:
    made = Attempt(what, device.memory().free_bytes)
    try:
        with torch.no_grad():
            work()
        device.clock().synchronize()
    except Exception as error:
        made.error = type(error).__name__
        made.text = str(error)[:TEXT]
        made.recognised = device.is_out_of_memory(error)
        made.requested = device.requested_bytes(error)
    # After some errors the device is of no use to this process.
    with suppress(Exception):
        device.forget_freed()
    made.usable = _computes(device)
    return made


def _computes(device: Device) -> bool:
    try:
        return bool((torch.ones(4, device=device.torch_device) + 1).sum().item() == 8)
    except Exception:
        return False


def _filled(device: Device, left: int) -> list[Tensor]:
    """Tensors that take all memory but about so much."""
    held: list[Tensor] = []
    piece = device.memory().free_bytes - left
    while piece >= PIECE_BYTES:
        try:
            held.append(_bytes(piece, device))
        except RuntimeError:
            piece //= 2
            continue
        piece = min(piece, device.memory().free_bytes - left)
    return held


def _bytes(count: int, device: Device) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=device.torch_device)
