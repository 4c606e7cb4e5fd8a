"""The first screen of a report: what ran, what to think of it, the answer."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision

import layerbench
from layerbench import reporters
from layerbench.analysis.hotspots import hotspots
from layerbench.analysis.portions import by_type
from layerbench.records.environment import Machine
from layerbench.records.timing import Profile
from layerbench.records.view import View
from tests.support.sample_profiles import deep, in_processes, layered, on_gpu, summary, whole
from tests.support.sample_structures import counted, structure

MODELS = {
    "mobilenet_v2": 32,
    "resnet18": 32,
    "squeezenet1_1": 64,
    "shufflenet_v2_x0_5": 32,
    "mnasnet0_5": 32,
    "efficientnet_b0": 32,
    "regnet_y_400mf": 32,
    "googlenet": 64,
    "vit_b_32": 224,
    "convnext_tiny": 32,
}


def screen(record: layerbench.Record, **view: object) -> str:
    return reporters.render("screen", record, View.model_validate(view))


def check(text: str, width: int = 100) -> list[str]:
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    return lines


def read(text: str) -> dict[str, str]:
    """What a reader takes from it."""
    slowest = re.search(r"^Slowest: (.+) \((\w+)\), ([\d.]+ %) of the time", text, re.MULTILINE)
    group = re.search(r"^By type +(.+?) \((\d+)\) ([\d.]+ %)", text, re.MULTILINE)
    verdict = re.search(r" FPS: (\w+)$", text, re.MULTILINE)
    assert slowest
    assert group
    assert verdict
    return {
        "path": slowest[1],
        "type": slowest[2],
        "share": slowest[3],
        "most of": group[1],
        "count": group[2],
        "together": group[3],
        "verdict": verdict[1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_reader_finds_the_slowest_layer_and_type_in_24_lines(name: str) -> None:
    extra = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **extra).eval()
    side = MODELS[name]
    record = layerbench.profile(
        model, torch.rand(1, 3, side, side), warmup=0, iterations=2, ceilings=False
    )
    found = read("\n".join(check(screen(record))))
    spots = hotspots(record)
    slowest, group = spots[0], by_type(spots)[0]
    assert found == {
        "path": slowest.row.path or "the model itself",
        "type": slowest.row.type,
        "share": f"{100 * slowest.share:.1f} %",
        "most of": group.name,
        "count": str(group.count),
        "together": f"{100 * group.share:.1f} %",
        "verdict": record.whole.verdict,
    }


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("sample", [counted, layered, on_gpu, in_processes, whole, deep])
def test_it_fits(sample: type[Profile], width: int) -> None:
    check(screen(sample(), width=width), width)


def test_it_is_the_same_everywhere(golden) -> None:  # type: ignore[no-untyped-def]
    golden(screen(counted()), ".txt")


def test_what_weakens_the_figures_stands_before_them() -> None:
    missed = ("relative IQR 14 % > 10 %", "interval half-width 3 % > 2 %")
    record = counted().model_copy(
        update={"whole": summary(9.9, n=5, verdict="noisy", missed=missed)}
    )
    lines = check(screen(record))
    caution = lines.index(
        "noisy: relative IQR 14 % > 10 %; interval half-width 3 % > 2 % (and 2 more below)"
    )
    assert caution < next(i for i, line in enumerate(lines) if "a forward (median" in line)


def test_a_device_that_waits_for_the_host_is_launch_bound() -> None:
    text = screen(on_gpu())
    assert "launch-bound: the host takes as long to launch the work" in text
    assert "The device waits for the host" in text
    assert "launch-bound" not in screen(counted())


def test_a_path_that_has_no_room_keeps_its_end_and_the_title_has_it_whole() -> None:
    long = "stages." * 20 + "conv"
    record = counted()
    slowest = record.layers[7].model_copy(
        update={"path": long, "depth": 21, "inclusive": summary(50), "self_": summary(50)}
    )
    text = screen(record.model_copy(update={"layers": (*record.layers, slowest)}))
    row = next(line for line in text.splitlines() if line.startswith("…"))
    assert row.split()[0].endswith("es.conv")
    assert f"Slowest: {long} (Conv2d)" in text.replace("\n", "")


@pytest.mark.parametrize(
    ("view", "title"),
    [
        ({"sort": "flops"}, "Most FLOPs: features.2.conv (Conv2d)"),
        ({"sort": "params"}, "Most parameters: features.2.conv (Conv2d)"),
        ({"type": "Linear"}, "Slowest: classifier (Linear)"),
        (
            {"type": "conv2d"},
            "No layer is of type conv2d: did you mean Conv2d? There are Conv2d, Linear, mean",
        ),
        ({"type": "LSTM"}, "No layer is of type LSTM: there are Conv2d, Linear, mean"),
    ],
)
def test_other_orders(view: dict[str, object], title: str) -> None:
    assert title in screen(counted(), **view)


def test_a_roof_that_a_layer_passes_is_said_to_be_too_low() -> None:
    record = counted()
    assert record.ceilings
    low = {"flops_per_s": 1e6, "bytes_per_s": 1e9}
    ceilings = record.ceilings.model_copy(update=low)
    text = screen(record.model_copy(update={"ceilings": ceilings}))
    said = r"Bound by .*; the roof is too low, a layer reaches \d+ % of it"
    assert re.search(said, " ".join(text.split()))
    assert "too low" not in screen(record)


def test_names_of_any_length_take_no_more_room_than_a_screen_has() -> None:
    record = counted()
    long = {"path": "n" * 10_000, "type": "T" * 10_000, "block": True}
    layers = [row.model_copy(update=long) for row in record.layers[-1:]]
    lines = screen(
        record.model_copy(update={"layers": (*record.layers[:-1], *layers)})
    ).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


def test_more_layers_than_a_screen_has_if_somebody_wants_them() -> None:
    assert len(screen(deep(), top=40).splitlines()) > 45


def test_rows_of_one_type_alone_have_their_whole_path() -> None:
    for record in (counted(), structure()):
        text = reporters.render("txt", record, View(type="Conv2d"))
        lines = text.partition("\nLayers")[2].splitlines()
        assert any(line.startswith("Conv2d features.1.conv ") for line in lines)


def test_a_report_begins_with_it() -> None:
    for record in (counted(), whole()):
        assert reporters.render("txt", record).startswith(screen(record))


def test_figures_of_a_busy_machine_carry_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    record = on_gpu()
    assert "Advice" in reporters.render("screen", record, View())
    monkeypatch.setattr(Machine, "too_busy", property(lambda _: "The machine was too busy."))
    assert "Advice" not in reporters.render("screen", record, View())
