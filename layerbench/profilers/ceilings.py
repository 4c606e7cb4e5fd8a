"""The device's ceilings beside the times of a record, once in a process."""

from __future__ import annotations

import torch

from layerbench.environment.devices import Device
from layerbench.environment.precision import precision_set
from layerbench.environment.run_context import garbage_collection_off, memory_explained, threads_set
from layerbench.errors import LayerbenchError, first_line
from layerbench.instruments.ceilings import measure_ceilings
from layerbench.records.timing import Ceilings, Profile
from layerbench.records.workload import Plan, Workload, real_format


def with_ceilings(record: Profile, device: Device) -> Profile:
    """The record with the device's ceilings, or why there are none; the times are worth more.

    They are measured once in a process, so that several models stand under the same roof.
    """
    workload, plan = record.workload, record.plan
    tf32 = workload.precision == "tf32"
    threads = (plan.threads, torch.get_num_threads())
    key = (str(device.torch_device), real_format(workload), tf32, *threads)
    try:
        if key not in _measured:
            _measured[key] = ceilings(workload, plan, device)
    except (LayerbenchError, RuntimeError, MemoryError) as error:
        absent = {**record.absent, "ceilings": first_line(error)}
        return record.model_copy(update={"absent": absent})
    return record.model_copy(update={"ceilings": _measured[key]})


_measured: dict[tuple[object, ...], Ceilings] = {}


def ceilings(workload: Workload, plan: Plan, device: Device) -> Ceilings:
    """What the device reaches at best in the workload's number format, on the plan's threads.

    Raises:
        NotEnoughMemory: not enough memory for a matrix or a buffer.
    """
    with (
        threads_set(plan.threads),
        precision_set(workload.precision, device),
        memory_explained(device),
        garbage_collection_off(),
    ):
        return measure_ceilings(device, real_format(workload))
