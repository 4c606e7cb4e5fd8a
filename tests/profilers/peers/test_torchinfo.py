"""torchinfo's table is torchinfo's own, it agrees where it can, and it leaves nothing behind."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
import torch
import torchinfo
from torch import nn

import layerbench
from layerbench import reporters
from layerbench.analysis.views import down_to
from layerbench.api.verification import again
from layerbench.errors import UsageError
from layerbench.records.peers import COLUMNS, USUAL_COLUMNS
from tests.faulty import keeps_state
from tests.support.fingerprint import draws, fingerprint

IMAGE = torch.zeros(2, 3, 8, 8)
TOKENS = torch.zeros(1, 10, 8)


class Convolutional(nn.Module):
    """A layer that is called twice, a frozen one, a pooling, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False).requires_grad_(False)
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
        self.relu = nn.ReLU()
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Sequential(nn.MaxPool2d(8), nn.Flatten(), nn.Linear(4, 5))

    def forward(self, x):
        x = self.relu(self.stem(x))
        return self.head(self.relu(self.blocks(self.blocks(x))) * self.scale)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.norm(x)
        return self.head(self.attention(x, x, x)[0])


def words(text):
    """The words of each line of a table, its frames and blanks apart."""
    plain = (re.sub(r"[│├└─]", " ", line) for line in text.splitlines())
    return [line.split() for line in plain if line.strip() and set(line.strip()) - {"=", "-", " "}]


def table(record):
    """The lines of the section from its header to its last layer."""
    lines = words(reporters.render("txt", record).partition("\ntorchinfo ")[2])
    begin = next(n for n, line in enumerate(lines) if line[:2] == ["Layer", "(type:depth-idx)"])
    end = next(n for n, line in enumerate(lines) if line[:2] == ["Total", "params"])
    return lines[begin:end]


@pytest.mark.parametrize("columns", [USUAL_COLUMNS, COLUMNS, ("trainable", "output_size")])
@pytest.mark.parametrize("depth", [100, 2, 1, 0])
def test_the_table_is_what_torchinfo_prints(columns, depth):
    model = Convolutional().eval()
    own = torchinfo.summary(model, input_data=IMAGE, col_names=columns, depth=depth, verbose=0)
    lines = words(str(own))
    printed = lines[: next(n for n, line in enumerate(lines) if line[:2] == ["Total", "params:"])]
    record = layerbench.structure(model, IMAGE, torchinfo=columns)
    assert record.how == "meta"
    assert table(down_to(record, depth)) == printed
    made = record.torchinfo
    assert (made.total_params, made.trainable_params, made.total_mult_adds) == (
        own.total_params,
        own.trainable_params,
        own.total_mult_adds,
    )


def test_columns_are_the_usual_ones_or_such_as_there_are():
    made = layerbench.structure(nn.Linear(2, 2), torch.zeros(1, 2), torchinfo=True).torchinfo
    assert made.columns == USUAL_COLUMNS
    with pytest.raises(UsageError, match=r"torchinfo takes kernel_size, .*, got 'size'"):
        layerbench.structure(nn.Linear(2, 2), torch.zeros(1, 2), torchinfo=("size",))


def number(pattern, text):
    seen = re.search(pattern, text)
    return int(seen[1].replace(",", "")) if seen else 0


@pytest.mark.parametrize(
    ("model", "x", "causes"),
    [
        (Convolutional(), IMAGE, ["leaves out (BatchNorm2d)", "biases and the like (Conv2d, Lin"]),
        (Attending(), TOKENS, ["leaves out (LayerNorm)", "positions (Linear)", "(MultiheadAtt"]),
    ],
)
def test_what_differs_is_said_with_its_causes_and_adds_up(model, x, causes):
    record = layerbench.structure(model.eval(), x, torchinfo=USUAL_COLUMNS)
    said = record.torchinfo.agreement
    assert f"Parameters agree: {record.parameters:,}." in said
    assert all(cause in said for cause in causes)
    theirs, ours = number(r"([\d,]+) by torchinfo", said), number(r"([\d,]+) by ours", said)
    assert (theirs, ours) == (record.torchinfo.total_mult_adds, record.macs)
    more = number(r"It adds ([\d,]+)", said) + number(r"it adds ([\d,]+)", said)
    positions = number(r"leaves out ([\d,]+) of layers", said)
    inside = number(r"leaves out ([\d,]+) that modules", said)
    assert theirs - ours == more - positions - inside != 0


def test_where_all_agrees_nothing_is_explained():
    record = layerbench.structure(nn.Conv2d(3, 2, 3, bias=False), IMAGE, torchinfo=USUAL_COLUMNS)
    assert record.torchinfo.agreement == "Parameters agree: 54. Multiply-adds agree: 3,888."


def test_a_shared_parameter_counts_in_each_module_for_torchinfo():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    record = layerbench.structure(model, torch.zeros(1, 8), torchinfo=USUAL_COLUMNS)
    said = record.torchinfo.agreement
    assert "128 by torchinfo, 64 by ours: it counts one that modules share in each of them" in said


class Box:
    pass


class OfAnOwnKind(nn.Module):
    def forward(self, x):
        return Box()


class OddKernel(nn.Module):
    """torchinfo raises while it attaches its hooks, and leaves those that it has attached."""

    kernel_size = "3x3"

    def __init__(self):
        super().__init__()
        self.kernel_size = Box()

    def forward(self, x):
        return x


class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.sum() + self.weight.sum()


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (OfAnOwnKind(), "unsupported input or output type"),
        (OddKernel(), "kernel_size has an unexpected type"),
        (Scalar(), "list index out of range"),
    ],
)
def test_a_model_that_torchinfo_cannot_read_has_the_reason_and_all_the_rest(last, says):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval(), last)
    cache = dict(torchinfo.torchinfo._cached_forward_pass)
    inputs = (IMAGE,)
    before = fingerprint(model, inputs)
    record = layerbench.structure(model, IMAGE, torchinfo=USUAL_COLUMNS)
    assert says in record.torchinfo.reason
    assert record.torchinfo.rows == ()
    assert fingerprint(model, inputs) == before
    assert torchinfo.torchinfo._cached_forward_pass == cache
    alone = layerbench.structure(model, IMAGE)
    assert record.model_copy(update={"torchinfo": None}) == alone
    text = " ".join(reporters.render("txt", record).split())
    assert f"Left out: {record.torchinfo.reason}." in text
    assert " at 0x" not in text


def test_a_model_whose_modules_lie_deep_is_not_waited_for():
    model = nn.Linear(2, 2)
    for _ in range(150):
        model = nn.Sequential(model)
    record = layerbench.structure(model, torch.zeros(1, 2), torchinfo=USUAL_COLUMNS)
    assert "lie up to 150 deep" in record.torchinfo.reason
    assert record.flops == 8


@pytest.mark.parametrize("case", keeps_state.CASES, ids=lambda case: case.name)
def test_a_model_that_keeps_state_stays_as_it_was(case):
    torch.manual_seed(0)
    model, inputs = case.build()
    before, drawn = fingerprint(model, inputs), draws()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layerbench.structure(model, inputs, torchinfo=USUAL_COLUMNS)
    assert fingerprint(model, inputs) == before
    assert draws() == drawn


def test_it_keeps_no_model_alive():
    before = dict(torchinfo.torchinfo._cached_forward_pass)
    record = layerbench.structure(Attending(), TOKENS, torchinfo=USUAL_COLUMNS)
    assert record.torchinfo.rows
    assert torchinfo.torchinfo._cached_forward_pass == before


def test_a_long_forward_is_not_run_again(monkeypatch):
    monkeypatch.setattr("layerbench.profilers.peers.torchinfo.LONGEST_FORWARD_S", 0.0)

    class LooksAtValues(nn.Linear):
        def forward(self, x):
            return super().forward(x) if bool((x == 0).all()) else x

    record = layerbench.structure(LooksAtValues(2, 2), torch.zeros(1, 2), torchinfo=USUAL_COLUMNS)
    assert record.how == "cpu"
    assert "torchinfo would run another one" in record.torchinfo.reason


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchinfo", None)
    record = layerbench.structure(nn.Linear(2, 2), torch.zeros(1, 2), torchinfo=USUAL_COLUMNS)
    assert record.torchinfo.version is None
    assert record.torchinfo.reason == "torchinfo is not installed: pip install torchinfo"
    assert record.flops == 8


def test_a_record_without_it_is_as_before_and_one_with_it_is_checked():
    record = layerbench.structure("tests/models.py:small", "1x3x8x8")
    assert "torchinfo" not in reporters.render("json", record)
    record = layerbench.structure("tests/models.py:small", "1x3x8x8", torchinfo=("num_params",))
    assert again(record) == record
    changed = record.torchinfo.model_copy(update={"total_params": 1})
    assert again(record.model_copy(update={"torchinfo": changed})) == record
    other = changed.model_copy(update={"version": "0.1"})
    assert again(record.model_copy(update={"torchinfo": other})).torchinfo == other
