"""One round of a workload on tensors without memory: which rows it has, and no times."""

from __future__ import annotations

from contextlib import suppress

from layerbench import zoo
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.environment.run_context import gradients_on, watch_environment
from layerbench.errors import ModelRunError
from layerbench.instruments.attach import mode_set
from layerbench.instruments.fake_tensors import shapes_of_model, without_memory
from layerbench.instruments.preserve import (
    drawing_anew,
    preserved_from_stand_ins,
    strays_removed,
)
from layerbench.instruments.random_state import drawing_from
from layerbench.profilers.progress import Silent
from layerbench.profilers.timing import Session
from layerbench.records.samples import Run
from layerbench.records.workload import Plan, Workload
from layerbench.zoo import Built


def dry_run(workload: Workload, plan: Plan, *, counted: bool = True) -> Run:
    """One round on tensors without memory. It shows the rows; its times mean nothing.

    A model that needs its tensors' values runs for real on the CPU.

    Args:
        workload, plan: as for `measure`.
        counted: whether FLOPs are counted, too.

    Raises:
        LayerbenchError: as `measure`.
    """
    plan = plan.model_copy(update={"function_iterations": min(plan.function_iterations, 1)})
    workload = workload.model_copy(update={"compile": False})
    cpu = devices.get("cpu")
    built = shapes_of_model(workload)
    if built is not None:
        with (
            strays_removed(workload.model),
            suppress(ModelRunError),
            preserved_from_stand_ins(built, handed_over=False),
            drawing_from(workload.seed),
            without_memory(built, "cpu") as stand_in,
        ):
            return _one_round(workload, plan, cpu, stand_in, counted)
    built = zoo.build(workload, load_weights=False)
    with drawing_anew(workload, built):
        return _one_round(workload, plan, cpu, built, counted)


def _one_round(workload: Workload, plan: Plan, device: Device, built: Built, counted: bool) -> Run:
    training = workload.mode == "train"
    with mode_set(built.module, training), gradients_on(training):
        session = Session(workload, plan, device, built, Silent(), counted=counted)
        for run in (session.rounds.run_untouched, session.rounds.run_instrumented):
            session.draws.put_back()
            run()
        for _ in session.function_forwards():
            pass
        session.count_work()
        return session.result(watch_environment(device).finish(), "iterations")
