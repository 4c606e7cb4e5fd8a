"""Structure, FLOPs and predicted memory of every model, N of N, with the time it took.

    python -m benchmarks.zoo                 # every torchvision model
    python -m benchmarks.zoo --timm          # every timm model too, structure only
    python -m benchmarks.zoo --cluster auto  # the models spread over the nodes of a Ray cluster

FLOPs are held against torchvision's published ones (``weights.meta["_ops"]``, GMACs) and parameters
against ``weights.meta["num_params"]`` where torchvision states them, on the input they were stated
for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import typer

TOLERANCE = 0.01
Work = Callable[[], "Outcome"]


@dataclass
class Outcome:
    """What came of one model."""

    name: str
    task: str
    structure_s: float = 0.0
    memory_s: float = 0.0
    how: str = ""
    memory_how: str = ""
    gmacs: float = 0.0
    published_gmacs: float | None = None
    parameters: int = 0
    published_parameters: int | None = None
    parameters_before_removal: int | None = None
    peak_mib: float = 0.0
    uncounted: tuple[str, ...] = ()
    failures: list[str] = field(default_factory=list)

    @property
    def flops_error(self) -> float | None:
        """Relative error against the published figure."""
        if not self.published_gmacs or not self.gmacs:
            return None
        return self.gmacs / self.published_gmacs - 1


def main(
    only: Annotated[str, typer.Option(help="Models with this in their name.")] = "",
    task: Annotated[str, typer.Option(help="Models of this task, such as classification.")] = "",
    memory: Annotated[bool, typer.Option(help="Predict memory too.")] = True,
    train: Annotated[bool, typer.Option("--train", help="Of a training step, SGD.")] = False,
    timm: Annotated[bool, typer.Option("--timm", help="timm's models too, structure.")] = False,
    cluster: Annotated[str, typer.Option(help="Ray cluster: auto, HOST:6379.")] = "",
) -> None:
    """Print a table a task, and what failed or differs."""
    from layerbench.zoo import families

    names = {family.name: family.names() for family in families() if family.name != "user"}
    start = time.perf_counter()
    chosen = [n for n in names["torchvision"] if only in n and task in ("", _task(n))]
    works: list[Work] = [partial(_torchvision, name, memory, train) for name in chosen]
    if timm:
        works += [partial(_structure_only, name) for name in names["timm"] if only in name]
    outcomes = _on_cluster(works, cluster) if cluster else [work() for work in works]
    _report(outcomes, time.perf_counter() - start, memory)


def _on_cluster(works: list[Work], address: str) -> list[Outcome]:
    """What each comes to; Ray places them, one for each core."""
    from layerbench.cluster.connection import connected

    with connected(address) as ray:
        run = ray.remote(num_cpus=1)(_call)
        outcomes: list[Outcome] = ray.get([run.remote(work) for work in works])
        return outcomes


def _call(work: Work) -> Outcome:
    return work()


def _torchvision(name: str, memory: bool, train: bool) -> Outcome:
    outcome = Outcome(name, _task(name))
    meta, shape, weights = _published(name, outcome.task)
    outcome.published_gmacs = meta.get("_ops")
    outcome.published_parameters = meta.get("num_params")
    _structure(outcome, shape, weights)
    if memory:
        # In training BatchNorm wants two images where they are one pixel large, and Inception's
        # auxiliary head takes nothing smaller than its own size.
        own_size = "2x3x299x299" if name == "inception_v3" else None
        _memory(outcome, own_size if train else None, train)
    return outcome


def _task(name: str) -> str:
    """The package that torchvision keeps the model in."""
    from torchvision.models import get_model_builder

    package = get_model_builder(name).__module__.split(".")[2:]
    return package[0] if len(package) > 1 else "classification"


def _structure_only(name: str) -> Outcome:
    outcome = Outcome(name, "timm")
    _structure(outcome, None, None)
    return outcome


def _published(name: str, task: str) -> tuple[dict[str, Any], str | None, str | None]:
    """What torchvision states of a model, and the input it states it for."""
    from torchvision.models import get_model_weights

    try:
        weights = get_model_weights(name).DEFAULT
    except (AttributeError, ValueError):
        return {}, None, None
    size = getattr(weights.transforms(), "crop_size", None)
    if task in ("classification", "quantization") and size:
        side = size[0] if isinstance(size, (list, tuple)) else size
        return weights.meta, f"1x3x{side}x{side}", "DEFAULT"
    return weights.meta, None, "DEFAULT"


def _structure(outcome: Outcome, shape: str | None, weights: str | None) -> None:
    from layerbench.api.structure import structure

    start = time.perf_counter()
    try:
        record = structure(outcome.name, shape, weights=weights)
    except Exception as error:  # every reason is to be listed
        outcome.failures.append(f"structure: {type(error).__name__}: {error}")
        return
    finally:
        outcome.structure_s = time.perf_counter() - start
    outcome.how = record.how
    outcome.gmacs = record.flops / 2e9
    outcome.parameters = record.parameters
    if outcome.published_parameters not in (None, record.parameters):
        # Weights come with auxiliary heads that a builder may remove after loading.
        outcome.parameters_before_removal = structure(outcome.name, shape).parameters
    outcome.uncounted = tuple(operator.name for operator in record.uncounted)


def _memory(outcome: Outcome, shape: str | None, train: bool) -> None:
    from layerbench.api.memory import estimate_memory

    start = time.perf_counter()
    try:
        record = estimate_memory(outcome.name, shape, batch=2 if train else None, training=train)
    except Exception as error:  # every reason is to be listed
        outcome.failures.append(f"memory: {type(error).__name__}: {error}")
        return
    finally:
        outcome.memory_s = time.perf_counter() - start
    outcome.memory_how = record.how
    outcome.peak_mib = record.peak_bytes / 2**20


def _report(outcomes: list[Outcome], seconds: float, memory: bool) -> None:
    from tabulate import tabulate

    rows = [_row(task, [o for o in outcomes if o.task == task]) for task in _tasks(outcomes)]
    rows.append(_row("all", outcomes))
    header = [
        "task",
        "models",
        "structure",
        "on meta",
        "memory",
        "fake",
        "structure s",
        "slowest s",
        "memory s",
        "slowest s",
    ]
    print(tabulate(rows, header, tablefmt="github"))
    print(f"\n{len(outcomes)} models in {seconds:.0f} s")
    _report_published(outcomes)
    _list("failed", (f"{o.name}: {why}" for o in outcomes for why in o.failures))
    _list("not on meta", (o.name for o in outcomes if o.how == "cpu"))
    if memory:
        slowest = max(
            (o for o in outcomes if o.task == "classification"), key=_memory_s, default=None
        )
        if slowest:
            print(f"slowest prediction of a classifier: {slowest.name}, {slowest.memory_s:.2f} s")
        _list("replayed", (o.name for o in outcomes if o.memory_how == "replayed"))
    uncounted = Counter(name for o in outcomes for name in o.uncounted)
    _list("not counted (models)", (f"{name} ({n})" for name, n in sorted(uncounted.items())))


def _memory_s(outcome: Outcome) -> float:
    return outcome.memory_s


def _tasks(outcomes: Iterable[Outcome]) -> list[str]:
    return list(dict.fromkeys(outcome.task for outcome in outcomes))


def _row(task: str, outcomes: list[Outcome]) -> list[str]:
    def worked(kind: str) -> int:
        return sum(not any(why.startswith(kind) for why in o.failures) for o in outcomes)

    with_memory = [o for o in outcomes if o.memory_s]
    times = [o.structure_s for o in outcomes]
    memory_times = [o.memory_s for o in with_memory]
    return [
        task,
        str(len(outcomes)),
        f"{worked('structure')} of {len(outcomes)}",
        str(sum(o.how == "meta" for o in outcomes)),
        f"{worked('memory') - len(outcomes) + len(with_memory)} of {len(with_memory)}",
        str(sum(o.memory_how == "fake" for o in outcomes)),
        f"{sum(times):.1f}",
        f"{max(times, default=0):.2f}",
        f"{sum(memory_times):.1f}",
        f"{max(memory_times, default=0):.2f}",
    ]


def _report_published(outcomes: list[Outcome]) -> None:
    stated = [o for o in outcomes if o.published_gmacs and o.task == "classification"]
    close = [o for o in stated if o.flops_error is not None and abs(o.flops_error) <= TOLERANCE]
    print(f"FLOPs within {TOLERANCE:.0%} of the published: {len(close)} of {len(stated)}")
    _list(
        "FLOPs differ",
        (
            f"{o.name}: {o.gmacs:.4f} GMACs, published {o.published_gmacs}"
            for o in stated
            if o not in close
        ),
    )
    counted = [o for o in outcomes if o.published_parameters]
    equal = [
        o for o in counted if o.published_parameters in (o.parameters, o.parameters_before_removal)
    ]
    print(f"parameters equal to the published: {len(equal)} of {len(counted)}")
    _list(
        "of these, equal with the auxiliary heads that the builder removes after loading",
        (o.name for o in equal if o.parameters != o.published_parameters),
    )
    _list(
        "parameters differ",
        (
            f"{o.name}: {o.parameters}, published {o.published_parameters}"
            for o in counted
            if o not in equal
        ),
    )


def _list(title: str, lines: Iterable[str]) -> None:
    found = list(lines)
    if found:
        print(f"{title} ({len(found)}):")
        for line in found:
            print(f"  {line}")


if __name__ == "__main__":
    typer.run(main)
