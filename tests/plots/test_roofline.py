"""The pictures of the roofline, of memory, and of metrics over time."""

from __future__ import annotations

import pytest

from layerbench import plots
from layerbench.errors import UsageError
from layerbench.records.conditions import DeviceConditions, DeviceLook
from layerbench.records.contention import Waits
from tests.support.pictures import estimate, report, roofed, texts
from tests.support.sample_profiles import layered, whole
from tests.support.sample_structures import structure


def test_a_roofline_has_points_roofs_and_names() -> None:
    figure = plots.roofline(roofed(), structure())
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    dots = [tuple(at) for scatter in axes.collections for at in scatter.get_offsets()]
    assert len(dots) == 4
    time_s = next(row for row in layered().layers if row.path == "features.2.conv").self_.median
    rate = 2_400_000 / time_s / 1e9
    assert any(at == pytest.approx((2_400_000 / 56_768, rate)) for at in dots)
    memory, arithmetic = axes.get_lines()
    assert memory.get_xdata()[1] == arithmetic.get_xdata()[0] == 50
    assert list(arithmetic.get_ydata()) == pytest.approx([1, 1])
    left = memory.get_xdata()[0]
    assert memory.get_ydata()[0] == pytest.approx(left * 0.02)
    written = texts(figure)
    assert "memory: 20.0 MB/s" in written
    assert "arithmetic: 1.00 GFLOP/s in float32" in written
    named = [text for text in written if text.startswith(("features", "classifier"))]
    assert {name.partition(",")[0] for name in named} == {
        *("features.0", "features.1.conv", "features.2.conv", "classifier"),
    }


def test_area_is_time_and_types_have_markers_of_their_own() -> None:
    axes = plots.roofline(roofed(), structure()).axes[0]
    conv, linear = axes.collections
    areas = list(conv.get_sizes())
    assert areas == sorted(areas, reverse=True)
    assert min(areas) > linear.get_sizes()[0]
    shapes = {len(found.get_paths()[0].vertices) for found in (conv, linear)}
    assert len(shapes) == 2


def test_without_ceilings_it_says_how_to_get_them() -> None:
    figure = plots.roofline(layered(), structure())
    assert "This record has no ceilings: measure with layerbench timer --ceilings" in texts(figure)
    assert figure.axes[0].get_lines() == []


def test_a_profile_with_flops_needs_no_structure() -> None:
    computed = {row.path: row for row in structure().rows}
    names = ("flops", "self_flops", "own_parameters", "input_shapes", "output_shapes")
    rows = tuple(
        row.model_copy(update={name: getattr(computed[row.path], name) for name in names})
        if row.path in computed
        else row
        for row in layered().layers
    )
    itself = roofed().model_copy(update={"layers": rows})
    assert plots.encoded(plots.roofline(itself), "svg") == plots.encoded(
        plots.roofline(roofed(), structure()), "svg"
    )
    with pytest.raises(UsageError, match="holds no FLOPs of layers: add the structure"):
        plots.roofline(roofed())


@pytest.mark.parametrize(
    ("rounds", "says"),
    [
        (0.05, []),
        (0.2, ["The ceilings were measured on"]),
        (0.8, ["The machine was too busy to be measured on", "The ceilings were measured on"]),
    ],
)
def test_ceilings_of_a_busy_machine_are_said_to_be(rounds: float, says: list[str]) -> None:
    found = roofed()
    machine = found.environment.machine.model_copy(update={"waits": Waits(rounds=rounds, time=0)})
    environment = found.environment.model_copy(update={"machine": machine})
    written = texts(
        plots.roofline(found.model_copy(update={"environment": environment}), structure())
    )
    said = [text for text in written if text.startswith(("The machine", "The ceilings"))]
    assert [any(text.startswith(start) for text in said) for start in says] == [True] * len(says)
    assert len(said) == len(says)


def test_ceilings_of_an_accelerator_do_not_suffer_from_a_busy_host() -> None:
    found = roofed()
    machine = found.environment.machine.model_copy(update={"waits": Waits(rounds=0.8, time=0)})
    gpu = found.environment.device.model_copy(update={"kind": "cuda"})
    environment = found.environment.model_copy(update={"machine": machine, "device": gpu})
    figure = plots.roofline(found.model_copy(update={"environment": environment}), structure())
    assert not any(text.startswith("The ceilings were measured on") for text in texts(figure))


def test_a_low_clock_of_the_ceilings_is_said() -> None:
    found = roofed()
    assert found.ceilings is not None
    slow = DeviceConditions.of([DeviceLook(1400e6, 1980e6)])
    ceilings = found.ceilings.model_copy(update={"conditions": slow})
    figure = plots.roofline(found.model_copy(update={"ceilings": ceilings}), structure())
    said = " ".join(" ".join(texts(figure)).split())
    assert "While the ceilings were measured: The accelerator's clock was 1400 MHz" in said


def test_logarithmic_axes_have_plain_numbers() -> None:
    axes = plots.roofline(roofed(), structure()).axes[0]
    written = [
        label.get_text() for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()
    ]
    assert {"10", "100", "0.1", "1"} <= set(written)
    assert not [text for text in written if "10^" in text or "e-" in text]


def test_many_types_share_the_last_marker() -> None:
    rows = [row for row in layered().layers if row.path in ("", "classifier")]
    leaf = next(row for row in structure().rows if row.path == "classifier")
    layers, dissected = [rows[0]], []
    for number in range(12):
        name = f"layer{number}"
        layers.append(rows[1].model_copy(update={"path": name, "type": f"Type{number}"}))
        dissected.append(leaf.model_copy(update={"path": name, "type": f"Type{number}"}))
    root = structure().rows[0]
    figure = plots.roofline(
        layered().model_copy(update={"layers": tuple(layers)}),
        structure(rows=(root, *dissected)),
    )
    assert any(text.startswith("other types: 50") for text in texts(figure))
    assert len(figure.axes[0].collections) == 7


def test_a_roofline_without_layers_says_where_they_are() -> None:
    with pytest.raises(UsageError, match="layers/"):
        plots.roofline(whole(), structure())


def test_the_timeline_is_a_step_curve_in_mebibytes() -> None:
    figure = plots.memory(report())
    (axes,) = figure.axes
    steps = next(patch for patch in axes.patches if hasattr(patch, "get_data"))
    assert list(steps.get_data().values) == [2, 5, 6, 4]
    assert axes.get_ylabel() == "alive, MiB"
    written = texts(figure)
    assert {"load", "forward", "there all the time: 2.00 MiB"} <= set(written)
    assert "peak: 6.00 MiB in features.1, aten.add" in written
    peak = next(line for line in axes.get_lines() if line.get_marker() == "v")
    assert (peak.get_xdata()[0], peak.get_ydata()[0]) == (2.5, 6)


def test_an_estimates_peak_has_its_interval() -> None:
    said = "peak: 6.00 MiB (5.00 MiB to 9.00 MiB) outside the model, aten.nll_loss_forward"
    assert said in texts(plots.memory(estimate()))


def test_a_record_without_a_timeline_says_which_has_one() -> None:
    with pytest.raises(UsageError, match=r"as layerbench mem writes"):
        plots.memory(report().model_copy(update={"timeline": ()}))


@pytest.mark.parametrize(
    ("record", "metric", "says"),
    [
        (layered, "flops", "a profile record has time and self, not flops: take a structure"),
        (
            structure,
            "time",
            "a structure record has flops and parameters, not time: take a profile",
        ),
        (report, "self", "a memory record has memory, not self"),
        (whole, None, "no time of layers: take a profile of layers"),
    ],
)
def test_a_metric_that_a_record_lacks(record, metric, says) -> None:
    with pytest.raises(UsageError, match=says):
        plots.icicle(record(), metric)


def test_a_structure_without_work_or_parameters() -> None:
    rows = tuple(
        row.model_copy(update={"flops": 0, "self_flops": 0, "parameters": 0, "own_parameters": 0})
        for row in structure().rows
    )
    empty = structure(rows=rows, flops=0, parameters=0)
    for metric in ("flops", "parameters"):
        with pytest.raises(UsageError, match=f"no layer has any {metric}"):
            plots.icicle(empty, metric)
