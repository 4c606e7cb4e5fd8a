"""Profiles made by hand for tests: every kind of row a report has to show.

The tree's times are consistent: the self times of the modules add up to the root's inclusive
time, and a function's time is part of its module's self time.
"""

from __future__ import annotations

from layerbench.records.environment import DeviceInfo, Environment, Machine, Software
from layerbench.records.timing import Ceilings, LayerRow, Profile, Reconciliation, Summary
from layerbench.records.workload import Plan, Workload


def summary(mean_ms: float, *, spread: float = 0.01, n: int = 300, **changes: object) -> Summary:
    """A distribution around ``mean_ms`` milliseconds whose quartiles lie ``spread`` apart."""
    mean = mean_ms / 1e3

    def at(offset: float) -> float:
        return round(mean * (1 + offset * spread), 10)

    figures: dict[str, object] = {
        "n": n,
        "mean": at(0),
        "std": round(mean * spread * 0.75, 10),
        "median": at(-0.1),
        "mad": round(mean * spread * 0.5, 10),
        "min": at(-2),
        "max": at(4),
        "p5": at(-1),
        "p25": at(-0.6),
        "p75": at(0.4),
        "p95": at(1.5),
        "p99": at(3),
        "ci_low": at(-0.2),
        "ci_high": at(0.1),
        "verdict": "stable",
    }
    return Summary.model_validate({**figures, **changes})


def environment(**changes: object) -> Environment:
    """A quiet two-core machine."""
    fields: dict[str, object] = {
        "device": DeviceInfo(
            kind="cpu", name="AMD EPYC", slug="amd-epyc-2c", memory_bytes=8 * 2**30
        ),
        "machine": Machine(
            cpu="AMD EPYC",
            cores=2,
            affinity=(0, 1),
            threads=1,
            interop_threads=2,
            governor="performance",
            memory_bytes=8 * 2**30,
            load_before=0.25,
            load_after=1.0,
            os="Linux 6.1",
        ),
        "software": Software(
            layerbench="0.1.0",
            python="3.11.9",
            packages={"torch": "2.8.0", "torchvision": "0.23.0"},
            settings={"mkldnn": "on"},
            commit="0123abc",
            dirty=False,
        ),
        "command": "timer.py --model tiny --input 2x3x32x32 --threads 1",
        "started": "2025-03-01T10:00:00Z",
        "finished": "2025-03-01T10:01:30Z",
    }
    return Environment.model_validate({**fields, **changes})


def rows() -> tuple[LayerRow, ...]:
    """A small model: a stem, two blocks of a type, a pooling function, a classifier."""
    image, features = (2, 3, 32, 32), (2, 8, 16, 16)
    noisy = {"verdict": "noisy", "missed": ("relative IQR 14 % > 10 %",)}
    drifting = {"verdict": "drifting", "missed": ("upward drift 7 % > 5 %",)}

    def module(
        path: str, type: str, inclusive: Summary, self_: Summary, **more: object
    ) -> LayerRow:
        fields: dict[str, object] = {
            "path": path,
            "type": type,
            "kind": "module",
            "depth": path.count(".") + 1 if path else 0,
            "calls": 1,
            "inclusive": inclusive,
            "self_": self_,
        }
        return LayerRow.model_validate({**fields, **more})

    def leaf(path: str, type: str, time: Summary, **more: object) -> LayerRow:
        return module(path, type, time, time, **more)

    def function(path: str, time: Summary, **more: object) -> LayerRow:
        name = path.rpartition(".")[2].removesuffix("()")
        return leaf(path, name, time, kind="function", **more)

    return (
        module(
            "",
            "TinyNet",
            summary(10.0),
            summary(0.5),
            input_shapes=(image,),
            output_shapes=((2, 10),),
            parameters=12_345,
        ),
        module(
            "features",
            "Sequential",
            summary(9.0),
            summary(0.01, spread=0.14, **noisy),
            input_shapes=(image,),
            output_shapes=(features,),
            parameters=12_255,
        ),
        leaf(
            "features.0",
            "Conv2d",
            summary(2.0),
            block=True,
            position=1,
            input_shapes=(image,),
            output_shapes=(features,),
            parameters=224,
        ),
        module(
            "features.1",
            "InvertedResidual",
            summary(3.0),
            summary(0.2),
            block=True,
            position=1,
            input_shapes=(features,),
            output_shapes=(features,),
            parameters=6_000,
        ),
        leaf(
            "features.1.conv",
            "Conv2d",
            summary(2.8, spread=0.14, **noisy),
            calls=2,
            input_shapes=(features,),
            output_shapes=(features,),
            parameters=6_000,
            note="also features.2.shared",
        ),
        function(
            "features.1.add()",
            summary(0.15, n=30),
            input_shapes=(features, features),
            output_shapes=(features,),
            scaled=0.9,
        ),
        module(
            "features.2",
            "InvertedResidual",
            summary(3.99, **drifting),
            summary(0.09, spread=0.3, **noisy),
            block=True,
            position=2,
            input_shapes=(features,),
            output_shapes=(features,),
            parameters=6_031,
        ),
        leaf(
            "features.2.conv",
            "Conv2d",
            summary(3.9),
            input_shapes=(features,),
            output_shapes=(features,),
            parameters=6_000,
        ),
        LayerRow(path="features.2.spare", type="Dropout", kind="module", depth=3, calls=0),
        function(
            "mean()",
            summary(0.4, n=30),
            block=True,
            input_shapes=(features,),
            output_shapes=((2, 8),),
            scaled=1.0,
        ),
        leaf(
            "classifier",
            "Linear",
            summary(0.5),
            block=True,
            position=1,
            input_shapes=((2, 8),),
            output_shapes=((2, 10),),
            parameters=90,
        ),
    )


def layered() -> Profile:
    """A layers record with functions, a row that was not called, a noisy and a drifting one."""
    return Profile(
        workload=Workload(model="tiny", input="2x3x32x32", shape=(2, 3, 32, 32), batch=2),
        plan=Plan(threads=1),
        environment=environment(warnings=("the load was 1.8 on 2 cores before the run",)),
        model_type="TinyNet",
        parameters=12_345,
        whole=summary(9.9),
        process_medians=(9.89e-3,),
        layers=rows(),
        reconciliation=Reconciliation(
            untouched_s=9.89e-3,
            instrumented_s=9.99e-3,
            overhead=1.0101,
            overhead_low=1.0089,
            overhead_high=1.0113,
            self_sum_ratio=1.0,
            layers_sum_s=1e-2,
            layers_gap=0.0111,
            mark_cost_s=4.5e-8,
            wrapper_cost_s=4.1e-7,
            timed_calls=9,
        ),
        absent={"host times": "the host's clock is the device's clock on a CPU"},
        notes=("functions were timed in a pass of their own, 30 forwards",),
    )


def counted() -> Profile:
    """The layers with FLOPs, a convolution's kernel, and the device's ceilings."""
    own = {"features.0": 1_000_000, "features.1.conv": 4_000_000, "features.2.conv": 2_000_000}
    below = {"": 7_000_000, "features": 7_000_000, "features.1": 4_000_000, "features.2": 2_000_000}
    rows = [
        row.model_copy(
            update={
                "flops": own.get(row.path, below.get(row.path, 0)),
                "self_flops": own.get(row.path, 0),
                "own_parameters": row.parameters if row.path in (*own, "classifier") else 0,
                "kernel_size": (3, 3) if row.type == "Conv2d" else None,
                "groups": 2 if row.path == "features.0" else None,
            }
        )
        if row.kind == "module"
        else row
        for row in layered().layers
    ]
    ceilings = Ceilings(
        flops_per_s=1e10, bytes_per_s=1e9, dtype="float32", threads=2, how="By the best of 3."
    )
    return layered().model_copy(update={"layers": tuple(rows), "ceilings": ceilings})


def whole() -> Profile:
    """The whole-model record of the same measurement."""
    return layered().without_layers()


def on_gpu() -> Profile:
    """A launch-bound run: the host takes longer than the device. Half precision, dirty tree."""
    record = layered()
    environment_ = environment(
        device=DeviceInfo(
            kind="cuda",
            name="NVIDIA H100",
            slug="nvidia-h100",
            memory_bytes=80 * 2**30,
            details={"driver": "550.54", "compute capability": "9.0"},
        ),
        software=record.environment.software.model_copy(update={"dirty": True}),
    )
    host = {
        row.path: row.model_copy(
            update={"host_inclusive": summary(12.0), "host_self": summary(1.0)}
        )
        for row in record.layers
        if row.inclusive and row.kind == "module"
    }
    return record.model_copy(
        update={
            "workload": record.workload.model_copy(
                update={"dtype": "float16", "memory_format": "channels_last", "compile": "default"}
            ),
            "environment": environment_,
            "whole_host": summary(12.0),
            "layers": tuple(host.get(row.path, row) for row in record.layers),
            "absent": {},
            "notes": (),
        }
    )


def in_processes() -> Profile:
    """Five fresh processes that disagree, and the interval says so."""
    return whole().model_copy(
        update={
            "plan": Plan(processes=5, threads=1, until=0.01, max_iterations=600),
            "whole": summary(
                9.9,
                n=3000,
                ci_low=9.2e-3,
                ci_high=10.6e-3,
                verdict="noisy",
                missed=("interval half-width 7 % > 5 %",),
            ),
            "process_medians": (9.3e-3, 9.7e-3, 9.89e-3, 10.2e-3, 10.5e-3),
            "stop": "cap",
        }
    )


SAMPLES = {
    "layered": layered,
    "whole": whole,
    "on_gpu": on_gpu,
    "in_processes": in_processes,
}


def deep(stages: int = 100, blocks: int = 9, layers: int = 10) -> Profile:
    """A profile with a row for each layer of a large model."""
    rows: list[LayerRow] = []

    def add(path: str, type: str, ms: float, own: float) -> None:
        fields = {
            "path": path,
            "type": type,
            "kind": "module",
            "depth": path.count(".") + 1 if path else 0,
            "calls": 1,
            "inclusive": summary(ms),
            "self_": summary(own),
            "parameters": 10,
        }
        rows.append(LayerRow.model_validate(fields))

    leaf = 0.01
    block = leaf * layers + 0.01
    add("", "Large", stages * (blocks * block + 0.01) + 1, 1)
    for stage in range(stages):
        add(f"s{stage}", f"Stage{stage % 2}", blocks * block + 0.01, 0.01)
        for number in range(blocks):
            add(f"s{stage}.b{number}", "Block", block, 0.01)
            for layer in range(layers):
                add(f"s{stage}.b{number}.conv{layer}", f"Conv{layer % 3}d", leaf, leaf)
    return layered().model_copy(update={"layers": tuple(rows)})
