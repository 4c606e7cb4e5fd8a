"""Where a forward's time goes, by hand: the sample's self times, its FLOPs, its two roofs."""

from __future__ import annotations

import pytest

from layerbench.analysis.hotspots import BETWEEN, by_block, hotspots
from layerbench.analysis.portions import by_type, most
from layerbench.records.view import Sort
from tests.support.sample_profiles import deep, layered, whole
from tests.support.sample_structures import counted

SPOTS = {spot.row.path: spot for spot in hotspots(counted())}


def test_the_slowest_is_first_and_the_shares_add_up() -> None:
    spots = hotspots(layered())
    assert [spot.row.path for spot in spots[:3]] == [
        "features.2.conv",
        "features.1.conv",
        "features.0",
    ]
    assert spots[0].share == pytest.approx(0.39)
    assert sum(spot.share for spot in spots) == pytest.approx(1, abs=1e-9)
    medians = [spot.median_s for spot in spots]
    assert medians == sorted(medians, reverse=True)


def test_a_functions_time_is_not_its_modules_too() -> None:
    assert SPOTS["features.1.add()"].value == pytest.approx(0.15e-3)
    rest = SPOTS["features.1"]
    assert rest.value == pytest.approx(0.2e-3 - 0.15e-3)
    assert rest.time is None
    assert rest.between


def test_types_hold_all_their_layers_and_what_lies_between_is_apart() -> None:
    groups = {group.name: group for group in by_type(hotspots(layered()))}
    assert groups["Conv2d"].count == 3
    assert groups["Conv2d"].share == pytest.approx(0.2 + 0.28 + 0.39)
    # The model itself less its function, the container, and two blocks of which one adds.
    assert groups[BETWEEN].value == pytest.approx((0.5 - 0.4 + 0.01 + 0.05 + 0.09) * 1e-3)
    assert sum(group.share for group in groups.values()) == pytest.approx(1)
    assert by_type(hotspots(layered()))[0].name == "Conv2d"


def test_blocks_are_with_all_that_is_in_them() -> None:
    blocks = by_block(layered())
    assert [block.path for block in blocks[:2]] == ["features.2", "features.1"]
    assert blocks[0].share == pytest.approx(0.399)


def test_where_arithmetic_is_the_lower_roof() -> None:
    # 2 x 8 x 16 x 16 = 4096 elements in and out, 6000 weights, 4 bytes each: 56,768 bytes.
    spot = SPOTS["features.2.conv"]
    assert spot.bytes_least == (2 * 4096 + 6000) * 4 == 56_768
    assert spot.bound == "memory"  # 2.4 MFLOPs / 56,768 B = 42 FLOPs a byte, below the ridge of 50
    assert spot.rate == pytest.approx(56_768 / spot.median_s)
    assert spot.of_roof == pytest.approx(56_768 / spot.median_s / 2e7)


def test_calls_move_their_tensors_each_and_the_weights_once() -> None:
    assert SPOTS["features.1.conv"].bytes_least == (2 * 2 * 4096 + 6000) * 4


def test_a_function_of_a_module_without_flops_moves_memory() -> None:
    spot = SPOTS["features.1.add()"]
    assert (spot.bound, spot.bytes_least) == ("memory", 3 * 4096 * 4)


def test_flops_of_a_module_are_those_of_its_one_function_that_computes() -> None:
    def own_flops(names: list[str]) -> dict[str, int | None]:
        """Of the model's functions, which do 1000 FLOPs together."""
        record = counted()
        root = record.layers[0].model_copy(update={"self_flops": 1000})
        mean = next(row for row in record.layers if row.path == "mean()")
        functions = [mean.model_copy(update={"path": f"{name}()", "type": name}) for name in names]
        made = record.model_copy(update={"layers": (root, *functions)})
        return {s.row.type: s.flops for s in hotspots(made)}

    # Each FLOP stands once, in the function or in the module.
    assert own_flops(["scaled_dot_product_attention", "add"]) == {
        "scaled_dot_product_attention": 1000,
        "add": 0,
        "TinyNet": 0,
    }
    assert own_flops(["lstm", "zeros"]) == {"lstm": 1000, "zeros": 0, "TinyNet": 0}
    assert own_flops(["matmul", "bmm", "add"]) == {
        "matmul": None,
        "bmm": None,
        "add": None,
        "TinyNet": 1000,
    }


def test_without_ceilings_or_flops_nothing_is_bound() -> None:
    assert {spot.bound for spot in hotspots(layered())} == {None}
    uncounted = counted().model_copy(update={"layers": layered().layers})
    assert {spot.bound for spot in hotspots(uncounted)} == {None}


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("self", "features.2.conv"),
        ("time", ""),
        ("flops", "features.2.conv"),
        ("params", "features.2.conv"),
        ("memory", "features.1.conv"),
    ],
)
def test_orders(sort: Sort, first: str) -> None:
    assert most(hotspots(counted()), 1, sort)[0].row.path == first


def test_one_type_alone() -> None:
    assert {spot.row.type for spot in most(hotspots(layered()), 10, type="Linear")} == {"Linear"}


def test_a_record_without_layers_has_none() -> None:
    assert hotspots(whole()) == by_block(whole()) == []


def test_ten_thousand_rows() -> None:
    assert len(hotspots(deep())) > 10_000
