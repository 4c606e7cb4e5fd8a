"""The tables of predictions of what was held out: by what is asked, and the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.latency_fit.held_out import Prediction
from benchmarks.latency_fit.questions import held
from layerbench.profilers.latency.checked import LARGE

Wanted = Callable[[Prediction], bool]


def _held_out_card(card: str) -> Wanted:
    return lambda one: (
        one.held_out == "card" and one.part == card and one.row.source == "timm"
        and one.row.mode == "infer"
    )  # fmt: skip


LINES: Mapping[str, tuple[float, Wanted]] = {
    f"families unseen, cards seen, batch >= {LARGE}": (
        0.06,
        lambda one: one.held_out == "family" and one.row.mode == "infer" and one.row.batch >= LARGE,
    ),
    **{
        f"card unseen: {card}": (0.12, _held_out_card(card))
        for card in ("rtx3090", "rtx4090", "rtx5090")
    },
    "batch 1 to 256 on V100 and T4, card unseen": (
        0.15,
        lambda one: (
            one.held_out == "card" and one.row.source == "nvidia" and one.row.mode == "infer"
        ),
    ),
    "training step, RTX 3090, families unseen": (
        0.10,
        lambda one: one.held_out == "family" and one.row.mode == "train",
    ),
}
"""What is asked: the aim for the median error, and which rows."""


def print_tables(every: Sequence[Prediction], worst: int = 20) -> None:
    """Print how far off the predictions are by what was asked, and the worst of them.

    Args:
        every: predictions of what each fit had not seen.
        worst: how many of the worst.
    """
    from tabulate import tabulate

    inside = dict(zip(map(id, every), held(every), strict=True))
    rows = [_line(name, every, inside) for name in LINES]
    header = ["held out", "times", "median", "aim", "mean", "within 10 %", "interval holds"]
    print(tabulate(rows, header, tablefmt="github"))
    print()
    print(f"The {worst} that are furthest off, a model once:")
    print()
    print(tabulate(_worst(every, worst), _WORST, tablefmt="github"))


def _line(name: str, every: Sequence[Prediction], inside: Mapping[int, bool]) -> list[str]:
    aim, wanted = LINES[name]
    chosen = [one for one in every if wanted(one)]
    off = np.array([one.off for one in chosen])
    median = float(np.median(off))
    return [
        name,
        f"{len(chosen)}",
        f"{median:.1%}",
        f"{aim:.0%}: {'yes' if median <= aim else '**no**'}",
        f"{off.mean():.1%}",
        f"{np.mean(off <= 0.1):.0%}",
        f"{np.mean([inside[id(one)] for one in chosen]):.0%}",
    ]


_WORST = ["held out", "model", "card", "layout", "mode", "batch", "published", "predicted"]


def _worst(every: Sequence[Prediction], count: int) -> list[list[str]]:
    """The largest errors, each model once."""
    seen: set[str] = set()
    rows = []
    for one in sorted(every, key=lambda one: -abs(one.error)):
        if one.row.model in seen:
            continue
        seen.add(one.row.model)
        rows.append(
            [
                one.held_out,
                one.row.model,
                one.row.card,
                "channels last" if one.row.channels_last else "contiguous",
                one.row.mode,
                str(one.row.batch),
                f"{one.row.seconds * 1e3:.0f} ms",
                f"{np.exp(one.error) - 1:+.0%}",
            ]
        )
        if len(rows) == count:
            break
    return rows
