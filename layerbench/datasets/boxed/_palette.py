"""Colours and shapes of synthetic detection images."""

from __future__ import annotations

# What is kept in memory, encoded, for each half.
DISTINCT = 64


COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 70, 220),
    "yellow": (230, 210, 50),
}


SHAPES = ("rectangle", "ellipse")
