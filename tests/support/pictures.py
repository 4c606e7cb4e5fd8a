"""What tests of pictures share."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure

from layerbench import plots
from layerbench.records.memory import MemoryEstimate, MemoryReport
from layerbench.records.timing import Profile
from tests.support.sample_profiles import layered
from tests.support.sample_structures import ceilings

# What a PNG file begins with.
UNRENDERED = b"\x89PNG\r\n\x1a\n"


def draw_unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw pictures, but render no pixel of them, for tests that look at none."""

    def savefig(figure: Figure, file: io.BytesIO, **options: object) -> None:
        file.write(UNRENDERED)

    monkeypatch.setattr(Figure, "savefig", savefig)


def roofed() -> Profile:
    return layered().model_copy(update={"ceilings": ceilings()})


def report() -> MemoryReport:
    """Loaded, then three layers; the second is the peak."""
    return MemoryReport.model_validate(
        {
            "workload": layered().workload,
            "training": False,
            "optimizer": None,
            "environment": layered().environment,
            "model_type": "TinyNet",
            "tensors": (),
            **{
                name: {"tensors": 1, "elements": 1, "bytes": 4, "block_bytes": 512}
                for name in ("parameters", "buffers", "inputs", "total")
            },
            "resident_bytes": 2 * 2**20,
            "outside_bytes": 0,
            "peak": {
                "bytes": 6 * 2**20,
                "owner": "features.1",
                "phase": "forward",
                "operator": "aten.add",
                "by_category": {"parameters": 2 * 2**20, "activations": 4 * 2**20},
            },
            "rows": [
                memory_row("", "TinyNet", 0),
                memory_row("features", "Sequential", 0),
                memory_row("features.0", "Conv2d", 3 * 2**20),
                memory_row("features.1", "Conv2d", 2**20),
                memory_row("head", "Linear", 0),
            ],
            "timeline": [
                point(None, "load", 2),
                point(2, "forward", 5),
                point(3, "forward", 6),
                point(4, "forward", 4),
            ],
        }
    )


def memory_row(path: str, type: str, at_peak: int) -> dict[str, object]:
    depth = path.count(".") + 1 if path else 0
    own = {"self_allocated": at_peak, "self_kept": 0, "self_at_peak": at_peak}
    return {"path": path, "type": type, "depth": depth, "calls": 1, "parameters": 1, **own}


def point(owner: int | None, phase: str, mebibytes: int) -> dict[str, object]:
    size = mebibytes * 2**20
    return {"owner": owner, "phase": phase, "live_max": size, "live_end": size}


def estimate() -> MemoryEstimate:
    made = report()
    bounds = {"low": 5 * 2**20, "high": 9 * 2**20}
    return MemoryEstimate.model_validate(
        {
            "workload": made.workload,
            "device": "cuda",
            "how": "fake",
            "training": False,
            "optimizer": None,
            "torch": "2.8.0",
            "layerbench": "0.1.0",
            "model_type": "TinyNet",
            "peak_bytes": 6 * 2**20,
            "peak_interval": bounds,
            "reserved_bytes": 7 * 2**20,
            "reserved_interval": bounds,
            "total_bytes": 8 * 2**20,
            "total_interval": bounds,
            "peak_owner": None,
            "peak_phase": "loss",
            "peak_operator": "aten.nll_loss_forward",
            "by_category": {},
            "rows": made.rows,
            "timeline": made.timeline,
            "workspaces": (),
        }
    )


def texts(figure: Figure) -> list[str]:
    """All that is written in a picture, read out of its SVG."""
    return written_in(plots.encoded(figure, "svg"))


def written_in(svg: bytes) -> list[str]:
    tree = ET.fromstring(svg)
    return [
        "".join(found.itertext()).strip() for found in tree.iter() if found.tag.endswith("text")
    ]
