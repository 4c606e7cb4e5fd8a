"""What a report says of the energy of a forward."""

from __future__ import annotations

from layerbench import units
from layerbench.analysis.energy import by_layer
from layerbench.records.energy import Energy
from layerbench.records.timing import Profile
from layerbench.reporters import formatting
from layerbench.reporters.documents import cells, layout

# Of the time, what a layer takes at least to have a row.
_LEAST = 0.01


def headline(record: Profile, *, named: bool = True) -> str:
    """The joules of a forward and an image, and the power; or why they are not known.

    Empty where nobody asked.

    Args:
        record: with its energy.
        named: begin with what it is, as a sentence does.
    """
    energy = record.energy
    if energy is None:
        why = record.absent.get("energy")
        return f"Energy: not known, {why}." if why else ""
    half = _half(energy)
    middle = units.joules(energy.forward_j, half)
    unit = middle.rpartition(" ")[2]
    low, high = (
        units.joules(value, half, unit).removesuffix(f" {unit}")
        for value in (energy.low_j, energy.high_j)
    )
    batch = record.workload.batch
    each = units.joules(energy.forward_j / batch, half / batch) if batch > 1 else ""
    image = f", {each} an image" if each else ""
    said = (
        f"{middle} [{low}, {high}] a forward (mean, 95 % interval){image}, at "
        f"{units.watts(energy.power_w)}; idle {units.watts(energy.idle_w)}"
    )
    return f"Energy: {said}." if named else said


def _half(energy: Energy) -> float:
    return (energy.high_j - energy.low_j) / 2


def fields(energy: Energy) -> list[tuple[str, str]]:
    """What was measured and how, as label and text."""
    parts = ", ".join(f"{name} {units.joules(part)}" for name, part in energy.parts_j.items())
    limit = f", at most {units.watts(energy.limit_w)}" if energy.limit_w is not None else ""
    return [
        ("A forward", f"{parts}, in {units.seconds(energy.forward_s)}"),
        ("Power", f"{units.watts(energy.power_w)}; idle {units.watts(energy.idle_w)}{limit}"),
        (
            "Measured",
            f"{units.count(energy.forwards)} untouched forwards in "
            f"{formatting.plural(energy.windows, 'window')} of at least "
            f"{units.seconds(energy.window_s)}; counters move every {units.seconds(energy.step_s)}",
        ),
        ("Counters", energy.counters),
    ]


def section(record: Profile) -> layout.Section:
    """How the energy was measured, and what layers may have of it."""
    energy = record.energy
    if energy is None:
        return layout.Section("", [])
    layers = [layer for layer in by_layer(record) if layer.share >= _LEAST]
    half = _half(energy)
    rows = [
        [
            layer.row.path or "(model)",
            layer.row.type,
            units.percent(layer.share, digits=1),
            units.joules(layer.joules, half),
            f"{units.joules(layer.low, half)} to {units.joules(layer.high, half)}",
        ]
        for layer in sorted(layers, key=lambda layer: layer.joules, reverse=True)
    ]
    legend = (
        "≈ a layer's share of the time times the forward's energy: no counter tells layers apart. "
        "Between: no layer draws less than the idle power, and all of them draw what was measured."
    )
    table = layout.Table(["path", "type", "share", "≈ energy", "between"], rows, "clrrr")
    return layout.Section(
        "Energy",
        [layout.Fields(fields(energy)), table, layout.Text(legend if rows else "", indented=False)],
    )


def of_whole(record: Profile) -> cells.Cells:
    """The columns of the whole; none where nobody measured energy."""
    energy = record.energy
    if energy is None:
        return {}
    return {
        "energy_j": energy.forward_j,
        "energy_low_j": energy.low_j,
        "energy_high_j": energy.high_j,
        "energy_per_image_j": energy.forward_j / max(1, record.workload.batch),
        "power_w": energy.power_w,
        "idle_w": energy.idle_w,
    }


def of_rows(record: Profile) -> dict[str, cells.Cells]:
    """The columns of each layer, by path: of what it does itself."""
    return {
        layer.row.path: {
            "energy_j": layer.joules,
            "energy_low_j": layer.low,
            "energy_high_j": layer.high,
        }
        for layer in by_layer(record)
    }
