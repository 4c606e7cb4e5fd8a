"""How far leaves alone are from the same leaves in their model, and whether the model is as it was.

Run: ``python -m benchmarks.isolation``. Each model is measured with ``isolate``. A row adds the
medians of all leaves up: in the model, alone and hot, alone with cold caches. Then come the numbers
of leaves whose time in the model is like which of the two (docs/reports.md, Leaves alone).

*as it was* compares what a call may change before and after: every bit of parameters and buffers,
the attributes of each module, the state of random numbers, and the bits of a seeded forward. One
model is in train mode, where each call of a leaf moves running statistics and draws numbers.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from torch import nn
from torch.utils import _pytree as pytree

import layerbench
from layerbench import zoo
from layerbench.analysis.isolation import Place, beside, sums

TRAIN = ":train"
MODELS = ("resnet18", "vit_b_16", f"mobilenet_v2{TRAIN}")
PLACES: tuple[Place, ...] = get_args(Place)


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help=f"NAME or NAME{TRAIN}")
    parser.add_argument("--iterations", type=int, default=50)
    asked = parser.parse_args()
    names = ("in model ms", "hot ms", "cold ms", "model / hot", "model / cold")
    heads = ("model", "leaves", *names, *PLACES, "as it was")
    print(f"| {' | '.join(heads)} |")
    print(f"|---|{'---:|' * (len(heads) - 2)}---|", flush=True)
    for name in asked.models:
        print(f"| {' | '.join(measured(name, asked.iterations))} |", flush=True)


def measured(name: str, iterations: int) -> list[str]:
    """The cells of a model's row."""
    built = zoo.build(zoo.resolve(name.removesuffix(TRAIN)))
    model = built.module.train(name.endswith(TRAIN))
    before = list(state_of(model, built.args))
    record = layerbench.profile(
        model,
        built.args,
        iterations=iterations,
        function_iterations=1,
        isolate=True,
        ceilings=False,
    )
    changed = unlike(before, list(state_of(model, built.args)))
    leaves = beside(record)
    together = sums(leaves)
    where = Counter(leaf.place for leaf in leaves)
    return [
        f"`{name}`",
        str(len(leaves)),
        *(f"{1e3 * one:.2f}" for one in (together.in_context, together.hot, together.cold)),
        *(f"{together.in_context / one:.2f}" for one in (together.hot, together.cold)),
        *(str(where[place]) for place in PLACES),
        "yes" if not changed else f"no: {', '.join(changed)}",
    ]


def state_of(model: nn.Module, args: Sequence[object]) -> Iterator[tuple[str, object]]:
    """What a call may change, by name: values that can be compared. Leaves it as it is."""
    for name, tensor in model.state_dict().items():
        yield name, tensor.clone()
    for path, module in model.named_modules():
        kept = {key: id(value) for key, value in vars(module).items() if key[:1] != "_"}
        hooks = sum(len(value) for key, value in vars(module).items() if key.endswith("_hooks"))
        yield f"attributes of {path or 'the model'}", (kept, hooks, sorted(vars(module)))
    yield "random numbers", torch.get_rng_state()
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        outputs = pytree.tree_leaves(model(*args))
    model.load_state_dict(saved)
    yield from (("output", output) for output in outputs)


def unlike(before: Sequence[tuple[str, object]], after: Sequence[tuple[str, object]]) -> list[str]:
    """Names of what differs; a state of another length differs as a whole."""
    if [name for name, _ in before] != [name for name, _ in after]:
        return ["what there is"]
    return [
        name
        for (name, one), (_, other) in zip(before, after, strict=True)
        if not (torch.equal(one, other) if torch.is_tensor(one) else one == other)
    ]


if __name__ == "__main__":
    main()
