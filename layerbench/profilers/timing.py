"""The measurement of a profile, readable as a list of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from layerbench import zoo
from layerbench.environment.collection import no_collection
from layerbench.environment.devices import Device
from layerbench.environment.devices.clocks import Clock
from layerbench.environment.precision import autocasting, precision_set
from layerbench.environment.run_context import (
    check_input_fits,
    garbage_collection_off,
    gradients_on,
    memory_explained,
    raise_model_error,
    threads_set,
    watch_environment,
)
from layerbench.environment.watch import EnvironmentWatch
from layerbench.errors import ModelRunError, UntrustedError, UsageError, first_line
from layerbench.instruments.attach import mode_set, notes_on_modes
from layerbench.instruments.calibration import event_cost, mark_cost_s, wrapper_cost_s
from layerbench.instruments.compilation import why_unknown
from layerbench.instruments.compiled import COMPILED, any_compiled, is_compiled
from layerbench.instruments.cuda_graph import check_graphs
from layerbench.instruments.detections import DetectionCounter
from layerbench.instruments.function_timer import FunctionForward, FunctionTimer
from layerbench.instruments.kernel_timer import why_unseen
from layerbench.instruments.layer_timer import typical_calls
from layerbench.instruments.modules import (
    Call,
    CallFacts,
    CallObserver,
    ModuleFacts,
    module_facts,
    without_reach,
)
from layerbench.instruments.preserve import (
    FreshInputs,
    drawing_anew,
    preserved,
)
from layerbench.instruments.random_state import RandomState
from layerbench.instruments.rows import function_rows, module_rows
from layerbench.instruments.stored_weights import notes_on_stored_weights
from layerbench.instruments.work import Work, WorkObserver, with_work
from layerbench.profilers.choice_of_rounds import clock_for, rounds_for
from layerbench.profilers.compiled_rounds import Compiled, CompiledRounds
from layerbench.profilers.device_rounds import DeviceRounds
from layerbench.profilers.energy import ENERGY, measure_energy
from layerbench.profilers.isolation import ISOLATION, UNFINISHED, Isolated, isolate
from layerbench.profilers.progress import Looking, Progress, Silent
from layerbench.profilers.replay_rounds import replay_rounds_for
from layerbench.profilers.rounds import Layers, Rounds
from layerbench.records import samples
from layerbench.records.conditions import DeviceLook
from layerbench.records.energy import Energy
from layerbench.records.environment import Environment
from layerbench.records.samples import RowFacts, Run, RunFacts, Samples
from layerbench.records.timing import OWN_COMPILED, StopReason
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built
from layerbench.zoo.family import on_device


def measure(
    workload: Workload,
    plan: Plan,
    device: Device,
    *,
    subject: Built | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    begun: Callable[[Session], object] | None = None,
    keep_interrupted: bool = False,
) -> Run:
    """Measure one workload in this process.

    Args:
        workload: what runs.
        plan: how it is measured; ``plan.processes`` is not looked at.
        device: where it runs.
        subject: the model and its inputs, already on the device; built from the workload if None.
        progress: hears of each round.
        strict: refuse to measure on a machine that makes the numbers untrustworthy.
        begun: is handed the session before its first round, to read what it has so far.
        keep_interrupted: where somebody interrupts, end with the rounds so far instead.

    Raises:
        ModelRunError: the model does not take the input.
        NotEnoughMemory: with the bytes requested and free.
        UntrustedError: ``strict``, and something is wrong with the machine before the start.
        KeyboardInterrupt: where no round is measured yet, or its samples are not wanted.
    """
    check_graphs(workload, device)
    with (
        threads_set(plan.threads),
        precision_set(workload.precision, device),
        memory_explained(device),
    ):
        watch = watch_environment(device)
        check_environment(watch, strict)
        if subject is None:
            check_input_fits(workload, device)
        with (
            no_collection(),
            preserved_or_built(workload, device, subject) as built,
            mode_set(built.module, workload.mode == "train"),
            gradients_on(workload.mode == "train"),
        ):
            listener = Looking(progress or Silent(), watch.conditions)
            session = Session(workload, plan, device, built, listener, counted=True)
            if begun is not None:
                begun(session)
            with garbage_collection_off():
                watch.conditions.add_warm_up(session.rounds.warm_up(plan.warmup, device))
                try:
                    stop = session.run_all()
                except KeyboardInterrupt:
                    if not (keep_interrupted and session.rounds.keep_whole()):
                        raise
                    stop = session.interrupted()
            return session.result(watch.finish(), stop, watch.conditions.looks)


@contextmanager
def preserved_or_built(
    workload: Workload, device: Device, subject: Built | None
) -> Iterator[Built]:
    """The caller's model, restored afterwards, or else the workload's model, on the device."""
    if subject is None:
        built = on_device(zoo.build(workload), device.torch_device)
        with drawing_anew(workload, built):
            yield built
        return
    with preserved(subject, training=workload.mode == "train") as built:
        yield built


class Session:
    """One measurement of one built model; who makes it runs its rounds and then asks for `result`.

    The model must be in the workload's mode, with gradients as they should be, from here on.
    What it draws in its first forward it draws in each of those that time functions.

    Args:
        workload, plan, device: as for `measure`.
        built: the model and its inputs, on the device.
        progress: hears of each round.
        counted: whether FLOPs are counted, too.

    Attributes:
        draws: the generators of random numbers as its first forward finds them.

    Raises:
        ModelRunError: the model does not take the input.
        UsageError: it is to be compiled, and is TorchScript.
    """

    def __init__(
        self,
        workload: Workload,
        plan: Plan,
        device: Device,
        built: Built,
        progress: Progress,
        *,
        counted: bool = False,
    ) -> None:
        self.plan = plan
        self.workload = workload
        self.built = built
        self.progress = progress
        self.clock: Clock = device.clock()
        self._device = device
        self.absent: dict[str, str] = {}
        model = built.module
        if workload.compile and isinstance(model, torch.jit.ScriptModule):
            raise UsageError(f"{workload.model} is TorchScript, which --compile cannot compile")
        inputs = FreshInputs(built)
        self._renew_inputs = inputs.renew
        self.draws = RandomState()
        self._modes = (
            *notes_on_modes(model, workload.mode == "train"),
            *notes_on_stored_weights(model),
        )
        self._modules = module_facts(model)
        self._is_counted = counted and self._why_no_layers(model) is None
        self._work: Work = {}
        self._observed, self._content = self._look(model)
        self._layers = self._layers_to_time(model, self._modules, self._observed)
        self._isolated = Isolated()
        self._energy: Energy | None = None
        self._renew_inputs()  # the other side of a pair may have the same
        self._compilation = compiled = self._compiled(model)
        if compiled is not None and self._layers is not None and (why := compiled.why_no_kernels):
            self.absent["layers"], self._layers = why, None
        runs = compiled.runs if compiled else model
        self._call = _bound(self._casting(runs), built, workload, device)
        self._functions: list[FunctionForward] = []
        parts = (device, model, self._call, self._layers, self.clock, progress, inputs.renew)
        self.rounds: Rounds
        if workload.cuda_graph:
            self.rounds, why = replay_rounds_for(*parts, workload.model)
            if why:
                self.absent["layers"], self._layers = why, None
            self._renew()
        else:
            self.rounds = rounds_for(*parts, compiled)

    def _compiled(self, model: nn.Module) -> Compiled | None:
        """The workload's compilation, with its first call behind it; ``None`` for none."""
        if not self.workload.compile or is_compiled(model):
            return None
        self.progress.step("compilation", 0, 1)
        compiled = Compiled(model, self.workload.compile, self._observed)
        runs = self._casting(compiled.runs)
        built, workload = self.built, self.workload
        compiled.run(_bound(runs, built, workload, self._device, "it ran, but not compiled"))
        self._renew()
        self.progress.step("compilation", 1, 1)
        return compiled

    def _compiling(self) -> Iterator[str]:
        if self._compilation is not None:
            yield from self._compilation.notes()
        elif self.workload.compile:
            yield OWN_COMPILED

    def run_all(self) -> StopReason:
        """The planned rounds, and the passes that time functions, count FLOPs, isolate leaves."""
        stop = self.rounds.run(self.plan, self.workload.seed)
        for _ in self.function_forwards():
            pass
        self.count_work()
        if self.plan.isolate:
            self.draws.put_back()
            parts = (self.built.module, self.rounds, self._observed, self._device, self.progress)
            self._isolated = isolate(*parts)
        if self.plan.energy:
            self._energy, why = measure_energy(self._device, self.rounds, self.progress)
            self.absent.update({ENERGY: why} if why else {})
        return stop

    def count_work(self) -> None:
        """Count FLOPs in a forward of their own where the first one ran compiled code.

        A failure loses nothing else.
        """
        if not self._is_counted or self._work or "flops" in self.absent:
            return
        self.progress.step("FLOPs", 0, 1)
        self._renew()
        observer = WorkObserver(self.built.module, self._modules, shapes=False, throughout=True)
        try:
            forward = self._casting(self.built.module)
            observer.observe(forward, self.built.args, self.built.kwargs)
            self._work = observer.work()
        except Exception as error:
            self._note_uncounted(error)
        self.progress.step("FLOPs", 1, 1)

    def interrupted(self) -> StopReason:
        """End with what there is."""
        if isinstance(self.rounds, DeviceRounds | CompiledRounds):
            for _ in self.function_forwards():
                pass
        elif self._layers is not None and not self._functions:
            self.absent["functions"] = "interrupted before they were timed"
            self.rounds.waits.pop(samples.FUNCTIONS, None)
        if self._is_counted and not self._work and "flops" not in self.absent:
            self.absent["flops"] = "interrupted before they were counted"
        left = {ISOLATION: self.plan.isolate and not self._isolated.facts, ENERGY: self.plan.energy}
        self.absent |= {what: UNFINISHED for what, is_left in left.items() if is_left}
        return "interrupted"

    def result(
        self, environment: Environment, stop: StopReason, looks: tuple[DeviceLook, ...] = ()
    ) -> Run:
        """What was found: facts and samples.

        Args:
            environment: of the rounds.
            stop: why they ended.
            looks: at the device meanwhile.
        """
        functions = _alike(self._functions)
        layers = self._layers
        event = event_cost(self._device)
        of_rounds = self.rounds.facts()
        if self._compilation is not None and "compilation" not in of_rounds:
            of_rounds["compilation"] = self._compilation.facts()
        rows = self._module_rows(self._observed, layers, self.rounds, functions)
        return Run(
            RunFacts(
                model_type=self._modules[0].type,
                parameters=self._modules[0].parameters,
                modules=rows,
                functions=(
                    self.rounds.with_shares(function_rows(functions, rows, layers.view))
                    if layers
                    else ()
                ),
                environment=environment,
                stop=stop,
                looks=looks,
                mark_cost_s=mark_cost_s(self.clock),
                event_s=event.queue_s if event else None,
                least_event_s=event.least_s if event else None,
                wrapper_cost_s=wrapper_cost_s(layers.clock if layers else self.clock),
                absent={**self.absent, **self.rounds.absent(), **self._isolated.absent},
                notes=(*self._modes, *self._compiling(), *self._content, *self.rounds.notes(rows)),
                energy=self._energy,
                **of_rounds,
                **self._isolated.facts,
            ),
            {**self.rounds.arrays(), **_function_arrays(functions), **self._isolated.arrays},
        )

    def _module_rows(
        self,
        observed: dict[str, CallFacts],
        layers: Layers | None,
        rounds: Rounds,
        functions: list[FunctionForward],
    ) -> tuple[RowFacts, ...]:
        if layers is None:
            return ()
        calls = typical_calls(rounds.forwards)
        rows = module_rows(layers.modules, observed, calls, layers.view, functions)
        return rounds.with_kernels(tuple(with_work(row, self._work) for row in rows))

    def _look(self, model: nn.Module) -> tuple[dict[str, CallFacts], list[str]]:
        """The first forward, with FLOPs where they can be counted in it; else without."""
        if self._is_counted:
            observer = WorkObserver(model, self._modules)
            try:
                looked_at = self._observe(model, observer)
                self._work = observer.work()
            except ModelRunError as error:
                # Perhaps the counter is what the model does not bear.
                self._note_uncounted(error.__cause__ or error)
                self._renew()
            else:
                return looked_at
        return self._observe(model, CallObserver(model, self._modules))

    def _observe(
        self, model: nn.Module, observer: CallObserver
    ) -> tuple[dict[str, CallFacts], list[str]]:
        """One forward that shows calls and shapes, and what the time of a detector depends on."""
        content = DetectionCounter(model)
        try:
            with content.attached():
                forward = self._casting(content.noted(model))
                call_facts = observer.observe(forward, self.built.args, self.built.kwargs)
        except Exception as error:
            raise_model_error(
                error, self._device, f"{self.workload.model}: {observer.explain(error)}"
            )
        self._modules = without_reach(self._modules, model, observer.compiled)
        return call_facts, [*content.notes(), *observer.notes]

    def _casting(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        return autocasting(forward, self.workload.precision, self._device.torch_device.type)

    def _note_uncounted(self, error: BaseException) -> None:
        self.absent["flops"] = f"the forward failed while they were counted: {first_line(error)}"

    def _renew(self) -> None:
        self._renew_inputs()
        self.draws.put_back()

    def _layers_to_time(
        self,
        model: nn.Module,
        modules: Sequence[ModuleFacts],
        observed: Mapping[str, CallFacts],
    ) -> Layers | None:
        reason = self._why_no_layers(model)
        if reason is not None:
            self.absent["layers"] = reason
            return None
        if any_compiled(model):
            self.absent["functions in compiled parts"] = COMPILED
        clock = clock_for(self.clock)
        return Layers.of(model, modules, observed, self.plan, clock)

    def _why_no_layers(self, model: nn.Module) -> str | None:
        """Why only the whole model is timed; ``None`` where its layers are, too."""
        if self.plan.granularity == "whole":
            return "the plan's granularity is whole"
        if is_compiled(model):
            return f"{COMPILED}, so only the whole model is timed"
        if not self.workload.compile:
            return None
        return why_unknown() or self._why_unseen() or None

    def _why_unseen(self) -> str:
        """Why a device's kernels are not seen, by which alone compiled code has layers there."""
        if clock_for(self.clock) is self.clock:
            return ""
        why = why_unseen(self._device)
        return f"kernels are not seen, so only the whole compiled model is timed: {why}" * bool(why)

    def function_forwards(self) -> Iterator[None]:
        """Run the pass that times functions, one forward at each step.

        Where kernels are seen there is none: their operators tell the functions.
        """
        if self._layers is None or self.plan.function_iterations == 0:
            return
        seen = self.rounds.functions(self._layers.with_functions)
        if seen is not None:
            self._functions = seen
            return
        model = self.built.module
        timer = FunctionTimer(model, self._modules, self._layers.with_functions, self.clock)
        forwards = []
        try:
            self._renew()
            timer.run(self._call)  # the first forward under a mode imports and caches
            for done in range(self.plan.function_iterations):
                self.progress.step("functions", done, self.plan.function_iterations)
                self._renew()
                self.rounds.meter.begin()
                forwards.append(timer.run(self._call))
                self.rounds.note_wait(samples.FUNCTIONS)
                if forwards[-1].unseen:
                    self.absent["functions"] = forwards[-1].unseen
                    return
                yield
        except Exception as error:
            if self._device.is_out_of_memory(error):
                raise
            cause = error.__cause__ if isinstance(error, ModelRunError) else error
            reason = first_line(cause or error)
            self.absent["functions"] = f"the forward failed while functions were timed: {reason}"
            return
        self._functions = forwards


def _bound(
    model: Callable[..., Any],
    built: Built,
    workload: Workload,
    device: Device,
    failed: str = "the forward failed while it was measured, after it had run once",
) -> Call:
    """Runs the model on its inputs; it holds no session, which would hold it in a circle."""

    def call() -> Any:  # noqa: ANN401 - whatever the model returns
        try:
            return model(*built.args, **built.kwargs)
        except Exception as error:
            raise_model_error(error, device, f"{workload.model}: {failed}: {first_line(error)}")

    return call


def _alike(forwards: list[FunctionForward]) -> list[FunctionForward]:
    """The forwards that ran the same functions as the last: work that depends on data varies."""
    if not forwards:
        return []
    last = [(fact.module, fact.name) for fact in forwards[-1].facts]
    return [f for f in forwards if [(fact.module, fact.name) for fact in f.facts] == last]


def _function_arrays(forwards: Sequence[FunctionForward]) -> dict[str, Samples]:
    if not forwards:
        return {}
    times = np.array([forward.times_ns for forward in forwards], dtype=np.int64)
    return {samples.FUNCTIONS: times}


def check_environment(watch: EnvironmentWatch, strict: bool) -> None:
    """Raise `UntrustedError` where ``strict`` and something is wrong with the machine."""
    if strict and watch.warnings:
        raise UntrustedError(f"--strict: {' '.join(watch.warnings)}")
