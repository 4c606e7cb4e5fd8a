"""How far figures of one process are from those of another on the same machine. Loads no torch.

`benchmarks/service.py intervals` measures it; of a GPU's figures none has been measured.
"""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["time", "ram", "cpu"]

# Standard deviations of the logarithm, from process to process.
SPREADS: dict[Kind, float] = {"time": 0.10, "ram": 0.02, "cpu": 0.10}
# The normal distribution's 97.5th percentile.
NORMAL = 1.96


def between(kind: Kind) -> float:
    """Half of a 95 % interval, of the logarithm, for what another process finds.

    The process that was measured is as far from the usual as the other may be.
    """
    return NORMAL * math.sqrt(2) * SPREADS[kind]
