"""A run whose tensors stand for a GPU's: fake ones, or real ones on the CPU where it must be."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from layerbench import zoo
from layerbench.environment.one_at_a_time import one_at_a_time
from layerbench.environment.origins import origin
from layerbench.environment.run_context import (
    check_input_fits,
    memory_explained,
)
from layerbench.errors import (
    LayerbenchError,
    ModelRunError,
    first_line,
)
from layerbench.instruments.attach import mode_set
from layerbench.instruments.fake_tensors import (
    READS_VALUES,
    ShapesDoNotSuffice,
    what_it_needs,
    without_memory,
)
from layerbench.instruments.modes import OperatorMode
from layerbench.instruments.preserve import (
    FreshInputs,
    drawing_anew,
    preserved,
    preserved_from_stand_ins,
    strays_removed,
)
from layerbench.instruments.quick_answers import QuickAnswers
from layerbench.instruments.random_state import drawing_from
from layerbench.instruments.release import Releaser
from layerbench.instruments.storage_tracker import OperatorListener
from layerbench.profilers.loss import RunFailed
from layerbench.profilers.memory.autocast_as_on_gpu import autocast_as_on_gpu
from layerbench.profilers.memory.ddp import in_buckets
from layerbench.profilers.memory.kernels import chosen_as_on_gpu
from layerbench.profilers.memory.traced import Traced
from layerbench.profilers.memory.traced_run import trace_run
from layerbench.profilers.memory.workspaces import Workspaces
from layerbench.records.memory import Optimizer
from layerbench.records.workload import Workload, autocast_format
from layerbench.zoo import Built

DEVICE = "cuda"


@dataclass(frozen=True)
class RunForGpu:
    """A run whose tensors stood for a GPU's.

    Attributes:
        traced: what it showed.
        workspaces: what its kernels would take.
        how: ``fake`` or ``replayed``, from a real run on the CPU.
        notes: what the reader should know of that.
    """

    traced: Traced
    workspaces: Workspaces
    how: Literal["fake", "replayed"]
    notes: tuple[str, ...] = ()


@one_at_a_time
def run_for_gpu(
    workload: Workload,
    *,
    optimizer: Optimizer | None = None,
    subject: Built | None = None,
    listen: Callable[[], OperatorListener | None] = lambda: None,
    steps: int = 2,
) -> RunForGpu:
    """Trace a workload as it would run on a CUDA device, without one.

    Args:
        workload, optimizer, subject: as for `predict`.
        listen: gives what hears of the operators; called anew for each attempt.
        steps: of a training, of which the last is looked at.

    Raises:
        ModelRunError, NotEnoughMemory: as `predict` does.
    """
    return in_its_process(_run_anyhow(workload, optimizer, subject, listen, steps), workload)


def in_its_process(run: RunForGpu, workload: Workload) -> RunForGpu:
    """The run as it would be in each process, where the workload is a data-parallel training."""
    return replace(run, traced=in_buckets(run.traced)) if workload.ddp else run


def _run_anyhow(
    workload: Workload,
    optimizer: Optimizer | None,
    subject: Built | None,
    listen: Callable[[], OperatorListener | None],
    steps: int,
) -> RunForGpu:
    try:
        return run_fake(workload, optimizer, subject, listen, steps)
    except FakeDoesNotSuffice as error:
        reason = str(error)
    workspaces = Workspaces()
    traced = _real_run(workload, optimizer, subject, workspaces, listen(), steps)
    note = f"replayed from a real run on the CPU, as fake tensors do not suffice: {reason}"
    return RunForGpu(traced, workspaces, "replayed", (note,))


class _NotAccepted(Exception):
    """The inputs will not do for who asked for the run."""


class FakeDoesNotSuffice(Exception):
    """A run with fake tensors failed; ``str`` is what it raised.

    It is not the error's own: whose frames would hold tensors.

    Attributes:
        needs: what of a real run the model needs, as `instruments.fake_tensors.what_it_needs` says.
        where: the module whose forward it was, and the line of the user's code; either or both may
            be empty.
        built: whether the model's constructor could do with fake tensors.
        accepted: whether the inputs would do for who asked.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(first_line(error))
        self.needs = what_it_needs(error)
        self.where = (getattr(error, "where", ""), origin(error) or "")
        self.built = isinstance(error, RunFailed | ShapesDoNotSuffice)
        self.accepted = not isinstance(error, _NotAccepted)


@one_at_a_time
def run_fake(
    workload: Workload,
    optimizer: Optimizer | None,
    subject: Built | None,
    listen: Callable[[], OperatorListener | None] = lambda: None,
    steps: int = 2,
    accepts: Callable[[Built], bool] = lambda _: True,
) -> RunForGpu:
    """As `run_for_gpu`, with fake tensors alone, and without what belongs to other processes.

    Args:
        workload, optimizer, subject, listen, steps: as for `run_for_gpu`.
        accepts: whether the model with its inputs will do.

    Raises:
        FakeDoesNotSuffice: a real run would be needed.
    """
    failed: FakeDoesNotSuffice | None = None
    # Autocast knows no meta tensors, and without a GPU no CUDA ones.
    casts = autocast_format(workload.precision) is not None
    for device in ("cpu",) if casts else _stand_in_devices(training=optimizer is not None):
        workspaces = Workspaces()
        traced: Traced | None = None
        with strays_removed(workload.model):
            try:
                traced = _fake_run(
                    workload, optimizer, subject, workspaces, device, listen(), steps, accepts
                )
            except LayerbenchError:
                raise
            except Exception as error:
                failed = FakeDoesNotSuffice(error)
        if traced is not None:
            return RunForGpu(traced, workspaces, "fake")
        assert failed is not None
        if not failed.accepted or (device == DEVICE and failed.needs == READS_VALUES):
            break  # fake tensors of the CPU are no other inputs, and have no other values
    assert failed is not None
    raise failed


def _fake_run(
    workload: Workload,
    optimizer: str | None,
    subject: Built | None,
    workspaces: Workspaces,
    device: str,
    listener: OperatorListener | None,
    steps: int,
    accepts: Callable[[Built], bool],
) -> Traced:
    built = subject or zoo.build_shapes(workload)
    if not accepts(built):
        raise _NotAccepted
    # Meta tensors need no mode: PyTorch's own kernels for them give shapes.
    mode: AbstractContextManager[object] | None = (
        QuickAnswers() if device == "meta" else None  # type: ignore[no-untyped-call]
    )
    with (
        preserved_from_stand_ins(built, handed_over=subject is not None),
        drawing_from(workload.seed) if subject is None else nullcontext(),
        mode_set(built.module, workload.mode == "train"),
        without_memory(built, device, mode) as stand_in,
        chosen_as_on_gpu(),
        autocast_as_on_gpu(workload.precision),
    ):
        return trace_run(
            stand_in,
            optimizer=optimizer,
            train_mode=workload.mode == "train",
            step=workload,
            device=device,
            precision=workload.precision,
            for_gpu=True,
            workspace=workspaces,
            stepping=_OptimizerStep,
            renew_inputs=FreshInputs(stand_in).renew,
            listener=listener,
            steps=steps,
        )


def _stand_in_devices(*, training: bool) -> tuple[str, ...]:
    """What the tensors that stand in for a GPU's say they are on, in the order to be tried.

    Autograd's engine, where there is no GPU, refuses to go backward over CUDA tensors, fake ones
    too: it asks the driver for the current stream; and some CUDA operators know no fake tensors.
    So meta tensors stand in for training, which are fast, or fake CPU tensors, which know more
    operators. What runs is the same but for attention and dropout, which are chosen here (a test
    compares them). A machine with a GPU gets no other answer: there, too, they come first.
    """
    graph = training or not _cuda_bears_a_graph()
    return ("meta", "cpu") if graph else (DEVICE, "cpu")


def _cuda_bears_a_graph() -> bool:
    """Whether a forward may take gradients of fake CUDA tensors; else the process would end.

    A forward does so within `torch.enable_grad`, and in a thread, whose gradients are on whatever
    the others' are. Autograd asks for the current stream then. Where there is no GPU, PyTorch has
    a substitute for it from about 2.10 on; before, the driver's error ends the process.
    """
    return hasattr(torch._C, "_ensureCUDADeviceGuardSet")


def _real_run(
    workload: Workload,
    optimizer: str | None,
    subject: Built | None,
    workspaces: Workspaces,
    listener: OperatorListener | None,
    steps: int,
) -> Traced:
    from layerbench.environment import devices

    cpu, releaser = devices.get("cpu"), Releaser()
    with memory_explained(cpu):
        if subject is None:
            check_input_fits(workload, cpu)
        try:
            if subject is None:
                built = zoo.build(workload, load_weights=False)
                with drawing_anew(workload, built):
                    return _trace_for_real(
                        workload, optimizer, built, workspaces, releaser, listener, steps
                    )
            training = optimizer is not None
            with preserved(subject, training=training, releaser=releaser) as built:
                return _trace_for_real(
                    workload, optimizer, built, workspaces, releaser, listener, steps
                )
        except RunFailed as error:
            cause = error.__cause__
            if cause is not None and cpu.is_out_of_memory(cause):
                raise cause from None
            raise ModelRunError(f"{workload.model}: {error}") from error


def _trace_for_real(
    workload: Workload,
    optimizer: str | None,
    built: Built,
    workspaces: Workspaces,
    releaser: Releaser,
    listener: OperatorListener | None,
    steps: int,
) -> Traced:
    with (
        mode_set(built.module, workload.mode == "train", buffers_too=False),
        autocast_as_on_gpu(workload.precision),
    ):
        return trace_run(
            built,
            optimizer=optimizer,
            train_mode=workload.mode == "train",
            step=workload,
            device="cpu",
            precision=workload.precision,
            for_gpu=True,
            workspace=workspaces,
            renew_inputs=FreshInputs(built).renew,
            release=releaser.release,
            listener=listener,
            steps=steps,
        )


class _OptimizerStep(OperatorMode):  # type: ignore[no-untyped-call]
    """Answers for an optimizer what fake tensors cannot, or only slowly.

    A step count reads as 1. An operator on a list of tensors, which without a GPU would be
    taken apart into one for each, changes nothing that memory shows where it works in
    place, and else gives a list of new tensors.
    """

    def operator(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "cpu":
            return 1.0
        name = func.overloadpacket.__name__
        if name.startswith("_foreach_") and name.endswith("_"):
            return None
        if name in _LIKE_THEIR_INPUTS:
            return [torch.empty_like(tensor) for tensor in args[0]]
        return func(*args, **keywords)


_LIKE_THEIR_INPUTS = frozenset(
    f"_foreach_{name}"
    for name in ("abs", "add", "addcdiv", "addcmul", "div", "lerp", "maximum", "mul", "neg", "pow",
                 "reciprocal", "rsqrt", "sqrt", "sub")
)  # fmt: skip
