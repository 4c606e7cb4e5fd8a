from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerbench import units
from layerbench.errors import UsageError

TIMES = st.floats(min_value=1e-9, max_value=1e3)


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (0.5600212, 0.0003, "560.0 ms"),
        (0.5600212, 0.00003, "560.02 ms"),
        (1.234e-5, None, "12.34 µs"),
        (0.56, 0.043, "560 ms"),
        (0.0056, 0.001, "5.6 ms"),  # two digits at least
        (0.5600212345, 1e-12, "560.021 ms"),  # six at most
        (0.5, 0.0, "500.0 ms"),  # one sample: nothing says how many digits mean something
        (9.9996e-4, None, "1.000 ms"),  # the unit is chosen after rounding
        (0.9999, 0.004, "1.000 s"),
        (4.5e-8, None, "45.00 ns"),
        (3661.0, None, "3661 s"),
        (-0.0123, None, "-12.30 ms"),
        (0.0, None, "0 s"),
    ],
)
def test_seconds(value, half_width, text):
    assert units.seconds(value, half_width) == text


def test_seconds_in_a_given_unit():
    assert units.seconds(0.0005, 0.00001, unit="s") == "0.00050 s"
    with pytest.raises(ValueError, match="no unit 'min'"):
        units.seconds(1.0, unit="min")


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [(1.234e-4, None, "0.1234"), (0.56, 0.003, "560"), (1e-6, 2e-7, "0.0010"), (0, None, "0.000")],
)
def test_milliseconds(value, half_width, text):
    assert units.milliseconds(value, half_width) == text


@given(TIMES, st.floats(min_value=1e-4, max_value=0.5))
def test_the_text_is_within_the_interval(value, relative):
    """Rounding never moves a figure by more than its half-width."""
    text = units.milliseconds(value, value * relative)
    assert abs(float(text) / 1e3 - value) <= value * relative * (1 + 1e-6)


@given(TIMES, st.floats(min_value=1e-3, max_value=0.1))
def test_the_last_digit_is_the_first_of_the_half_width(value, relative):
    half_width_ms = value * relative * 1e3
    _, _, decimals = units.milliseconds(value, value * relative).partition(".")
    magnitude = math.floor(math.log10(half_width_ms) + 1e-9)
    if magnitude <= 0:
        assert len(decimals) in (-magnitude, -magnitude + 1)  # + 1: two digits at least
    else:
        assert decimals == ""


@given(TIMES)
def test_the_unit_leaves_one_to_three_digits_before_the_point(value):
    number, unit = units.seconds(value).split()
    assert 1 <= float(number) < 1000 or unit == "s"
    assert len(number.replace(".", "")) == 4


@given(TIMES)
def test_seconds_reads_back(value):
    number, unit = units.seconds(value).split()
    scale = {"s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[unit]
    assert float(number) * scale == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1.5 * 2**30, "1.50 GiB"),
        (2**20 - 1, "1.00 MiB"),
        (80 * 2**30, "80.0 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_bytes(value, text):
    assert units.bytes_(value) == text


@pytest.mark.parametrize(
    ("value", "full", "short"),
    [
        (3_504_872, "3,504,872", "3.50 M"),
        (999, "999", "999"),
        (999_999, "999,999", "1.00 M"),
        (99_960, "99,960", "100 k"),
        (0, "0", "0"),
    ],
)
def test_count(value, full, short):
    assert units.count(value) == full
    assert units.count(value, short=True) == short


def test_percent_ratio_rate_and_shape():
    assert units.percent(0.141) == "14 %"
    assert units.percent(0.141, digits=2) == "14.10 %"
    assert units.percent(-0.0001) == "0 %"  # no minus before nothing
    assert units.percent(math.inf) == "inf %"
    assert units.ratio(1.00349) == "1.003"
    assert units.per_second(1.7857) == "1.79"
    assert units.per_second(1234.5) == "1234"
    assert units.shape((1, 24, 256, 512)) == "[1, 24, 256, 512]"
    assert units.shape(()) == "[]"


def test_a_percentage_beyond_a_limit_shows_that_it_is():
    assert units.percent(0.14, beyond=0.1) == "14 %"
    assert units.percent(0.1003, beyond=0.1) == "10.03 %"


@pytest.mark.parametrize("text", ["1%", "1 %", " 1.0% ", "0.01", ".01"])
def test_parse_percent(text):
    assert units.parse_percent(text) == pytest.approx(0.01)
    assert units.parse_percent(text.replace("1", "0")) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25557032", 25557032),
        ("25,557,032", 25557032),
        ("25_557_032", 25557032),
        (" 25.6 M", 25_600_000),
        ("8.2 GFLOPs", 8_200_000_000),
        ("8.2 gflop", 8_200_000_000),
        ("4k", 4000),
        ("0", 0),
        ("1.5 T", 1_500_000_000_000),
    ],
)
def test_parse_count(text, value):
    assert units.parse_count(text, unit="FLOPs") == value


@pytest.mark.parametrize("text", ["", "many", "-1", "4 GB", "1,00", "25 %", "1e6"])
def test_parse_count_refuses(text):
    with pytest.raises(UsageError, match=r"write 25557032, 25\.6 M or 8\.2 GFLOPs"):
        units.parse_count(text, unit="FLOPs")
    with pytest.raises(UsageError, match=r"8\.2 G$"):
        units.parse_count("8.2 GFLOPs")


@pytest.mark.parametrize("text", ["", "%", "1", "100%", "-1%", "1e-2", "nan", "one", "1%%", "٣%"])
def test_parse_percent_refuses(text):
    with pytest.raises(UsageError, match=r"such as 1% or 0\.01") as caught:
        units.parse_percent(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (1.8196e-3, 0.0412e-3, "1.82(4)"),
        (1.8e-3, 0.12e-3, "1.8(1)"),
        (2468e-3, 60.5e-3, "2468(60)"),
        (9.89e-3, 0.0099e-3, "9.890(10)"),
        (1.234567e-3, 0.0, "1.235"),
        (1.2345678e-3, 1e-12, "1.23457(1)"),
    ],
)
def test_uncertain_digits(value: float, half_width: float, text: str) -> None:
    assert units.uncertain(value, half_width) == text
