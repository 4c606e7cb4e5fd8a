"""How wrong predicted times were, by the kind of question; what was held out of the fit tells it.

``python -m benchmarks.latency_fit`` makes errors.json beside this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from layerbench.environment.cards import sheet_of
from layerbench.profilers.latency.network import fitted
from layerbench.records.card import Card
from layerbench.records.latency_estimate import Checked, TimeInterval
from layerbench.records.memory import Optimizer
from layerbench.records.workload import Workload

NOT_CHECKED = "not checked"
ERRORS = "errors.json"

LAUNCH_BOUND = 0.5
"""From this part of the time on that the device waits for the host, a question is one of hosts."""

_UNKNOWN_LOW, _UNKNOWN_HIGH = 0.4, 2.5
"""Factors of an interval where nothing was checked: what is not known is not claimed."""

_FEW = 10
"""Fewer times than this say next to nothing of an interval's ends."""

_EASIER = {"training, card unseen": "training, family unseen"}
"""Where more is known: no interval is narrower than that one's for being made of few times."""

_HOST_LOW = 0.3
"""Hosts differ: a newer one launches in a third of the time of those that were published of."""


class Question(NamedTuple):
    """A kind of question.

    Attributes:
        words: what is alike in all of them.
        key: among those of errors.json; empty where none was checked.
        host: whether the host decides, whose speed nobody has said.
    """

    words: str
    key: str
    host: bool = False


def question_of(
    card: Card, workload: Workload, optimizer: Optimizer | None, waiting: float
) -> Question:
    """The kind of question that a prediction answers.

    Args:
        card: that it is for.
        workload: that would run.
        optimizer: that makes it a training step.
        waiting: the part of the time that the device waits for the host.
    """
    large = LARGE if optimizer is None else LARGE_STEP
    kind = _Kind(
        card_seen=sheet_of(card) in (_trained_on() if optimizer is not None else fitted().cards),
        family_seen=family_of(workload.model) in _families(),
        host=waiting >= LAUNCH_BOUND,
        few=workload.batch < large,
    )
    key = kind.training() if optimizer is not None else kind.forward()
    words = f"{kind.family} on {kind.card}"
    words = f"a training of {words}" if optimizer is not None else words
    words = f"{words}, {kind.batch(large)}"
    return _in_precision(Question(words, key, kind.host), card, workload)


class _Kind(NamedTuple):
    """What decides how far a prediction can be trusted."""

    card_seen: bool
    family_seen: bool
    host: bool
    few: bool

    @property
    def family(self) -> str:
        return f"models of a family that is {'' if self.family_seen else 'not '}in the fit"

    @property
    def card(self) -> str:
        return f"a card that is {'' if self.card_seen else 'not '}in the fit"

    def batch(self, large: int) -> str:
        if self.host:
            return "bound by the host"
        return f"{'fewer than' if self.few else 'at least'} {large} images"

    def forward(self) -> str:
        if self.card_seen and not self.host:
            if self.few:
                return "family unseen, few images"
            return "family seen" if self.family_seen else "family unseen"
        return ANY_BATCH if self.host or self.few else "card unseen"

    def training(self) -> str:
        if self.host:
            return ""  # all published steps kept their card busy
        if not self.card_seen:
            return "" if self.few else "training, card unseen"
        return f"training, family {'seen' if self.family_seen else 'unseen'}"


LARGE = 256
"""Images from which on most of the published times are."""

LARGE_STEP = 64
"""The same of a training step; a publisher's recipes have 64 to 256."""

ANY_BATCH = "card unseen, any batch"


def _in_precision(question: Question, card: Card, workload: Workload) -> Question:
    """Float32 was checked on cards without TensorFloat32 alone, half precision in autocast alone.

    A training on a card that is not in the fit was checked in all of them.
    """
    if not question.key:
        return question
    half = workload.precision in ("amp", "amp-bf16") or workload.dtype in ("float16", "bfloat16")
    plain = workload.precision is None and workload.dtype == "float32" and "tf32" not in card.flops
    if question.key == "training, card unseen" and (half or workload.dtype == "float32"):
        return question
    if half:
        exact = workload.precision == "amp"
        words = question.words + ("" if exact else ", checked in amp alone")
        key = f"{ANY_BATCH}, amp" if question.key == ANY_BATCH else question.key
        return question._replace(words=words, key=key)
    if plain and not question.key.startswith("training"):
        return question._replace(words=f"{question.words}, float32", key=f"{ANY_BATCH}, fp32")
    words = f"{question.words}, in {workload.arithmetic} (times in amp were checked)"
    return question._replace(words=words, key="")


def interval_of(seconds: float, question: Question) -> TimeInterval:
    """What 90 % of the times lie between that were predicted so."""
    answer = _questions().get(question.key)
    low = answer["low"] if answer else _UNKNOWN_LOW
    high = answer["high"] if answer else _UNKNOWN_HIGH
    easier = _questions().get(_EASIER.get(question.key, ""))
    if answer and easier and answer["rows"] < _FEW:
        low, high = min(low, easier["low"]), max(high, easier["high"])
    if question.host:
        low = min(low, _HOST_LOW)
    return TimeInterval(low=seconds * min(low, 1.0), high=seconds * max(high, 1.0))


def checked_of(question: Question) -> Checked:
    """How wrong predictions of this kind were."""
    answer = _questions().get(question.key)
    if answer is None:
        return Checked(question=question.words)
    return Checked(
        question=question.words,
        rows=int(answer["rows"]),
        models=int(answer["models"]),
        median_error=answer["median_error"],
        within=answer["within"],
    )


def checked(card_name: str) -> str:
    """How far predictions were from measured times, in words, for the column of a table.

    Args:
        card_name: of a known card; any other has not been checked.
    """
    answer = _cards().get(card_name)
    if answer is None:
        return NOT_CHECKED
    return f"{answer['median_error']:.0%} off, {int(answer['rows'])} times"


def family_of(model: str) -> str:
    """What models that are built alike share: the letters that their names begin with."""
    name = model.rpartition(":")[2]
    plain = re.sub(r"^(test_|tf_|legacy_|gluon_|tv_|ssl_|swsl_|ig_|ens_|adv_|jx_)*", "", name)
    letters = re.match(r"[A-Za-z]+", plain)
    return letters.group(0) if letters else plain


@cache
def _errors() -> Mapping[str, object]:
    content: dict[str, object] = json.loads((files(__package__) / ERRORS).read_text())
    return content


def _families() -> frozenset[str]:
    names = _errors()["families"]
    return frozenset(names) if isinstance(names, list) else frozenset()


def _trained_on() -> frozenset[str]:
    names = _errors()["trained_on"]
    return frozenset(names) if isinstance(names, list) else frozenset()


def _questions() -> Mapping[str, Mapping[str, float]]:
    return _table("questions")


def _cards() -> Mapping[str, Mapping[str, float]]:
    """By card, where it was held out."""
    return _table("cards")


def _table(name: str) -> Mapping[str, Mapping[str, float]]:
    table = _errors()[name]
    return table if isinstance(table, dict) else {}
