"""Vision architectures of transformers by their defaults: our counts beside independent ones.

    python -m benchmarks.hugging_face                    # counts, structure, memory, a few forwards
    python -m benchmarks.hugging_face --only vit,detr    # of these alone
    python -m benchmarks.hugging_face --no-runs          # counts alone
    python -m benchmarks.hugging_face --no-counts        # runs alone
    python -m benchmarks.hugging_face --no-counts --of "training time"
    python -m benchmarks.hugging_face --largest 2000     # runs with the usual images

Each architecture has a process of its own. Counts and structure are of its usual input. Runs are
made with images of at most 64 pixels a side, where it takes such. The counts that are compared with
layerbench's come from the library itself: its configuration, its class, and a forward on the CPU
under PyTorch's `torch.utils.flop_counter.FlopCounterMode`; parameters and bytes are summed over its
tensors. Those of two architectures are worked out by hand, too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Annotated, Any

import typer

# Each process begins with the libraries loaded, and with nothing run.
PROCESSES = multiprocessing.get_context("forkserver")
LIBRARIES = [
    "torch",
    "torchvision",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "layerbench.api.bundle",
    "layerbench.api.training",
]

ARCHITECTURES = (
    *("vit", "deit", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit", "ijepa", "hiera"),
    *("swin", "swinv2", "focalnet", "pvt_v2", "levit", "mobilevit", "poolformer"),
    *("resnet", "regnet", "convnext", "convnextv2", "efficientnet", "mobilenet_v2", "bit"),
    *("segformer", "mask2former", "detr", "rt_detr", "yolos"),
    *("dpt", "depth_anything"),
    *("clip", "clip_vision", "siglip2", "sam2"),
)

RUNS = ("timing", "training step", "memory", "predicted memory", "training time")


def main(
    only: Annotated[str, typer.Option(help="Architectures with commas.")] = "",
    counts: Annotated[bool, typer.Option(help="Let the library count.")] = True,
    runs: Annotated[bool, typer.Option(help="Time them, measure memory and estimate.")] = True,
    largest: Annotated[int, typer.Option(help="Longest side of the images of these runs.")] = 64,
    of: Annotated[str, typer.Option(help="Kinds of runs with commas.")] = ",".join(RUNS),
    seconds: Annotated[int, typer.Option(help="Longest time of one architecture.")] = 900,
    jobs: Annotated[int, typer.Option(help="Architectures at a time.")] = 1,
) -> None:
    """Print a row for each architecture, and how many agree and run."""
    from tabulate import tabulate

    names = only.split(",") if only else list(ARCHITECTURES)
    found = []
    PROCESSES.set_forkserver_preload(LIBRARIES)
    kinds = tuple(of.split(",")) if runs else ()
    looked = partial(
        _in_its_own_process, kinds=kinds, largest=largest, counts=counts, seconds=seconds
    )
    with ThreadPoolExecutor(jobs) as pool:
        for one in pool.map(looked, names):
            found.append(one)
            print(json.dumps(one), file=sys.stderr, flush=True)
    header = ["hf:", "input", "GFLOP", "parameters", "bytes", "equal", "structure", "runs", "s"]
    print(tabulate([_row(one) for one in found], header, tablefmt="github"))
    for what in ("flops", "parameters", "bytes") if counts else ():
        equal = [one["name"] for one in found if one.get(what) == one.get(f"own {what}", -1)]
        print(f"{what} equal to the independent count: {len(equal)} of {len(found)}")
    for name, by_hand in BY_HAND.items() if counts else ():
        for one in found:
            if one["name"] == name:
                agrees = by_hand() == [one.get("flops"), one.get("parameters")]
                print(f"{name} by hand: {'equal' if agrees else 'DIFFERENT'}, {by_hand()}")
    for run in kinds:
        done = [one for one in found if one.get("runs", {}).get(run) == "ran"]
        print(f"{run}: {len(done)} of {len(found)}")
    for one in found:
        for run, why in {
            **one.get("runs", {}),
            **({"": one["failed"]} if "failed" in one else {}),
        }.items():
            if why != "ran":
                print(f"{one['name']} {run}: {why}")


def _row(one: dict[str, Any]) -> list[Any]:
    if "failed" in one:
        return [one["name"], *("",) * 5, "failed", "", ""]
    equal = [one[what] == one.get(f"own {what}") for what in ("flops", "parameters", "bytes")]
    outcomes = list(one["runs"].values())
    good = outcomes.count("ran")
    return [
        one["name"],
        one["input"],
        f"{one['flops'] / 1e9:.3f}",
        one["parameters"],
        one["bytes"],
        ("yes" if all(equal) else "NO") if "own flops" in one else "",
        one["how"],
        f"{good} of {len(outcomes)}",
        f"{one['seconds']:.0f}",
    ]


def _in_its_own_process(
    name: str, kinds: Sequence[str], largest: int, counts: bool, seconds: int
) -> dict[str, Any]:
    found, told = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_tell, args=(told, name, kinds, largest, counts))
    process.start()
    told.close()
    try:
        if found.poll(seconds):
            return dict(found.recv())
        return _failed(name, f"took more than {seconds} s")
    except EOFError:
        return _failed(name, "its process died")
    finally:
        process.terminate()
        process.join()


def _tell(told: Connection, name: str, kinds: Sequence[str], largest: int, counts: bool) -> None:
    # What libraries print is no part of the table.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        told.send(look(name, kinds, largest, counts))
    except Exception as error:  # every reason is to be listed
        told.send(_failed(name, f"{type(error).__name__}: {error}"))


def _failed(name: str, why: str) -> dict[str, Any]:
    return {"name": name, "failed": (why.strip().splitlines() or ["no reason"])[-1]}


# --- one architecture -----------------------------------------------------------------------------


def look(name: str, kinds: Sequence[str], largest: int, counts: bool) -> dict[str, Any]:
    """What layerbench and the library count, and whether each recipe runs.

    Args:
        name: of the architecture.
        kinds: of the runs.
        largest: side of their images.
        counts: whether the library counts, too.
    """
    from layerbench.api.structure import structure

    begin = time.perf_counter()
    record = structure(f"hf:{name}")
    found: dict[str, Any] = {
        "name": name,
        "input": record.workload.input,
        "how": record.how,
        "flops": record.flops,
        "parameters": record.parameters,
        "bytes": record.parameter_bytes + record.buffer_bytes,
        **(_counted(name) if counts else {}),
        "runs": _all_runs(f"hf:{name}", kinds, largest),
    }
    found["seconds"] = time.perf_counter() - begin
    return found


def _counted(name: str) -> dict[str, int]:
    """What the library and PyTorch count, of a model that layerbench did not build."""
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from layerbench import zoo

    subject = zoo.build(zoo.resolve(f"hf:{name}"))
    spelled = {
        kind.replace("-", "_").replace("_vision_model", "_vision"): kind
        for kind in CONFIG_MAPPING_NAMES
    }
    config = transformers.AutoConfig.for_model(spelled[name])
    # On a CPU, FlopCounterMode does not know the fused attention, and counts its two products.
    config._attn_implementation = "eager"
    model = getattr(transformers, type(subject.module).__name__)(config).eval()
    # It marks what wants gradients, and fails where a module is given a parameter.
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**subject.kwargs)
    held = [*model.named_parameters(), *model.named_buffers()]
    return {
        "own flops": counter.get_total_flops(),
        "own parameters": sum(tensor.numel() for _, tensor in model.named_parameters()),
        "own bytes": sum(tensor.numel() * tensor.element_size() for _, tensor in held),
    }


LEAST = {"sam2": 128, "swin": 224, "rt_detr": 224}
"""Sides of the smallest images that an architecture takes, where those of others are too small."""


def _all_runs(spec: str, kinds: Sequence[str], largest: int) -> dict[str, str]:
    import layerbench
    from layerbench import zoo

    usual = zoo.resolve(spec).shape
    largest = max(largest, LEAST.get(spec.removeprefix("hf:"), 0))
    height, width = (min(side, largest) for side in usual[-2:])
    one = "x".join(map(str, (*usual[:-2], height, width)))
    # In training BatchNorm wants two images where they are one pixel large.
    trained = f"2x{one.partition('x')[2]}"
    few: dict[str, Any] = {"device": "cpu", "warmup": 0, "iterations": 1}
    recipes: dict[str, Callable[[], object]] = {
        "timing": lambda: layerbench.profile(
            spec, one, function_iterations=1, ceilings=False, **few
        ),
        "training step": lambda: layerbench.profile_training(spec, trained, **few),
        "memory": lambda: layerbench.memory(spec, one, device="cpu"),
        "predicted memory": lambda: layerbench.estimate_memory(spec, trained, training=True),
        "training time": lambda: layerbench.estimate_training_time(
            spec,
            **{"samples": 8, "batch": 2, "size": (height, width), "device": "cpu"},
            **{"warmup": 0, "steps": 2, "seconds": 0.1},
        ),
    }
    return {what: _outcome(recipes[what]) for what in kinds}


def _outcome(run: Callable[[], object]) -> str:
    try:
        run()
    except Exception as error:  # every reason is to be listed
        return f"{type(error).__name__}: {error}"
    return "ran"


# --- by hand --------------------------------------------------------------------------------------


def _vit() -> list[int]:
    """ViT-B/16 at 224x224 with 2 classes: FLOPs (two for a multiply-add) and parameters."""
    width, hidden, layers, classes, patch = 768, 3072, 12, 2, 3 * 16 * 16
    patches = 14 * 14
    tokens = patches + 1
    block = 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * hidden
    multiply_adds = patches * patch * width + layers * block + width * classes
    weights = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
    parameters = (
        patch * width + width  # patches
        + width + tokens * width  # the class's token, positions
        + layers * weights
        + 2 * width  # the last normalization
        + width * classes + classes
    )  # fmt: skip
    return [2 * multiply_adds, parameters]


def _convnextv2() -> list[int]:
    """ConvNeXt V2-T at 224x224 with 2 classes."""
    widths, depths, classes = (96, 192, 384, 768), (3, 3, 9, 3), 2
    side = 224 // 4
    multiply_adds = side * side * 3 * 16 * widths[0]
    parameters = 3 * 16 * widths[0] + widths[0] + 2 * widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            before, side = widths[stage - 1], side // 2
            multiply_adds += side * side * before * 4 * width
            parameters += 2 * before + before * 4 * width + width
        multiply_adds += depth * side * side * (49 * width + 8 * width * width)
        # Depthwise, normalization, up, global response normalization, down.
        block = 49 * width + width + 2 * width + 4 * width * width + 4 * width
        block += 2 * 4 * width + 4 * width * width + width
        parameters += depth * block
    multiply_adds += widths[-1] * classes
    parameters += 2 * widths[-1] + widths[-1] * classes + classes
    return [2 * multiply_adds, parameters]


BY_HAND: dict[str, Callable[[], list[int]]] = {"vit": _vit, "convnextv2": _convnextv2}


if __name__ == "__main__":
    typer.run(main)
