"""A bundle made by hand for tests: what three records know of one tiny model."""

from __future__ import annotations

from layerbench.records.bundle import Bundle
from layerbench.records.memory import MemoryReport
from tests.support.sample_structures import counted, structure

MIB = 2**20
ALLOCATED = {"features.0": 3, "features.1.conv": 2, "features.2.conv": 2, "classifier": 1}


def memory() -> MemoryReport:
    """Of the tiny model: some layers allocate as many MiB as said, the convolutions last."""
    record = counted()
    none = {"tensors": 0, "elements": 0, "bytes": 0, "block_bytes": 0}
    rows = [
        {
            **{"path": row.path, "type": row.type, "depth": row.depth, "calls": row.calls},
            "parameters": 0,
            "self_allocated": ALLOCATED.get(row.path, 0) * MIB,
            "self_at_peak": MIB if row.path == "features.2.conv" else 0,
        }
        for row in record.layers
        if row.kind == "module"
    ]
    peak = {"bytes": 4 * MIB, "owner": "features.2.conv", "phase": "forward"}
    return MemoryReport.model_validate(
        {
            **{"workload": record.workload, "environment": record.environment},
            **{"training": False, "optimizer": None, "model_type": "TinyNet", "tensors": ()},
            **dict.fromkeys(("parameters", "buffers", "inputs", "total"), none),
            **{"resident_bytes": 3 * MIB, "outside_bytes": 0, "rows": rows, "timeline": ()},
            "peak": {**peak, "operator": "aten.convolution", "by_category": {"activations": MIB}},
        }
    )


def whole() -> Bundle:
    """Time, structure and memory."""
    return Bundle(profile=counted(), structure=structure(), memory=memory())
