"""What the time of an operator on a card depends on: its shortest times, and features.

The shortest times are those of a roofline (Williams, Waterman and Patterson, 2009): products at the
card's data sheet FLOP/s, tensors at its bandwidth and then through its cache. Features say how far
from them a kernel stays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from layerbench.profilers.latency.kinds import KINDS, Kind
from layerbench.profilers.latency.table import FORMATS, Columns
from layerbench.records.card import Card
from layerbench.records.workload import Precision

Floats = NDArray[np.float64]

TILE = 128
"""Rows and columns of a product that one multiprocessor computes at a time, as libraries do."""

PATH_BYTES_PER_CLOCK = 32
"""Between the cache that all share and one multiprocessor.

Cards with many multiprocessors to their bandwidth come nearer to it than others. Measured ones move
18 to 47 bytes; source: Jia, Maggioni, Staiger and Scarpazza, "Dissecting the NVIDIA Volta GPU
Architecture via Microbenchmarking", 2018, and its like for later cards.
"""

PLANE_S = 300e-9
"""PyTorch interpolates planes that lie one after the other in one thread for each place, plane by
plane (``aten/src/ATen/native/cuda/UpSampleBilinear2d.cu``): so long takes the memory to answer."""

_INTERPOLATION = KINDS.index("interpolation")


class Features(NamedTuple):
    """Of each row of a table.

    Attributes:
        inputs: float32, one row for each operator; what a network reads.
        compute_s, memory_s: seconds at the card's full FLOP/s, and at its full bandwidths.
        kinds: index into `KINDS`.
    """

    inputs: NDArray[np.float32]
    compute_s: Floats
    memory_s: Floats
    kinds: NDArray[np.int64]


def features_of(
    rows: NDArray[np.int64],
    batch: int,
    card: Card,
    *,
    precision: Precision | None,
    channels_last: bool,
) -> Features:
    """The features of operators with a number of images on a card.

    Args:
        rows: of `profilers.latency.table.Table`.
        batch: images.
        card: that they run on.
        precision: decides whether float32 products are computed in TensorFloat32.
        channels_last: whether the model's tensors lie so.
    """
    columns = Columns(rows, batch)
    flops, read, written = (columns.amount(name) for name in ("flops", "read", "written"))
    m, n, k, groups = (columns.amount(name) for name in ("m", "n", "k", "groups"))
    kinds, moved = columns.fact("kind"), read + written
    compute_s = flops / _flops_per_second(columns, card, precision)
    inner = PATH_BYTES_PER_CLOCK * card.multiprocessors * card.clock_hz
    memory_s = moved * (1 / card.bandwidth + 1 / inner)
    by_plane = (kinds == _INTERPOLATION) & (columns.fact("strided") + columns.fact("backward") == 0)
    rounds = np.ceil(n / (card.multiprocessors * card.limits.threads))
    memory_s = np.where(by_plane, np.maximum(memory_s, m * PLANE_S * rounds), memory_s)
    waves = np.ceil(m / TILE) * np.ceil(n / TILE) * groups / card.multiprocessors
    narrow = columns.fact("format") > 0
    parts = [
        _log(m) / 10 - 1,
        _log(n) / 5 - 1,
        _log(k) / 5 - 1,
        _log(groups) / 5,
        _log(columns.fact("window")) / 3,
        np.minimum(columns.fact("stride"), 4) - 1,
        narrow,
        *(side % step == 0 for side in (n, k) for step in (8, 64)),
        np.log2(np.clip(moved / card.l2_bytes, 1e-4, 1e5)) / 8,
        np.log2(np.clip(flops / np.maximum(moved, 1), 1e-3, 1e5)) / 5,
        np.log2(np.clip(waves, 1e-2, 1e5)) / 6,
        np.where(waves > 0, waves / np.maximum(np.ceil(waves), 1), 1),
        np.clip(read / np.maximum(written, 1), 0, 8) / 4,
        np.full(len(rows), channels_last),
        columns.fact("strided"),
        columns.fact("backward"),
        columns.fact("changed"),
    ]
    inputs = np.stack([np.asarray(part, dtype=np.float32) for part in parts], axis=1)
    ones = np.eye(len(KINDS), dtype=np.float32)[kinds]
    return Features(np.concatenate([inputs, ones], axis=1), compute_s, memory_s, kinds)


def _log(values: NDArray[np.float64] | NDArray[np.int64]) -> Floats:
    return np.log2(np.maximum(values.astype(np.float64), 1))


_CONVOLVING: tuple[Kind, ...] = ("convolution", "grouped convolution", "depthwise convolution")


def _flops_per_second(columns: Columns, card: Card, precision: Precision | None) -> Floats:
    """What the card's data sheet says for the format that each operator computes in.

    PyTorch lets cuDNN compute float32 convolutions in TensorFloat32 where the card can, and
    products of matrices only where it is asked for (``torch.backends``).
    """
    plain = card.flops["fp32"]
    speeds = {
        "float16": card.flops.get("fp16", plain),
        "bfloat16": card.flops.get("bf16", plain),
        "float64": card.flops.get("fp64", plain / 64),
    }
    by_code = np.array([speeds.get(name, plain) for name in FORMATS])
    result: Floats = by_code[columns.fact("format")]
    fast = card.flops.get("tf32")
    if fast is not None:
        single = columns.fact("format") == 0
        convolving = np.isin(columns.fact("kind"), [KINDS.index(kind) for kind in _CONVOLVING])
        result = np.where(single & (convolving | (precision == "tf32")), fast, result)
    return result
