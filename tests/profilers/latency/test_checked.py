"""Which errors stand for a prediction: those of its kind of question, or none."""

from __future__ import annotations

import pytest

from layerbench.environment import cards
from layerbench.profilers.latency.checked import (
    NOT_CHECKED,
    Question,
    checked,
    checked_of,
    family_of,
    interval_of,
    question_of,
)
from layerbench.records.memory import Optimizer
from layerbench.records.workload import Computed, DType, Workload


def _key(
    model: str = "resnet50",
    card: str = "rtx3090",
    batch: int = 256,
    precision: Computed | None = "amp",
    optimizer: Optimizer | None = None,
    waiting: float = 0.0,
    dtype: DType = "float32",
) -> str:
    workload = Workload(
        model=model,
        input="x",
        shape=(batch, 3, 8, 8),
        batch=batch,
        precision=precision,
        dtype=dtype,
    )
    return question_of(cards.get(card), workload, optimizer, waiting).key


def test_a_question_is_one_of_what_was_held_out() -> None:
    assert _key() == "family seen"
    assert _key("nobodys_net") == "family unseen"
    assert _key(batch=8) == "family unseen, few images"
    assert _key(card="h100") == "card unseen"
    assert _key(card="h100", batch=1) == _key(waiting=0.9) == "card unseen, any batch, amp"
    assert _key(optimizer="sgd") == "training, family seen"
    assert _key("nobodys_net", optimizer="sgd") == "training, family unseen"
    assert _key(card="a100", optimizer="sgd") == "training, card unseen"
    # The published steps of that kind were large, and none waited for its host.
    assert _key(card="a100", optimizer="sgd", batch=8) == _key(optimizer="sgd", waiting=0.9) == ""
    assert _key(card="t4", optimizer="sgd", precision=None, batch=8) == ""


def test_precisions_that_were_not_checked_are_not() -> None:
    assert _key(card="t4", precision=None) == "card unseen, any batch, fp32"
    assert _key(card="a100", precision=None) == _key(precision="tf32") == ""
    assert _key(optimizer="sgd", precision=None) == ""
    assert _key(dtype="float64", precision=None, card="v100") == ""
    # Half precision moves and multiplies what autocast does.
    assert _key(dtype="bfloat16", precision=None) == "family seen"


def _question(card: str, waiting: float = 0.0) -> tuple[float, float, bool]:
    workload = Workload(model="m", input="x", shape=(1, 3, 8, 8), batch=1)
    question = question_of(cards.get(card), workload, None, waiting)
    interval = interval_of(2.0, question)
    return interval.low, interval.high, checked_of(question).known


def test_what_was_not_checked_has_a_wide_interval() -> None:
    low, high, known = _question("a100")
    assert not known
    assert (low, high) == pytest.approx((0.8, 5.0))
    low, high, known = _question("t4")
    assert known
    assert 0.8 < low < 2.0 < high < 5.0


def test_where_the_host_decides_the_interval_begins_lower() -> None:
    assert _question("t4", waiting=0.8)[0] < _question("t4")[0]


def test_a_card_is_checked_where_it_was_held_out() -> None:
    assert checked("rtx4090").endswith("times")
    assert checked("b200") == checked("mine") == NOT_CHECKED


def test_families_are_the_letters_that_names_begin_with() -> None:
    names = ("timm:tf_efficientnet_b0", "resnet50", "timm:legacy_seresnet18", "my.module:Net")
    assert [*map(family_of, names)] == ["efficientnet", "resnet", "seresnet", "Net"]


def test_of_few_times_no_interval_is_narrower_than_where_more_is_known() -> None:
    few, more = Question("", "training, card unseen"), Question("", "training, family unseen")
    assert checked_of(few).rows < 10 <= checked_of(more).rows
    assert checked_of(few).models == 1
    assert interval_of(1.0, few).low <= interval_of(1.0, more).low
    assert interval_of(1.0, few).high >= interval_of(1.0, more).high
