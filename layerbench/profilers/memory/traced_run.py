"""One workload run with the life of every tensor traced: a forward, or training steps.

Measured memory and predicted memory are both made from this run; what differs is whether the
tensors are real.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import wraps
from time import perf_counter
from traceback import walk_tb
from typing import Any, TypeVar

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling

from layerbench import units
from layerbench.environment.precision import autocasting
from layerbench.environment.run_context import garbage_collection_off, gradients_on
from layerbench.errors import first_line, message_of
from layerbench.instruments.attach import (
    Forward,
    attributes_replaced,
    function_at,
    notes_on_modes,
    usual_place,
)
from layerbench.instruments.autocast_seen import autocast_noted
from layerbench.instruments.checkpointed import checkpointed, note_on_checkpointed
from layerbench.instruments.closures import calls_stood_for
from layerbench.instruments.compiled import compilation_off, notes_on_compiled, original
from layerbench.instruments.control_flow import notes_on_trained
from layerbench.instruments.memory_attribution import FORWARD, FORWARD_END, ITERATION
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.modules import (
    CallFacts,
    CallObserver,
    ModuleFacts,
    module_facts,
    modules_at,
    named_instances,
    type_name,
)
from layerbench.instruments.python_state import PythonState
from layerbench.instruments.random_state import RandomState
from layerbench.instruments.recomputation import recomputations_told
from layerbench.instruments.rows import observed_rows
from layerbench.instruments.step_nodes import graph, let_go, nodes_of
from layerbench.instruments.storage_tracker import (
    LOADED,
    OperatorListener,
    StorageTracker,
    WorkspaceRule,
)
from layerbench.instruments.stored_weights import packed_weights
from layerbench.instruments.tensors_held import tensors_in_attributes
from layerbench.introspection.modules import buffers, parameters, submodules_first
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import bytes_of, shape_of
from layerbench.profilers.loss import RunFailed, loss_of
from layerbench.profilers.memory.traced import Traced, held_in
from layerbench.profilers.optimizers import make_optimizer, scaler_of
from layerbench.records.workload import PLAIN_STEP, Precision, StepOptions
from layerbench.zoo import Built

Made = TypeVar("Made")


def trace_run(
    built: Built,
    *,
    optimizer: str | None = None,
    train_mode: bool | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    for_gpu: bool = False,
    workspace: WorkspaceRule | None = None,
    stepping: Callable[[], AbstractContextManager[object]] = nullcontext,
    renew_inputs: Callable[[], object] = lambda: None,
    release: Callable[[], object] = lambda: None,
    keep: Callable[[torch.optim.Optimizer], object] = lambda _: None,
    step: StepOptions = PLAIN_STEP,
    listener: OperatorListener | None = None,
    steps: int = 2,
) -> Traced:
    """Run the model where its tensors are, and trace it.

    Without an optimizer one forward runs without gradients, in the mode that the model is in.
    With one, training steps run, and the last is the one to look at: from the second on the
    optimizer has its state. A step is ``zero_grad``, forward, loss, backward, ``step``; with
    several micro-batches the middle three come as often.

    Args:
        built: the model and its inputs; the model's parameters change if it trains.
        optimizer: one of `OPTIMIZERS`.
        train_mode: which mode the model was asked to be in.
        device: storages on other kinds of devices are passed over.
        precision: of forward and loss, by autocast.
        for_gpu: the tensors stand for a GPU's: the optimizer works on all parameters at once,
            as PyTorch does there, and its step counts lie on the host, as do the state of random
            numbers and the lengths of nested tensors' rows.
        workspace: what kernels take inside operators.
        stepping: entered around each step of the optimizer.
        renew_inputs: called between two steps.
        release: called before each operator; frees memory that nobody but us holds.
        keep: gets the optimizer after the steps; where it is not kept, its state is freed.
        step: what is checkpointed, and how many micro-batches a step has.
        listener: hears of each operator, of all steps.
        steps: of the training; one will do for who asks for operators alone.

    Raises:
        UsageError: there is no such module to be checkpointed.
        RunFailed: whatever the model raised, with a line that says where.
    """
    notes = (*notes_on_compiled(built.module), *notes_on_modes(built.module, train_mode))
    model, again = original(built.module), step.checkpoint_activations
    notes = (*notes, *note_on_checkpointed(model, again))
    checkpoints = checkpointed(model, again)
    with compilation_off() as trained, checkpoints:
        batches = step.gradient_accumulation
        run = _Run(
            built, device, precision, workspace, renew_inputs, for_gpu, release, batches, listener
        )
        run.steps = steps
        traced = _trace_run(run, optimizer, for_gpu, stepping, keep)
    return replace(traced, notes=(*notes, *traced.notes, *notes_on_trained(trained)))


def _trace_run(
    run: _Run,
    optimizer: str | None,
    for_gpu: bool,
    stepping: Callable[[], AbstractContextManager[object]],
    keep: Callable[[torch.optim.Optimizer], object],
) -> Traced:
    run.load()
    if optimizer is None:
        run.inference()
    else:
        trained = [p for p in parameters(run.model) if p.requires_grad]
        if not trained:
            raise RunFailed(
                "the model has no parameter that requires a gradient: it cannot be trained"
            )
        foreach = True if for_gpu else None
        made = make_optimizer(optimizer, trained, foreach=foreach)
        run.training(made, stepping, for_gpu)
        keep(made)
    return run.traced()


class _Run:
    """One run, whose model is the user's own beneath what compiles it."""

    def __init__(
        self,
        built: Built,
        device: str | None,
        precision: Precision | None,
        workspace: WorkspaceRule | None,
        renew_inputs: Callable[[], object],
        for_gpu: bool,
        release: Callable[[], object],
        micro_batches: int,
        listener: OperatorListener | None = None,
    ) -> None:
        self.steps = 2
        self._built = built
        self._micro_batches = micro_batches
        self._renew_inputs = renew_inputs
        self.model = original(built.module)
        self._facts = module_facts(self.model)
        self._running = RunningModule(self.model)
        self._observer = CallObserver(self.model, self._facts, self._running)
        self._tracker = StorageTracker(self._running, device, workspace, for_gpu, release, listener)
        self._again = Recomputed(self.model, self._facts, self._running, self._tracker)
        self._calls: dict[str, CallFacts] = {}
        self._forward_s = 0.0
        self._kind = device or "cpu"
        self._precision = precision
        self._called = self._casting(self.model)

    def _casting(self, call: Callable[..., Made]) -> Callable[..., Made]:
        return autocasting(call, self._precision, self._kind)

    def load(self) -> None:
        """Note the tensors that exist before the run, in the order in which they are moved."""
        note_loaded(self._tracker, self.model)
        for tensor in tensors_in((self._built.args, self._built.kwargs)):
            self._tracker.add(tensor, "input")
        self._tracker.mark(LOADED)

    def inference(self) -> None:
        """One forward without gradients; the output is dropped."""
        with garbage_collection_off(), gradients_on(False), self._observed():
            self._tracker.mark(ITERATION)
            self._forward()

    def training(
        self,
        optimizer: torch.optim.Optimizer,
        stepping: Callable[[], AbstractContextManager[object]],
        for_gpu: bool,
    ) -> None:
        """Steps: the first makes the optimizer's state, the second is as all later ones."""
        draws = _Draws(self._built)
        try:
            self._run_steps(optimizer, stepping, for_gpu, draws)
        except RunFailed:
            raise
        except Exception as error:
            self._renew_inputs()
            draws.put_back()
            args, kwargs = self._built.args, self._built.kwargs
            said = explain_step(self.model, args, kwargs, error, self._casting)
            raise RunFailed(said) from error

    def _run_steps(
        self,
        optimizer: torch.optim.Optimizer,
        stepping: Callable[[], AbstractContextManager[object]],
        for_gpu: bool,
        draws: _Draws,
    ) -> None:
        """As in the loops that people write, output and loss stay until the next ones come."""
        output = loss = None
        nodes: deque[torch.autograd.graph.Node] = deque()
        scaler, loss_in = scaler_of(self._precision, self._kind), self._casting(loss_of)
        told = recomputations_told(self._again)
        with garbage_collection_off(), gradients_on(True), self._observed(), told:
            for step in range(self.steps):
                if step:
                    # The layers that have got a gradient, and a state, are those that run again.
                    draws.put_back()
                self._tracker.mark(ITERATION)
                optimizer.zero_grad(set_to_none=True)
                for micro_batch in range(self._micro_batches):
                    if step or micro_batch:
                        self._renew_inputs()
                    self._running.forget()
                    output = self._forward()
                    with self._tracker.during("loss"):
                        loss = loss_in(output, self._micro_batches)
                        let_go(nodes)
                    nodes = nodes_of(loss)
                    with self._tracker.during("backward"), self._again.followed():
                        torch.autograd.backward(scaler.scale(loss))
                    self._note_gradients()
                with self._tracker.during("optimizer"), stepping():
                    if scaler.is_enabled():  # its own step would look at values
                        scaler.unscale_(optimizer)
                    optimizer.step()
                    scaler.update()
                # On a GPU PyTorch keeps step counts on the host.
                self._note_state(optimizer, scalars_elsewhere=for_gpu)
        output = loss = None
        let_go(nodes)

    def traced(self) -> Traced:
        rows = observed_rows(self.model, self._facts, self._calls)
        notes = (*self._observer.notes, *self._notes_on_replaced())
        of_model = [*parameters(self.model)]
        trained = [one for one in of_model if one.requires_grad]
        others = [one for one in of_model if not one.requires_grad]
        return Traced(
            self._tracker.finish(),
            rows,
            self._calls,
            notes,
            self._forward_s,
            held_in(trained),
            held_in((*others, *buffers(self.model))),
        )

    def _notes_on_replaced(self) -> tuple[str, ...]:
        tables = ("_parameters", "_buffers")
        present = [one for table in tables for one in _in_order_of_moving(self.model, table)]
        present += [tensor for _, tensor in tensors_in_attributes(self.model)]
        size = self._tracker.replaced_bytes(present)
        if not size:
            return ()
        return (
            f"the run replaced parameters or buffers of {units.bytes_(size)} that are still held: "
            "where nothing but this run holds them, to put them back, the peak is too high by that",
        )

    @contextmanager
    def _observed(self) -> Iterator[None]:
        with autocast_noted(), self._tracker, self._tracker.random_states_seen():
            yield

    def _forward(self) -> Any:  # noqa: ANN401 - whatever the model returns
        self._tracker.mark(FORWARD)
        outputs: list[Any] = []

        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            outputs.append(self._called(*args, **kwargs))
            return outputs[0]

        began = perf_counter()
        try:
            with self._tracker.during("forward"):
                self._calls = self._observer.observe(forward, self._built.args, self._built.kwargs)
        except Exception as error:
            observer = self._observer
            raise RunFailed(observer.explain(error), observer.where_it_failed) from error
        self._forward_s = perf_counter() - began
        self._tracker.mark(FORWARD_END)
        return outputs.pop()

    def _note_gradients(self) -> None:
        for parameter in parameters(self.model):
            if parameter.grad is not None:
                self._tracker.add(parameter.grad, "gradients")

    def _note_state(self, optimizer: torch.optim.Optimizer, scalars_elsewhere: bool) -> None:
        for state in optimizer.state.values():
            for tensor in tensors_in(state):
                self._tracker.add(tensor, "optimizer state")
                if scalars_elsewhere and tensor.dim() == 0:
                    self._tracker.leave_out(tensor)


class Recomputed:
    """Whom the operators of a recomputation belong to: the modules whose forward runs again."""

    def __init__(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        running: RunningModule,
        tracker: StorageTracker,
    ) -> None:
        self._model = model
        self._paths = frozenset(fact.path for fact in facts if fact.reachable and fact.path)
        self._running = running
        self._tracker = tracker
        self._asked = False

    def asked(self) -> int | None:
        """A forward runs now that will run again; gives the call that it is in."""
        self._asked = True
        return self._running.place()

    @contextmanager
    def again(self, where: int | None) -> Iterator[None]:
        """Entered around its second run."""
        with self._tracker.during("recomputation"), self._running.again(where):
            yield

    def graph_made(self, where: int | None, outputs: Any) -> None:  # noqa: ANN401
        """Its nodes are numbered as those of the forward are."""

    def followed(self) -> AbstractContextManager[object]:
        """Entered around a backward: modules that run in it are followed where one may."""
        if not self._asked:
            return nullcontext()
        return attributes_replaced(
            (module, place, self._following(function_at(module, place), path))
            for path, module in modules_at(self._model, self._paths).items()
            for place in [usual_place(module)]
        )

    def _following(self, original: Forward, path: str) -> Forward:
        running = self._running

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or not calls_stood_for():
                return original(*args, **kwargs)
            with running.inside(path):
                return original(*args, **kwargs)

        return forward


class _Draws:
    """The generators of random numbers as a step finds them, the process's and the model's own."""

    def __init__(self, built: Built) -> None:
        self._shared = RandomState()
        self._own = PythonState((built.module, built.args, built.kwargs)).draws()

    def put_back(self) -> None:
        self._shared.put_back()
        for generator in self._own:
            generator.restore()


def explain_step(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: Exception,
    casting: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda call: call,
) -> str:
    """One line that says in which part of a training step, and in which module, ``error`` arose.

    The step is made once more for it, up to the optimizer; it should draw what the first one drew.
    """
    running = RunningModule(model)
    observer = CallObserver(model, module_facts(model), running)
    outputs: list[Any] = []
    reached: list[str | None] = []
    with gradients_on(True):
        try:
            forward = casting(model)
            observer.observe(lambda *a, **k: outputs.append(forward(*a, **k)), args, dict(kwargs))
        except Exception as again:
            return observer.explain(again)
        try:
            loss = casting(loss_of)(outputs[0])
        except RunFailed as again:
            return str(again)
        except Exception as again:
            shapes = ", ".join(str(list(shape_of(tensor))) for tensor in tensors_in(outputs[0]))
            return f"no loss could be made of the output {shapes}: {first_line(again)}"
        try:
            _backward_watched(loss, running, reached)
        except Exception as again:
            return f"the backward failed{_in_module(model, reached)}: {first_line(again)}"
    return str(error) if isinstance(error, RunFailed) else _made_once_more(error)


def _made_once_more(error: Exception) -> str:
    """What is to be said of an error that did not come again before the optimizer."""
    if not _arose_in_optimizer(error):
        return f"a step failed, and did not when it was made once more: {first_line(error)}"
    hint = "; take sgd or adagrad" if "sparse gradients" in message_of(error) else ""
    return f"the optimizer failed: {first_line(error)}{hint}"


def _arose_in_optimizer(error: Exception) -> bool:
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(isinstance(frame.f_locals.get("self"), torch.optim.Optimizer) for frame in frames)


def _backward_watched(
    loss: torch.Tensor, running: RunningModule, reached: list[str | None]
) -> None:
    """Go backward, and note the path of each node's module before the node runs."""

    def noting(path: str | None) -> Callable[..., None]:
        return lambda *_: reached.append(path)

    for node in graph(loss):
        node.register_prehook(noting(running.path_of(node)))
    loss.backward()  # type: ignore[no-untyped-call]


def _in_module(model: nn.Module, reached: Sequence[str | None]) -> str:
    """The module whose backward ran last; nothing if it is the loss's."""
    path = reached[-1] if reached else None
    if path is None:
        return ""
    kind = type_name(named_instances(model)[path])
    return f" in {kind} at {path}" if path else f" in {kind}"


def note_loaded(tracker: StorageTracker, model: nn.Module) -> None:
    """Note what a model holds, in the order in which it is moved."""
    for parameter in _in_order_of_moving(model, "_parameters"):
        tracker.add(parameter, "parameters")
    for _, weight in packed_weights(model):
        tracker.add_packed(bytes_of(weight), "parameters")
    for buffer in _in_order_of_moving(model, "_buffers"):
        tracker.add(buffer, "buffers")
    for _, tensor in tensors_in_attributes(model):
        tracker.add(tensor, "buffers")


def _in_order_of_moving(model: nn.Module, table: str) -> Iterator[torch.Tensor]:
    """As `torch.nn.Module.to` goes through them: submodules first."""
    for module in submodules_first(model):
        for _, tensor in getattr(module, table).items():
            if tensor is not None:
                yield tensor
