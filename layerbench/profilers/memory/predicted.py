"""A memory prediction: fake tensors, a model of the allocator, stated terms."""

from __future__ import annotations

from layerbench._version import __version__
from layerbench.environment.cards import CardChoice
from layerbench.environment.cards.naming import meant
from layerbench.environment.devices import Device
from layerbench.environment.run_context import input_bytes, torch_version
from layerbench.errors import LayerbenchError, NotEnoughMemory, UsageError
from layerbench.instruments.memory_attribution import hold, peak_bytes
from layerbench.profilers.memory.figures import figures
from layerbench.profilers.memory.on_card import notes_on_format
from layerbench.profilers.memory.replay import Replays
from layerbench.profilers.memory.run_for_gpu import (
    DEVICE,
    FakeDoesNotSuffice,
    RunForGpu,
    run_fake,
    run_for_gpu,
)
from layerbench.records.card import Card
from layerbench.records.memory import MemoryEstimate, Optimizer
from layerbench.records.workload import Workload
from layerbench.units import bytes_
from layerbench.zoo import Built


def predict(
    workload: Workload,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    card: Card | None = None,
) -> MemoryEstimate:
    """Predict the memory that a workload needs on a CUDA device, without one.

    The state predicted is a steady one: libraries have taken their workspaces, an optimizer
    has its state.

    Args:
        workload: what would run; a training workload needs an optimizer.
        optimizer: makes it a training step.
        subject: a model that was handed over, with its inputs; it stays as it was.
        card: that it would run on; ``None`` for a CUDA device that is not named.

    Raises:
        ModelRunError: the model does not take the input.
        NotEnoughMemory: a model that has to run for real on the CPU does not fit there.
    """
    run = run_for_gpu(workload, optimizer=optimizer, subject=subject)
    return estimated(workload, optimizer, run, card)


def check_memory_fits(workload: Workload, device: Device, optimizer: Optimizer | None) -> None:
    """Refuse a real run whose tensors cannot fit, before an operating system kills it.

    Looked at only where the input alone takes a hundredth of what is free; a model that fake
    tensors do not suffice for is let through.

    Raises:
        NotEnoughMemory: with the bytes that the run needs at least, and those that are free.
    """
    free = device.memory().free_bytes
    if input_bytes(workload) * 100 < free:
        return
    try:
        run = run_fake(workload, optimizer, None)
    except (FakeDoesNotSuffice, LayerbenchError):
        return
    needed = min(
        peak_bytes(run.traced.trace, one.sizes) for one in Replays(run.traced.trace).levels
    )
    if needed > free:
        raise NotEnoughMemory(
            f"the run needs at least {bytes_(needed)} for its tensors, and {bytes_(free)} are "
            f"free on {device.kind}: take a smaller input or batch, or predict with --device cuda"
        )


def estimated(
    workload: Workload, optimizer: Optimizer | None, run: RunForGpu, card: Card | None
) -> MemoryEstimate:
    """The record of a run that stands for a GPU's, on a card or on one that is not named."""
    found = figures(run, card)
    device, traced = found.device, run.traced
    held = hold(device.trace, found.sizes, traced.modules, traced.calls)
    return MemoryEstimate.model_validate(
        {
            "workload": workload,
            "device": DEVICE if card is None else card.name,
            "card": card,
            "how": run.how,
            "training": optimizer is not None,
            "optimizer": optimizer,
            "torch": torch_version(),
            "layerbench": __version__,
            "model_type": traced.model_type,
            "peak_bytes": held.peak.bytes,
            "peak_interval": found.peak,
            "reserved_bytes": found.reserved_bytes,
            "reserved_interval": found.reserved,
            "total_bytes": found.total_bytes,
            "total_interval": found.total,
            "peak_owner": held.peak.owner,
            "peak_phase": held.peak.phase,
            "peak_operator": held.peak.operator,
            "by_category": held.peak.by_category,
            "rows": held.rows,
            "timeline": held.timeline,
            "workspaces": device.terms,
            "notes": (
                *traced.notes,
                *run.notes,
                *notes_on_format(workload, card),
                *device.notes,
            ),
        }
    )


def card_for(device: CardChoice) -> Card | None:
    """The card that memory is predicted for; ``None`` for ``cuda``, which names none.

    Raises:
        UsageError: memory cannot be predicted for such a device.
    """
    card = meant(device)
    if card is None and str(device).partition(":")[0] != DEVICE:
        raise UsageError(f"memory can be predicted for {DEVICE} or a GPU's name, not for {device}")
    return card
