"""A training step of any model on inputs of its own: what `train-profile` and estimates measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from layerbench import zoo
from layerbench.environment.devices import Device
from layerbench.environment.precision import autocasting
from layerbench.environment.run_context import gradients_on, raise_model_error
from layerbench.errors import ModelRunError
from layerbench.instruments.attach import mode_set
from layerbench.instruments.checkpointed import checkpointed, note_on_checkpointed
from layerbench.instruments.preserve import drawing_anew, preserved
from layerbench.instruments.random_state import RandomState
from layerbench.instruments.step_timer import Step
from layerbench.introspection.modules import moved, parameters
from layerbench.introspection.nested import map_tensors
from layerbench.profilers.batches import as_loaded, copied
from layerbench.profilers.loss import loss_of
from layerbench.profilers.memory.traced_run import explain_step
from layerbench.profilers.optimizers import make_optimizer, not_finite, scaler_of
from layerbench.records.memory import Optimizer
from layerbench.records.workload import Workload
from layerbench.zoo import Built

Made = TypeVar("Made")


@contextmanager
def own_step(
    workload: Workload, device: Device, optimizer: Optimizer, subject: Built | None = None
) -> Iterator[OwnStep]:
    """A model that trains inside the block.

    Args:
        workload: what trains, on which inputs; its mode is ``train``.
        device: where.
        optimizer: one of `layerbench.profilers.optimizers.OPTIMIZERS`.
        subject: a model and its inputs that were handed over; they come back as they were. Any
            other model is built.

    Raises:
        ModelRunError: nothing in the model learns.
        LayerbenchError: it cannot be built.
    """
    with ExitStack() as stack:
        if subject is None:
            built = zoo.build(workload)
            moved(built.module, device.torch_device)
            stack.enter_context(drawing_anew(workload, built))
        else:
            built = stack.enter_context(preserved(subject, training=True))
        stack.enter_context(mode_set(built.module, True))
        stack.enter_context(gradients_on(True))
        again = workload.checkpoint_activations
        notes = note_on_checkpointed(built.module, again)
        stack.enter_context(checkpointed(built.module, again))
        yield OwnStep(workload, built, device, optimizer, notes)


class OwnStep:
    """A model with its optimizer. The batch waits on the host and is copied for every step.

    Attributes:
        workload, model: what trains.
        forward: of the model, in the workload's precision.
        step: in pieces; the loss is `loss_of`.
        notes: what a report is to say of the step.

    Raises:
        ModelRunError: nothing in the model learns.
    """

    def __init__(
        self,
        workload: Workload,
        built: Built,
        device: Device,
        optimizer: Optimizer,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.notes = notes
        self.workload = workload
        self.model = built.module
        self._device = device
        self._host = map_tensors(
            (built.args, built.kwargs), lambda tensor: as_loaded(tensor, device)
        )
        trained = [p for p in parameters(self.model) if p.requires_grad]
        if not trained:
            raise ModelRunError(
                f"{workload.model}: no parameter requires a gradient, so it cannot be trained"
            )
        self._optimizer = make_optimizer(optimizer, trained)
        self._scaler = scaler_of(workload.precision, device.torch_device.type)
        self.forward = self._casting(self.model)
        loss = self._casting(loss_of)
        self.step = Step(
            fetch=lambda: self._host,
            move=lambda batch: copied(batch, device),  # it stays as it is until the end
            forward=lambda batch: self.forward(*batch[0], **batch[1]),
            loss=lambda output, _: loss(output, workload.gradient_accumulation),
            update=self._update,
            backward=self._backward,
            micro_batches=workload.gradient_accumulation,
        )

    def _casting(self, call: Callable[..., Made]) -> Callable[..., Made]:
        return autocasting(call, self.workload.precision, self._device.torch_device.type)

    def _backward(self, loss: torch.Tensor) -> None:
        torch.autograd.backward(self._scaler.scale(loss))

    def _update(self) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def not_finite(self) -> str:
        """What became of weights that are no numbers after the steps; empty where all are."""
        return not_finite(parameters(self.model))

    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a forward, copied anew."""
        args, kwargs = self.step.move(self.step.fetch())
        return args, kwargs

    def explaining(self, run: Callable[[Step], Made]) -> Made:
        """What ``run`` makes of the step.

        Raises:
            ModelRunError: the model failed; one line says in which part of the step, and where.
        """
        draws = RandomState()
        try:
            return run(self.step)
        except Exception as error:
            raise_model_error(error, self._device, partial(self._explained, error, draws))

    def _explained(self, error: Exception, draws: RandomState) -> str:
        draws.put_back()
        args, kwargs = self.inputs()
        return (
            f"{self.workload.model}: {explain_step(self.model, args, kwargs, error, self._casting)}"
        )
