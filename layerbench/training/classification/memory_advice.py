"""What to do where a training step does not fit into memory."""

from __future__ import annotations

from layerbench.environment.devices import Device
from layerbench.errors import LayerbenchError
from layerbench.profilers.memory.largest_batch import with_fit
from layerbench.profilers.memory.predicted import predict
from layerbench.records.recipes import Recipe
from layerbench.records.workload import Workload
from layerbench.units import bytes_


def memory_advice(recipe: Recipe, workload: Workload, device: Device, free: int) -> str:
    """What a step needs, what is free, and the largest batch that would fit.

    Args:
        recipe: what is trained.
        workload: one step of it.
        device: that it was to run on.
        free: bytes that were free there before the model was built.
    """
    size = "x".join(map(str, workload.shape))
    text = f"not enough memory on {device.kind} for a batch of {recipe.batch} ({size})"
    try:
        # With weights of its own a model counts as one that cannot be built again.
        estimate = predict(workload.model_copy(update={"weights": None}), optimizer="adamw")
        # Of what the prediction holds for a GPU, `free` has to take no driver's share; and on
        # a CPU, which has neither its workspaces nor its blocks, the tensors alone.
        on_gpu = device.kind == "cuda"
        needed = estimate.reserved_interval.high if on_gpu else estimate.peak_interval.low
        spare = estimate.total_interval.high - needed
        fit = with_fit(estimate, free + spare).fit
        batch = fit and fit.largest_batch
    except LayerbenchError:
        return f"{text}: {bytes_(free)} are free; take a smaller --batch_size or --size"
    fits = f"about {batch} images would fit" if batch else "not even one image would fit"
    return (
        f"{text}: it needs about {bytes_(estimate.peak_bytes)} for its tensors, {bytes_(free)} "
        f"are free; {fits} (--batch_size)"
    )
