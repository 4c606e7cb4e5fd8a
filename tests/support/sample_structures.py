"""A structure and ceilings that go with `tests.support.sample_profiles.layered`, made by hand."""

from __future__ import annotations

from layerbench.records.graph import Graph
from layerbench.records.structure import Structure, StructureRow
from layerbench.records.timing import Ceilings, Profile
from tests.support.sample_profiles import layered

IMAGE, FEATURES = (2, 3, 32, 32), (2, 8, 16, 16)


def row(path: str, type: str, flops: int | None, **more: object) -> StructureRow:
    fields: dict[str, object] = {
        "path": path,
        "type": type,
        "depth": path.count(".") + 1 if path else 0,
        "calls": 1,
        "parameters": 0,
        "trainable": 0,
        "own_parameters": 0,
        "buffers": 0,
        "flops": flops,
        "self_flops": flops,
    }
    return StructureRow.model_validate({**fields, **more})


def structure(**changes: object) -> Structure:
    """Of the tiny model: FLOPs of all calls, own parameters, shapes of the first call."""
    both = {"input_shapes": (FEATURES,), "output_shapes": (FEATURES,)}
    conv = {**both, "parameters": 6_000, "own_parameters": 6_000}
    composite = {"self_flops": 0}
    rows = (
        row("", "TinyNet", 5_000_320, parameters=12_314, **composite),
        row("features", "Sequential", 5_000_000, parameters=12_224, **composite),
        row(
            "features.0",
            "Conv2d",
            200_000,
            input_shapes=(IMAGE,),
            output_shapes=(FEATURES,),
            parameters=224,
            own_parameters=224,
        ),
        row("features.1", "InvertedResidual", 2_400_000, parameters=6_000, **composite),
        row("features.1.conv", "Conv2d", 2_400_000, calls=2, **conv),
        row("features.2", "InvertedResidual", 2_400_000, parameters=6_000, **composite),
        row("features.2.conv", "Conv2d", 2_400_000, **conv),
        row("features.2.spare", "Dropout", None, calls=0, self_flops=None),
        row(
            "classifier",
            "Linear",
            320,
            input_shapes=((2, 8),),
            output_shapes=((2, 10),),
            parameters=90,
            own_parameters=90,
        ),
    )
    fields: dict[str, object] = {
        "workload": layered().workload,
        "how": "meta",
        "torch": "2.8.0",
        "layerbench": "0.1.0",
        "model_type": "TinyNet",
        "parameters": 12_314,
        "trainable": 12_314,
        "parameter_bytes": 49_256,
        "buffers": 0,
        "buffer_bytes": 0,
        "flops": 5_000_320,
        "rows": rows,
    }
    return Structure.model_validate({**fields, **changes})


def ceilings() -> Ceilings:
    """Two roofs that meet at 50 FLOPs a byte."""
    return Ceilings(
        flops_per_s=1e9, bytes_per_s=2e7, dtype="float32", threads=1, how="made up by hand"
    )


def counted() -> Profile:
    """The profile that goes with it, with the structure's FLOPs and parameters and the ceilings."""
    record, work = layered(), {row.path: row for row in structure().rows}
    fields = ("own_parameters", "flops", "self_flops")
    rows = [
        row.model_copy(update={name: getattr(work[row.path], name) for name in fields})
        if row.path in work
        else row
        for row in record.layers
    ]
    return record.model_copy(update={"layers": tuple(rows), "ceilings": ceilings()})


def graph(path: str, nodes: list[tuple[str, str]], edges: list[tuple[int, int]]) -> Graph:
    """Of one module, all tensors of one shape."""
    shaped = [(source, target, FEATURES) for source, target in edges]
    return Graph.model_validate({"paths": [path], "nodes": nodes, "edges": shaped})


INPUT, OUTPUT = ("input", ""), ("output", "")


def graphed() -> Structure:
    """The structure with graphs: a residual block, what is around it, and the model."""
    convs = [("module", "conv"), ("module", "conv")]
    return structure(
        graphs=(
            graph(
                "",
                [
                    INPUT,
                    ("module", "features"),
                    ("function", "mean"),
                    ("module", "classifier"),
                    OUTPUT,
                ],
                [(0, 1), (1, 2), (2, 3), (3, 4)],
            ),
            graph(
                "features",
                [INPUT, ("module", "0"), ("module", "1"), ("module", "2"), OUTPUT],
                [(0, 1), (1, 2), (2, 3), (3, 4)],
            ),
            graph("features.1", [INPUT, *convs, OUTPUT], [(0, 1), (1, 2), (2, 3)]),
            graph(
                "features.2",
                [INPUT, ("module", "conv"), ("function", "add"), OUTPUT],
                [(0, 1), (0, 2), (1, 2), (2, 3)],
            ),
        )
    )


def long_graph(calls: int = 300) -> Structure:
    """A module that calls one layer so often, and then a function and the layer in turn."""
    nodes = [INPUT, *[("module", "0")] * calls, *[("function", "relu"), ("module", "0")] * calls]
    nodes.append(OUTPUT)
    chain = [(at, at + 1) for at in range(len(nodes) - 1)]
    return structure(graphs=(graph("features", nodes, [*chain, (0, calls)]),))
