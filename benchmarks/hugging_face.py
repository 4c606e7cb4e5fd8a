"""Vision architectures of transformers by their defaults: our counts beside independent ones.

    python -m benchmarks.hugging_face                    # counts, structure, memory, a few forwards
    python -m benchmarks.hugging_face --only vit,detr    # of these alone
    python -m benchmarks.hugging_face --no-runs          # counts alone

Each architecture has a process of its own. The counts that are compared with layerbench's come from
the library itself: its configuration, its class, and a forward on the CPU under PyTorch's
`torch.utils.flop_counter.FlopCounterMode`; parameters and bytes are summed over its tensors. Those
of two architectures are worked out by hand, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parent.parent

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
    runs: Annotated[bool, typer.Option(help="Time them, measure memory and estimate.")] = True,
    seconds: Annotated[int, typer.Option(help="Longest time of one architecture.")] = 900,
) -> None:
    """Print a row for each architecture, and how many agree and run."""
    from tabulate import tabulate

    names = only.split(",") if only else list(ARCHITECTURES)
    found = []
    for name in names:
        found.append(_in_its_own_process(name, runs, seconds))
        print(f"{name}: {json.dumps(found[-1])}", file=sys.stderr, flush=True)
    header = ["hf:", "input", "GFLOP", "parameters", "bytes", "equal", "structure", "runs", "s"]
    print(tabulate([_row(one) for one in found], header, tablefmt="github"))
    for what in ("flops", "parameters", "bytes"):
        equal = [one["name"] for one in found if one.get(what) == one.get(f"own {what}", -1)]
        print(f"{what} equal to the independent count: {len(equal)} of {len(found)}")
    for name, by_hand in BY_HAND.items():
        for one in found:
            if one["name"] == name:
                agrees = by_hand() == [one.get("flops"), one.get("parameters")]
                print(f"{name} by hand: {'equal' if agrees else 'DIFFERENT'}, {by_hand()}")
    for run in RUNS if runs else ():
        done = [one for one in found if one.get("runs", {}).get(run) == "ran"]
        no_classifiers = sum(one.get("runs", {}).get(run) == NO_CLASSIFIER for one in found)
        rest = f", no classifiers {no_classifiers}" if no_classifiers else ""
        print(f"{run}: {len(done)} of {len(found)}{rest}")
    for one in found:
        for run, why in {
            **one.get("runs", {}),
            **({"": one["failed"]} if "failed" in one else {}),
        }.items():
            if why not in ("ran", NO_CLASSIFIER):
                print(f"{one['name']} {run}: {why}")


def _row(one: dict[str, Any]) -> list[Any]:
    if "failed" in one:
        return [one["name"], *("",) * 5, "failed", "", ""]
    equal = all(one[what] == one[f"own {what}"] for what in ("flops", "parameters", "bytes"))
    outcomes = list(one["runs"].values())
    good = sum(why in ("ran", NO_CLASSIFIER) for why in outcomes)
    return [
        one["name"],
        one["input"],
        f"{one['flops'] / 1e9:.3f}",
        one["parameters"],
        one["bytes"],
        "yes" if equal else "NO",
        one["how"],
        f"{good} of {len(outcomes)}",
        f"{one['seconds']:.0f}",
    ]


def _in_its_own_process(name: str, runs: bool, seconds: int) -> dict[str, Any]:
    code = f"from benchmarks.hugging_face import look; look({name!r}, {runs})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=seconds,
            check=False,
        )
        last = done.stdout.splitlines()[-1:] or [""]
        return dict(json.loads(last[0])) if done.returncode == 0 else _failed(name, done.stderr)
    except subprocess.TimeoutExpired:
        return _failed(name, f"took more than {seconds} s")


def _failed(name: str, why: str) -> dict[str, Any]:
    return {"name": name, "failed": (why.strip().splitlines() or ["no reason"])[-1]}


# --- one architecture -----------------------------------------------------------------------------


def look(name: str, runs: bool) -> None:
    """Print what layerbench and the library count, and whether each recipe runs, as JSON."""
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
        **_counted(name),
        "runs": _all_runs(f"hf:{name}") if runs else {},
    }
    found["seconds"] = time.perf_counter() - begin
    print(json.dumps(found))


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


NO_CLASSIFIER = "no classifier"
LARGEST = 224
"""Of the images that a training time is estimated with."""


def _all_runs(spec: str) -> dict[str, str]:
    import layerbench
    from layerbench import zoo

    height, width = (min(side, LARGEST) for side in zoo.resolve(spec).shape[-2:])
    few: dict[str, Any] = {"device": "cpu", "warmup": 0, "iterations": 1}
    # In training BatchNorm wants two images where they are one pixel large.
    recipes: dict[str, Callable[[], object]] = {
        "timing": lambda: layerbench.profile(spec, function_iterations=1, ceilings=False, **few),
        "training step": lambda: layerbench.profile_training(spec, batch=2, **few),
        "memory": lambda: layerbench.memory(spec, device="cpu"),
        "predicted memory": lambda: layerbench.estimate_memory(spec, batch=2, training=True),
        "training time": lambda: layerbench.estimate_training_time(
            spec,
            **{"samples": 8, "batch": 2, "size": (height, width), "device": "cpu"},
            **{"warmup": 0, "steps": 2, "seconds": 0.1},
        ),
    }
    return {what: _outcome(run) for what, run in recipes.items()}


def _outcome(run: Callable[[], object]) -> str:
    try:
        run()
    except Exception as error:  # every reason is to be listed
        if "not a classifier" in str(error) or "does not take images" in str(error):
            return NO_CLASSIFIER
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
