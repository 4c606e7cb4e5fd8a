"""Forwards that change their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tests.faulty import Case
from tests.faulty.keeps_state import Base, case

CASES: list[Case] = []


@dataclass
class _Batch:
    x: torch.Tensor | None


@case(
    "a dictionary that is emptied",
    lambda: {"x": torch.rand(2, 4), "more": [torch.rand(2, 4)]},
    among=CASES,
)
class _Pops(Base):
    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.fc(batch.pop("x") + batch["more"].pop())


@case("an input that is overwritten", among=CASES)
class _Overwrites(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert float(x.sum()) < 8 if not x.is_meta else True
        x.mul_(100)
        return self.fc(x)


@case("a dataclass whose tensor is taken out", lambda: _Batch(torch.rand(2, 4)), among=CASES)
class _Takes(Base):
    def forward(self, batch: _Batch) -> torch.Tensor:
        taken, batch.x = batch.x, None
        return self.fc(taken)
