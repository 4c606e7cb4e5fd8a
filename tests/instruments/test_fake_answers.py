"""Kept and quick answers for fake tensors are those that PyTorch gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from layerbench.instruments.fake_answers import UNKNOWN, FakeAnswers
from layerbench.instruments.fake_tensors import fake_tensors
from layerbench.instruments.quick_answers import QuickAnswers, quick_answer

ATEN = torch.ops.aten


def _half() -> torch.Tensor:
    return torch.empty(4, 8, 6, 6, dtype=torch.float16)


def _ones() -> torch.Tensor:
    return torch.empty(8)


def _image() -> torch.Tensor:
    return torch.empty(4, 8, 6, 6)


def _last() -> torch.Tensor:
    return _image().to(memory_format=torch.channels_last)


def _norm() -> tuple[Any, ...]:
    return _half(), _ones(), _ones(), _ones(), _ones(), True, 0.1, 1e-5


def _norm_backward() -> tuple[Any, ...]:
    held = [_ones() for _ in range(5)]
    return _half(), _half(), *held, True, 1e-5, [True, True, True]


def _square(size: int) -> tuple[int, ...]:
    return (size, size)


CALLS = {
    "convolution": lambda: ATEN.convolution(
        _half(), torch.empty(2, 8, 3, 3).half(), None, *map(_square, (1, 0, 1)), False, [0, 0], 1
    ),
    "element by element": lambda: ATEN.mul(_image(), _image()),
    "channels last": lambda: ATEN.add(_last(), _last()),
    "not alike": lambda: ATEN.mul(_image(), torch.empty(8, 1, 1)),
    "a number that is no fraction": lambda: ATEN.mul(torch.empty(3, dtype=torch.int64), 2),
    "a fraction": lambda: ATEN.mul(torch.empty(3, dtype=torch.int64), 2.0),
    "expanded": lambda: ATEN.mul(*[torch.empty(3, 1).expand(3, 5)] * 2),
    "one side of length 1": lambda: ATEN._to_copy(
        torch.empty(5, 1, 7, 2).as_strided((5, 1, 7, 2), (14, 3, 1, 7)), dtype=torch.float16
    ),
    "in place": lambda: ATEN.relu_(_image()),
    "format": lambda: ATEN._to_copy(_last(), dtype=torch.bfloat16),
    "memory format": lambda: ATEN.clone(_image(), memory_format=torch.channels_last),
    "view": lambda: ATEN.transpose(_image()[1:], 1, 2),
    "unsafe view": lambda: ATEN._unsafe_view(_image(), [4, 288]),
    "normalization": lambda: ATEN.native_batch_norm(*_norm()),
    "its gradient": lambda: ATEN.native_batch_norm_backward(*_norm_backward()),
    "made of others": lambda: ATEN.silu_backward(_last(), _image()),
    "without a tensor": lambda: ATEN.empty.memory_format([2, 3], dtype=torch.int64),
}
"""What each gives is fake."""


@pytest.fixture
def mode() -> Iterator[FakeTensorMode]:
    with fake_tensors() as entered:
        assert isinstance(entered, FakeTensorMode)
        yield entered


def _described(given: Any) -> list[tuple[object, ...]]:
    tensors = given if isinstance(given, tuple) else (given,)
    assert all(type(one) is FakeTensor for one in tensors)
    return [
        (one.dtype, one.shape, one.stride(), one.storage_offset(), one.device, one.requires_grad,
         one.untyped_storage().nbytes())
        for one in tensors
    ]  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_second_answer_is_pytorchs_first(name: str) -> None:
    with FakeTensorMode():
        own = _described(CALLS[name]())
    if name.startswith(("normalization", "its")):  # statistics, which PyTorch's are not
        own = [(one[0] if at == 0 else torch.float32, *one[1:-1]) for at, one in enumerate(own)]
    with fake_tensors():
        for _ in range(2):
            given = _described(CALLS[name]())
            assert [one[: len(own[0])] for one in given] == own


def test_each_answer_is_a_tensor_of_its_own(mode: FakeTensorMode) -> None:
    image = _image()
    first, second = image * image, image * image
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata
    views = [image.view(4, -1) for _ in range(2)]
    assert {one.untyped_storage()._cdata for one in views} == {image.untyped_storage()._cdata}
    assert [image.mul_(image) is image for _ in range(2)] == [True, True]


def _answers(mode: FakeTensorMode) -> FakeAnswers:
    answers = mode._answers  # type: ignore[attr-defined]
    assert isinstance(answers, FakeAnswers)
    return answers


def test_an_answer_is_kept_for_arguments_that_are_alike(mode: FakeTensorMode) -> None:
    answers, image, other = _answers(mode), _image(), _image()
    torch.sigmoid(image)

    def kept(tensor: torch.Tensor) -> bool:
        key = answers.key(ATEN.sigmoid.default, (tensor,), {})
        assert key is not None
        return answers.given(key, (tensor,)) is not UNKNOWN

    assert kept(other)
    assert not any(map(kept, (_half(), _last(), image[:2], image[1:].view(-1))))
    with torch.inference_mode():
        assert not kept(other)


def test_a_number_with_a_fraction_is_another(mode: FakeTensorMode) -> None:
    counts = torch.empty(3, dtype=torch.int64)
    kinds = [(counts * by).dtype for by in (2, 2.0, 2)]
    assert kinds == [torch.int64, torch.float32, torch.int64]


def test_none_is_kept_where_more_counts_than_shapes(mode: FakeTensorMode) -> None:
    key, image = _answers(mode).key, _image()
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        real = torch.ones(())
    assert key(ATEN.add.Tensor, (image, real), {}) is None
    assert key(ATEN.add.Tensor, (image, torch.tensor(2.0)), {}) is None  # its value is known
    assert key(ATEN.nonzero.default, (image,), {}) is None
    assert key(ATEN.t_.default, (image[0, 0],), {}) is None
    assert key(ATEN.split.Tensor, (image, 2), {}) is None
    matrix = image[0, 0]
    assert key(ATEN.matmul.default, (matrix, matrix), {}) is not None
    with torch.autocast("cpu"):  # which decides on the format of the parts
        assert key(ATEN.matmul.default, (matrix, matrix), {}) is None


def test_quick_answers_on_the_meta_device_are_those_of_the_kernels() -> None:
    with torch.device("meta"):
        for name, call in CALLS.items():
            own = _meta(call())
            with QuickAnswers():  # type: ignore[no-untyped-call]
                quick = _meta(call())
            own = [own[0]] if "norm" in name or name == "its gradient" else own
            assert quick[: len(own)] == own, name


def _meta(given: Any) -> list[tuple[object, ...]]:
    tensors = given if isinstance(given, tuple) else (given,)
    return [(one.dtype, one.shape, one.stride(), one.device) for one in tensors]


def test_tensors_with_values_get_no_quick_answer() -> None:
    counter = torch.ones(3)
    assert quick_answer(ATEN.add_.Tensor, (counter, 1), {}) is None
    meta = torch.empty(3, device="meta")
    assert quick_answer(ATEN.add_.Tensor, (meta, 1), {}) is meta
    assert quick_answer(ATEN.mul.Tensor, (meta, counter), {}) is None
