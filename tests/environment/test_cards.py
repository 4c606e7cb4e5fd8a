"""Known GPUs: figures that agree, names as people write them, files of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerbench.environment import cards
from layerbench.environment.cards.naming import meant
from layerbench.errors import UsageError
from layerbench.records.card import Card

NAMES = [card.name for card in cards.known()]
# Operations of dense half-precision products that a multiprocessor does in a clock, summed in
# float32: whole dies of data centres do more than those of games.
HALF_A_CLOCK = {"7.0": 1024, "7.5": 1024, "8.0": 2048, "9.0": 4096, "10.0": 8192}
OF_GA102_AND_LATER = (512, 1024)


@pytest.mark.parametrize("card", cards.known(), ids=NAMES)
def test_figures_of_a_card_agree_with_one_another(card: Card) -> None:
    """Single precision multiplies and adds on each core; a line moves a bit twice a clock."""
    cores = card.multiprocessors * card.limits.cores
    assert card.flops["fp32"] == pytest.approx(2 * cores * card.clock_hz, rel=0.01)
    assert card.bandwidth == pytest.approx(card.memory_clock_hz * 2 * card.bus_bits / 8, rel=0.01)
    a_clock = card.flops["fp16"] / (card.multiprocessors * card.clock_hz)
    expected = HALF_A_CLOCK.get(card.capability)
    if expected is not None:
        # The data sheets of H100 and B200 state them at a lower clock.
        assert a_clock == pytest.approx(expected, rel=0.08)
    else:
        assert min(abs(a_clock / one - 1) for one in OF_GA102_AND_LATER) < 0.02
    assert card.flops["fp16"] == card.flops.get("bf16", card.flops["fp16"])
    assert ("bf16" in card.flops) == (card.version >= (8, 0)) == ("tf32" in card.flops)
    assert card.sources


def test_every_card_that_must_be_known_is() -> None:
    wanted = (
        "t4 v100 a10 l4 l40s rtx3090 rtx4090 rtx5090 rtxpro6000 rtxpro6000maxq a100 h100 h200 b200"
    )
    assert set(wanted.split()) <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("T4", "t4"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("rtx-4090", "rtx4090"),
        ("RTX 5090", "rtx5090"),
        ("a100 80", "a100-80"),
        ("A100-80GB", "a100-80"),
        ("v100_16", "v100"),
        ("rtx pro 6000 max-q", "rtxpro6000maxq"),
        ("NVIDIA L4 Tensor Core GPU", "l4"),
        ("nvidia_tesla_t4", "t4"),
        ("rtx 4090 24GB", "rtx4090"),
        ("H100-80GB", "h100"),
        ("NVIDIA H100 SXM5", "h100"),
        ("h100 80gb sxm5", "h100"),
        ("A100 SXM", "a100"),
        ("A100 SXM 80 GB", "a100-80"),
        ("nvidia-a100-80gb", "a100-80"),
        ("a100 80gb sxm4", "a100-80"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("h200 sxm", "h200"),
        ("v100-16gb", "v100"),
        ("V100 32GB SXM2", "v100-32"),
    ],
)
def test_a_card_is_known_however_it_is_spelled(spelled: str, name: str) -> None:
    assert cards.get(spelled).name == name


# What torch.cuda.get_device_name() returns.
OF_CUDA = {
    "t4": "Tesla T4",
    "v100": "Tesla V100-SXM2-16GB",
    "v100-32": "Tesla V100-SXM2-32GB",
    "a10": "NVIDIA A10",
    "a10g": "NVIDIA A10G",
    "l4": "NVIDIA L4",
    "l40s": "NVIDIA L40S",
    "rtx3060": "NVIDIA GeForce RTX 3060",
    "rtx3090": "NVIDIA GeForce RTX 3090",
    "rtx4060": "NVIDIA GeForce RTX 4060",
    "rtx4090": "NVIDIA GeForce RTX 4090",
    "rtx5090": "NVIDIA GeForce RTX 5090",
    "rtxpro6000": "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "rtxpro6000maxq": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    "a100": "NVIDIA A100-SXM4-40GB",
    "a100-80": "NVIDIA A100-SXM4-80GB",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "b200": "NVIDIA B200",
}


@pytest.mark.parametrize("card", cards.known(), ids=NAMES)
def test_a_card_is_known_by_all_its_names(card: Card) -> None:
    for name in (OF_CUDA[card.name], card.name, card.title, *card.aliases):
        assert [one.name for one in cards.known() if one.is_named(name)] == [card.name]
    described = card.model_copy(update={"name": OF_CUDA[card.name]})
    assert cards.sheet_of(described) == card.name


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA A100 80GB PCIe", "a100 pcie", "a100 24gb", "H100 PCIe", "NVIDIA H100 NVL"),
        *("Tesla V100-PCIE-16GB", "Tesla V100S-PCIE-32GB", "NVIDIA H200 NVL", "RTX 3060 8GB"),
        *("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 D", "RTX 3090 Ti", "L40", "80GB"),
        *("NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
    ],
)
def test_another_card_is_not_taken_for_one_that_is_known(name: str) -> None:
    assert cards.find(name) is None


def test_an_unknown_card_is_told_with_its_like_and_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"no GPU 'rtx3091' is known \(did you mean rtx3090") as e:
        cards.get("rtx3091")
    assert "--describe" in str(e.value)
    assert cards.find("cuda") is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """That describes a card."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\ncapability = "8.6"\nmultiprocessors = 2\nclock_hz = 1e9\n'
        "memory_bytes = 1000000000\nmemory_clock_hz = 1e9\nbus_bits = 64\nbandwidth = 16e9\n"
        "l2_bytes = 500000\nflops = { fp32 = 5e11 }\n"
    )
    return path


def test_a_file_describes_a_card_of_ones_own(file: Path) -> None:
    card = cards.get(str(file))
    assert (card.name, card.multiprocessors, card.flops) == ("mine", 2, {"fp32": 5e11})
    file.write_text(file.read_text().replace("bus_bits = 64\n", ""))
    with pytest.raises(UsageError, match=r"mine.toml: bus_bits is missing"):
        cards.get(str(file))
    file.write_text("title = [")
    with pytest.raises(UsageError, match="no description of a card"):
        cards.get(str(file))
    none = file.with_name("none.toml")
    for name, said in ((none, f"there is no file {none}"), (file.parent, "no GPU")):
        with pytest.raises(UsageError) as error:
            cards.get(str(name))
        assert str(error.value).startswith(said)
    none.mkdir()
    with pytest.raises(UsageError, match=r"^cannot read .*none\.toml: Is a directory$"):
        cards.get(str(none))


def test_a_file_with_another_ending_is_told_how_such_files_end(file: Path) -> None:
    other = file.rename(file.with_suffix(""))
    for read in (cards.get, meant):
        with pytest.raises(UsageError, match=r"mine: the name of a file that .* ends in \.toml$"):
            read(str(other))


def _with(file: Path, key: str, value: str) -> Path:
    """The description with another value of a key."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{key} =")]
    file.write_text("\n".join([*lines, f"{key} = {value}", ""]))
    return file


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bandwidth", "1e-9", "1e-09 is not plausible: a GPU has 1e+09 to 1e+14 bytes a second"),
        ("bandwidth", "'936'", "936 is not plausible: a GPU has 1e+09 to"),
        ("bandwidth", "5e12", "5e+12 is not plausible: 64 bits at 1e+09 Hz move about 1.6e+10"),
        ("clock_hz", "1e30", "1e+30 is not plausible: a GPU has 1e+08 to 1e+10 Hz"),
        ("clock_hz", "nan", "nan is not plausible: a GPU has"),
        ("memory_bytes", "0", "0 is not plausible: a GPU has 1e+08 to 1e+13 bytes"),
        ("memory_bytes", "-24", "-24 is not plausible"),
        ("memory_bytes", "nan", "nan is not plausible"),
        ("memory_bytes", "1" + 400 * "0", "inf is not plausible"),
        ("memory_clock_hz", "inf", "inf is not plausible: a GPU has"),
        ("multiprocessors", "0", "0 is not plausible: a GPU has 1 to 1024"),
        ("multiprocessors", "true", "true is no number"),
        ("bus_bits", "0.5", "0.5 is not plausible: a GPU has 16 to"),
        ("l2_bytes", "4", "4 is not plausible: a GPU has"),
        ("power_w", "-inf", "-inf is not plausible: a GPU has 1 to"),
        ("capability", "'8.8'", "compute capability 8.8 is not known: 7.0"),
        ("title", "5", "must be a text, got 5"),
        ("flops", "1e12", "must be a table, got 1e+12"),
        ("flops", "{}", "has no fp32"),
        ("flops", "{ fp32 = nan }", "(fp32): nan is not plausible: a GPU has"),
        ("flops", "{ fp32 = 5e11, fp8 = 1e12 }", "(fp8) takes fp64, fp32, tf32, fp16, bf16, got"),
        (
            "flops",
            "{ fp32 = 5e14 }",
            "fp32 of 5e+14 is not plausible: 2 multiprocessors at 1e+09 Hz do 1.3e+11 to 2e+12",
        ),
        ("flops", "{ fp32 = 5e11, fp16 = 5e14 }", "fp16 of 5e+14 is not plausible"),
        ("bandwith", "1e9", "is no key of a card (did you mean bandwidth?)"),
        ("power_w", "1" + 5000 * "0", "no description of a card: Exceeds"),
    ],
)
def test_a_figure_that_no_gpu_has_is_said(file: Path, key: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        cards.get(_with(file, key, value))
    message = str(error.value)
    assert said in message
    assert message.startswith(f"{file}: {key}" if "Exceeds" not in said else f"{file}: ")


def test_a_changed_copy_of_a_card_is_looked_at_too() -> None:
    slower = cards.get("t4").model_copy(update={"bandwidth": 1.0})
    with pytest.raises(UsageError, match=r"^t4: bandwidth: 1 is not plausible"):
        cards.get(slower)


def test_a_file_of_a_known_name_is_that_card_only_with_its_figures() -> None:
    card = cards.get("rtx4090")
    assert cards.sheet_of(card) == "rtx4090"
    assert cards.sheet_of(card.model_copy(update={"clock_hz": 1.05 * card.clock_hz})) == "rtx4090"
    for other in (
        {"bandwidth": 0.5 * card.bandwidth},
        {"name": "mine"},
        {"flops": {**card.flops, "fp16": 2 * card.flops["fp16"]}},
    ):
        assert cards.sheet_of(card.model_copy(update=other)) == ""


def test_a_card_is_said_by_name_by_file_or_itself(file: Path) -> None:
    card = cards.get(str(file))
    assert cards.get(file) == meant(file) == card
    assert cards.get(card) == meant(card) == card
    other = file.rename(file.with_suffix(".card"))
    assert cards.get(other) == card
    for nothing in (None, 4, ["t4"]):
        with pytest.raises(UsageError, match="by a file that describes it, or as a Card, not"):
            cards.get(nothing)  # type: ignore[arg-type]


def test_cards_are_taken_each_once_in_their_order(file: Path) -> None:
    t4, mine = cards.get("t4"), cards.get(file)
    assert cards.each_once([file, "Tesla T4", mine, "t4"]) == (mine, t4)
    for alone in ("T4", t4):
        assert cards.each_once(alone) == (t4,)
    slower = mine.model_copy(update={"clock_hz": 5e8})
    with pytest.raises(UsageError, match="two cards with different figures are both named mine"):
        cards.each_once([mine, slower])
