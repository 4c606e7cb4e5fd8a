"""pytorch-memlab's account of a run's tensors, corrected, and where it agrees with our own.

Its ``MemReporter`` asks the garbage collector for every tensor of the process. Those of the run are
kept, in the order of the model; what else the process holds, our own copies included, is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from layerbench import units
from layerbench.instruments.tensors_held import BLOCK, HeldTensor, totals
from layerbench.introspection.modules import named_modules, parameters
from layerbench.introspection.nested import tensors_in
from layerbench.profilers.peers import PeerFailed, cause_of, loaded, quietly
from layerbench.records.memory import Totals
from layerbench.records.peers import MemlabReport, MemlabRow

PACKAGE = "pytorch-memlab"

_TABLES = ("_parameters", "_buffers", "_modules")


def memlab_report(
    model: nn.Module,
    held: Sequence[HeldTensor],
    optimizers: Sequence[torch.optim.Optimizer] = (),
) -> MemlabReport:
    """What memlab says of what is there after a run; a reason where it gives none.

    Args:
        model: as it ran, with the gradients of a training step.
        held: our account of its parameters, buffers and inputs.
        optimizers: of the training step, with their states.
    """
    try:
        package, version = loaded(PACKAGE)
    except PeerFailed as error:
        return MemlabReport(version=None, reason=str(error))
    try:
        with quietly():
            return _report(package, version, model, held, optimizers)
    except Exception as error:
        return MemlabReport(version=version, reason=cause_of(error))


def _report(
    package: ModuleType,
    version: str,
    model: nn.Module,
    held: Sequence[HeldTensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> MemlabReport:
    reporter = package.MemReporter(model)
    _name_others(reporter, held)
    for optimizer in optimizers:
        reporter.add_optimizer(optimizer)
    ours = _tensors_of_run(model, held, optimizers)
    _collect(reporter, ours)
    entries = _entries(reporter)
    bytes = sum(entry.bytes for entry in entries)
    return MemlabReport(
        version=version,
        elements=sum(entry.elements for entry in entries),
        bytes=bytes,
        uncorrected_bytes=sum(entry.uncorrected for entry in entries),
        allocated=_allocated(ours.values()),
        tensors=tuple(MemlabRow(name=e.name, shape=e.shape, bytes=e.bytes) for e in entries),
        agreement=_agreement(entries, held),
    )


def _name_others(reporter: Any, held: Sequence[HeldTensor]) -> None:  # noqa: ANN401 - memlab's
    """It names parameters alone; others would be ``Tensor0`` and so on."""
    for one in held:
        reporter.tensor_name.setdefault(id(one.tensor), one.row.name)


def _tensors_of_run(
    model: nn.Module,
    held: Sequence[HeldTensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> dict[int, torch.Tensor]:
    """Each once, by its identity: what we hold, then what modules and optimizers have besides."""
    others = (
        value
        for _, module in named_modules(model)
        for name, value in vars(module).items()
        if name not in _TABLES and not isinstance(value, nn.Module)
    )
    states = (state for optimizer in optimizers for state in optimizer.state.values())
    gradients = {id(p.grad) for p in parameters(model) if p.grad is not None}
    every = [one.tensor for one in held]
    every += [tensor for value in (*others, *states) for tensor in tensors_in(value)]
    # memlab lists a gradient behind its parameter.
    return {id(tensor): tensor for tensor in every if id(tensor) not in gradients}


def _collect(reporter: Any, ours: Mapping[int, torch.Tensor]) -> None:  # noqa: ANN401 - memlab's
    """Let it go through all tensors, and keep ours, in our order."""
    reporter.collect_tensor()
    seen = {id(tensor) for tensors in reporter.device_mapping.values() for tensor in tensors}
    reporter.device_mapping.clear()
    for identity, tensor in ours.items():
        if identity in seen:
            reporter.device_mapping[tensor.device].append(tensor)


@dataclass(frozen=True)
class _Entry:
    """One tensor in memlab's account; its bytes as they are, and as memlab says."""

    name: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    uncorrected: int

    @property
    def tensor(self) -> str:
        """Its name, without that of the tensor which it shares its bytes with."""
        return self.name.partition("(->")[0]


def _entries(reporter: Any) -> list[_Entry]:  # noqa: ANN401 - memlab's
    """Its figures, with the bytes of each storage as they are.

    It multiplies ``untyped_storage().size()``, which is in bytes, by the element size.
    """
    order = {device: [*tensors] for device, tensors in reporter.device_mapping.items()}
    reporter.get_stats()
    entries = []
    for device, stats in reporter.device_tensor_stat.items():
        parts = [part for tensor in order[device] for part in _parts(tensor)]
        for (name, shape, elements, said), part in zip(stats, parts, strict=True):
            size = part.untyped_storage().nbytes() if said else 0
            entries.append(_Entry(name, shape, elements, -(-size // BLOCK) * BLOCK, said))
    return entries


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that memlab makes an entry of, for one that it goes through."""
    if tensor.numel() == 0:
        return
    yield from _inside(tensor)
    if isinstance(tensor, nn.Parameter) and tensor.grad is not None:
        yield from _inside(tensor.grad)


def _inside(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if tensor.is_sparse:
        yield tensor._indices()
        yield tensor._values()
    else:
        yield tensor


def _allocated(tensors: Iterable[torch.Tensor]) -> int | None:
    """What CUDA's allocator has handed out on the devices of the tensors; ``None`` on a CPU."""
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    if not devices:
        return None
    return sum(torch.cuda.memory_allocated(device) for device in devices)


# --- where it agrees -----------------------------------------------------------------------


def _agreement(entries: Sequence[_Entry], held: Sequence[HeldTensor]) -> str:
    names = {one.row.name for one in held}
    before = [entry for entry in entries if entry.tensor in names]
    later = [entry for entry in entries if entry.tensor not in names]
    ours = totals(held, "parameter", "buffer", "input")
    sentences = [_elements(before, held, ours), _bytes(before, ours)]
    if later:
        elements = sum(entry.elements for entry in later)
        sentences.append(
            f"Besides, it lists {units.count(elements)} elements that the run made: gradients, "
            "optimizer state and what modules keep."
        )
    return " ".join(sentences)


def _elements(before: Sequence[_Entry], held: Sequence[HeldTensor], ours: Totals) -> str:
    theirs = sum(entry.elements for entry in before)
    if theirs == ours.elements:
        return f"Elements agree: {units.count(theirs)} of parameters, buffers and inputs."
    shared = any("->" in entry.name for entry in before)
    reason = ": it counts what several tensors share in each of them" if shared else ""
    if any(one.row.note for one in held):
        reason = ": it does not see all of sparse, nested and packed tensors"
    return (
        f"Elements differ: {units.count(theirs)} by memlab, {units.count(ours.elements)} by ours"
        f"{reason}."
    )


def _bytes(before: Sequence[_Entry], ours: Totals) -> str:
    theirs = sum(entry.bytes for entry in before)
    rounding = (
        f"of which the elements take {units.count(ours.bytes)}: memlab rounds each storage up to "
        f"{BLOCK} bytes, as CUDA's allocator does"
    )
    if theirs == ours.block_bytes:
        return f"Bytes agree: {units.count(theirs)}, {rounding}."
    return (
        f"Bytes differ: {units.count(theirs)} by memlab, {units.count(ours.block_bytes)} by ours, "
        f"{rounding}."
    )
