"""Tables as wide as there is room: what goes below, what is left out, what is cut."""

from __future__ import annotations

from layerbench.reporters import fitting
from layerbench.reporters.documents.layout import Table


def table(header: str, *rows: str, align: str, **more: object) -> Table:
    cells = [[cell.strip() for cell in row.split("|")] for row in (header, *rows)]
    return Table(cells[0], cells[1:], align, **more)  # type: ignore[arg-type]


def lines(part: Table, width: int) -> list[str]:
    made = fitting.in_report(part, width)
    assert max(map(len, made)) <= width
    return made


def test_a_table_that_fits_is_as_it_was() -> None:
    assert lines(table("a|b", "x|1.5", align="l."), 10) == ["a    b", "-  ---", "x  1.5"]


def test_remarks_go_on_below_their_row_before_a_column_is_left_out() -> None:
    remark = "freeing memory and more than that"
    part = table("layer|ms|", f"conv|1|{remark}", "fc|2|", align="lrl", omitted_first=(1,))
    assert lines(part, 40) == [
        "layer  ms",
        "-----  --",
        "conv    1 freeing memory and more than",
        "          that",
        "fc      2",
    ]
    # Where there is no room beside the figures, below them.
    assert lines(part, 30)[2:5] == ["conv    1", "    freeing memory and more", "    than that"]


def test_a_bar_stays_beside_its_figures_and_a_column_is_left_out() -> None:
    part = table("layer|shape|ms|", "conv|[1, 2]|1|█████████", align="llrl", omitted_first=(1,))
    assert lines(part, 27)[2] == "conv   [1, 2]   1 █████████"
    assert lines(part, 25) == [
        "layer  ms",
        "-----  --",
        "conv    1 █████████",
        "Not shown, for want of",
        "room: shape.",
    ]


def test_a_table_that_says_nothing_of_its_columns_is_continued_below() -> None:
    part = table("model|one|two||three", "resnet|1.25|2.50|noisy|3.75", align="l..l.")
    assert lines(part, 20) == [
        "model    one",
        "------  ----",
        "resnet  1.25",
        "",
        "model    two",
        "------  ----",
        "resnet  2.50 noisy",
        "",
        "model   three",
        "------  -----",
        "resnet   3.75",
    ]


def test_long_names_are_cut_and_figures_are_not() -> None:
    name, interval = "stage.block." * 12 + "conv", "1 h (95 %: 50 min to 70 min)"
    part = table("path|type|time", f"{name}|{'Layer' * 20}|{interval}", align="cll")
    text = "\n".join(lines(part, 118))
    assert ".conv " in text
    assert "LayerLayer" in text
    assert interval in text


def test_an_indentation_is_no_longer_than_half_of_what_there_is() -> None:
    assert fitting.middle(" " * 90 + "Conv2d (conv1)", 20) == " " * 10 + "Conv2…nv1)"[:10]
    assert fitting.middle("a" * 30 + "b" * 30, 9) == "aaaa…bbbb"
