"""What the viewer shows of a model, made in processes of their own. Loads torch.

The web process never imports it.
"""

from __future__ import annotations

from typing import Any

from layerbench import zoo
from layerbench.analysis.aggregation import assemble
from layerbench.environment import devices
from layerbench.environment.devices import Device
from layerbench.environment.run_context import check_input_fits, memory_explained
from layerbench.errors import LayerbenchError, first_line, typed_line
from layerbench.profilers import timing
from layerbench.profilers.ceilings import ceilings as measured_ceilings
from layerbench.profilers.memory.measured import profile_memory
from layerbench.profilers.memory.predicted import check_memory_fits
from layerbench.profilers.monitor import EventSink, Watch
from layerbench.profilers.structure import profile_structure
from layerbench.records.memory import MemoryReport
from layerbench.records.structure import Structure
from layerbench.records.timing import Ceilings, Profile
from layerbench.records.workload import Plan, Workload
from layerbench.service.protocol.questions import ProfileQuestion, ViewQuestion
from layerbench.zoo import Built
from layerbench.zoo.family import on_device


def structure(question: ViewQuestion) -> dict[str, Any]:
    """What a model is made of, as JSON; where shapes suffice, nothing is allocated.

    Raises:
        LayerbenchError: with one line that says what to do.
    """
    return _json(profile_structure(workload_of(question)))


def profile(question: ProfileQuestion, device_name: str | None, offer: EventSink) -> dict[str, Any]:
    """Measure a model: its ``profile``, ``structure`` and ``memory``, each as JSON.

    Args:
        question: what is asked.
        device_name: where; ``None`` takes the accelerator if there is one.
        offer: takes events: how far it is, what runs, provisional times.

    Raises:
        LayerbenchError: with one line that says what to do.
    """
    device = devices.get(device_name)
    with Watch(offer) as watch:
        watch.step("building", 0, 2)
        workload = workload_of(question)
        drawn = profile_structure(workload)
        watch.step("building", 1, 2)
        built = _built(workload, device)
        plan = Plan(
            warmup=question.warmup, iterations=question.iterations, threads=question.threads
        )
        run = timing.measure(
            workload, plan, device, subject=built, progress=watch, begun=watch.begun
        )
        watch.step("memory", 0, 1)
        timed = assemble(workload, plan, [run])
        ceilings, reasons = _ceilings(workload, plan, device)
        memory, notes = _memory(workload, device, built)
        watch.step("memory", 1, 1)
    report: Profile = timed.model_copy(
        update={
            "ceilings": ceilings,
            "notes": (*timed.notes, *reasons, *notes),
            "environment": timed.environment.model_copy(
                update={"command": _command(question, device_name)}
            ),
        }
    )
    return {
        "profile": _json(report),
        "structure": _json(drawn),
        "memory": None if memory is None else _json(memory),
    }


def workload_of(question: ViewQuestion) -> Workload:
    """What runs.

    Raises:
        LayerbenchError: as `layerbench.zoo.resolve`.
    """
    size = question.image_size
    shape = None if size is None else f"3x{size[0]}x{size[1]}"
    return zoo.resolve(
        question.architecture,
        shape,
        batch=question.batch_size,
        precision=question.precision,
        dtype=question.dtype,
        memory_format="channels_last" if question.channels_last else "contiguous",
        mode=question.mode,
    )


def _command(question: ProfileQuestion, device: str | None) -> str:
    """What measures the same from a command line."""
    size = question.image_size
    words = [f"timer.py --model {question.architecture} --batch {question.batch_size}"]
    if size is not None:
        words.append(f"--input 3x{size[0]}x{size[1]}")
    precision = zoo.chosen_precision(question.precision, question.dtype)
    if precision is not None:
        words.append(f"--precision {precision}")
    if question.channels_last:
        words.append("--channels-last")
    if question.mode != "eval":
        words.append(f"--mode {question.mode}")
    if device is not None:
        words.append(f"--device {device}")
    if question.threads is not None:
        words.append(f"--threads {question.threads}")
    words.append(f"--warmup {question.warmup} --iterations {question.iterations}")
    words.append("--ceilings")
    return " ".join(words)


def _built(workload: Workload, device: Device) -> Built:
    """The model on the device, unless its tensors cannot fit there."""
    with memory_explained(device):
        check_input_fits(workload, device)
        check_memory_fits(workload, device, None)
        return on_device(zoo.build(workload), device.torch_device)


def _ceilings(
    workload: Workload, plan: Plan, device: Device
) -> tuple[Ceilings | None, tuple[str, ...]]:
    """The device's ceilings, or why they are missing; their failure does not lose the times."""
    try:
        return measured_ceilings(workload, plan, device), ()
    except (LayerbenchError, RuntimeError, MemoryError) as error:
        return None, (f"no ceilings: {first_line(error)}",)


def _memory(
    workload: Workload, device: Device, built: Built
) -> tuple[MemoryReport | None, tuple[str, ...]]:
    """The memory of one more forward, or why it is missing."""
    try:
        return profile_memory(workload, device, subject=built), ()
    except LayerbenchError as error:
        reason = first_line(error)
    except Exception as error:
        # The times are there, and worth more than this.
        reason = typed_line(error)
    return None, (f"no memory report: {reason}",)


def _json(record: Profile | Structure | MemoryReport) -> dict[str, Any]:
    return record.model_dump(mode="json", by_alias=True)
