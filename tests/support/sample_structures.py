"""A structure and ceilings that go with `tests.support.sample_profiles.layered`, made by hand."""

from __future__ import annotations

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
