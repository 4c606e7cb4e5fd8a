"""The roofline of a bundle, where it holds times and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from layerbench.analysis.hotspots import hotspots
from layerbench.analysis.roofline import Point, points
from layerbench.errors import ComparisonError
from layerbench.records.bundle import Bundle
from layerbench.records.timing import Profile
from layerbench.reporters.html.schema import Roofline, RooflinePoint


def roofline(bundle: Bundle, numbers: Mapping[str, int]) -> Roofline | None:
    """FLOPs a second against FLOPs a byte, for each layer; ``None`` without times or FLOPs.

    Args:
        bundle: with a profile, which has FLOPs or is beside a structure of the same work.
        numbers: of the rows, by path.
    """
    profile, structure = bundle.profile, bundle.structure
    if profile is None or not profile.layers:
        return None
    try:
        layers = _counted(profile) if structure is None else points(profile, structure)
    except ComparisonError:
        return None
    if structure is None and not layers:
        return None
    ceilings = profile.ceilings
    bytes_are = "Bytes are the least: inputs, outputs and parameters once."
    return Roofline(
        flops_per_s=ceilings.flops_per_s if ceilings else None,
        bytes_per_s=ceilings.bytes_per_s if ceilings else None,
        how=f"{ceilings.how} {bytes_are}"
        if ceilings
        else f"{bytes_are} No ceilings were measured (timer --ceilings).",
        points=tuple(
            _point(point, numbers[point.path]) for point in layers if point.path in numbers
        ),
    )


def _counted(profile: Profile) -> tuple[Point, ...]:
    """The layers whose FLOPs the profile itself has."""
    places = {row.path: place for place, row in enumerate(profile.layers)}
    layers = [
        Point(
            spot.row.path,
            spot.row.type,
            spot.row.self_flops,
            spot.bytes_least,
            spot.median_s,
            spot.of_roof,
            spot.bound,
        )
        for spot in hotspots(profile)
        if spot.row.kind == "module"
        and spot.row.self_flops
        and spot.bytes_least
        and spot.median_s > 0
    ]
    return tuple(sorted(layers, key=lambda point: places[point.path]))


def _point(point: Point, row: int) -> RooflinePoint:
    return RooflinePoint(
        row=row,
        intensity=float(f"{point.intensity:.6g}"),
        rate=float(f"{point.rate:.6g}"),
        share=None if point.share_of_roof is None else float(f"{point.share_of_roof:.6g}"),
        bound=point.bound,
    )
