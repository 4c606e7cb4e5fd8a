"""What PyTorch does in place, unless a dispatch mode looks on.

Under a mode it must suppose that tensors are of a class of their own, and makes a new tensor in the
place of writing into one that nobody else has (`at::isTensorSubclassLike`). There are three such
cases, and a tracker that is a mode sees each as an allocation that no other run makes:

- Autograd's engine adds up gradients that come to one node on several ways. It adds in place if
  gradients are off, the first one lies densely, and nobody else holds it or its storage: no view
  (torch/csrc/autograd/input_buffer.cpp, ``can_accumulate_inplace``).
- Formulas that scatter a gradient into zeros do so in place (torch/csrc/autograd/
  FunctionsManual.cpp, ``areAnyTensorSubclassLike``).
- A linear layer whose input is not a matrix, nor lies contiguously (after a transposition, say),
  adds its bias to the product in place (aten/src/ATen/native/Linear.cpp). A product and a sum of
  the user's own are two instructions of Python; these are one.

That nobody else held a tensor shows afterwards: it is gone as soon as the operator has ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import _prims_common as prims
from torch.autograd.graph import _engine_run_backward
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from layerbench.instruments.storage_tracker import Allocation, Trace

_ATEN = torch.ops.aten
_ADD = _ATEN.add.Tensor
# Into zeros that the formula has just made.
_INTO_ZEROS = frozenset(
    {
        _ATEN.index_add.default,
        _ATEN.index_put.default,
        _ATEN.masked_scatter.default,
        _ATEN.put.default,
        _ATEN.scatter.src,
        _ATEN.scatter.value,
        _ATEN.scatter_add.default,
    }
)
# What a linear layer with more than a matrix as its input is made of, before the bias.
_PRODUCTS = frozenset({_ATEN.mm.default, _ATEN.bmm.default, _ATEN.mv.default})
# Its names, of which PyTorch 2.4 has the second alone; they differ for symbolic sizes.
_DENSE = ("is_non_overlapping_and_dense_or_false", "is_non_overlapping_and_dense")
_is_dense: Callable[[torch.Tensor], bool] = next(
    getattr(prims, name) for name in _DENSE if hasattr(prims, name)
)
# A frame's identity and where it stands in its code.
_Instruction = tuple[int, int]
_ENGINE: CodeType = _engine_run_backward.__code__


@dataclass
class InPlace:
    """Finds, while a run is traced, the operators that would work in place without the tracker."""

    _node: int | None = None
    _node_began: int = 0
    _product: _Instruction | None = None
    _seen: list[tuple[Allocation, Allocation, int]] = field(default_factory=list)

    def target(
        self,
        func: object,
        args: Sequence[Any],
        moment: int,
        allocation_of: Callable[[torch.Tensor], Allocation | None],
    ) -> Allocation | None:
        """The storage that an operator would write into; ``None`` for most.

        Args:
            func, args: the operator, which has not run yet.
            moment: of its beginning.
            allocation_of: the storage of a tensor.
        """
        if func in _PRODUCTS:
            self._product = _instruction()
        if func is _ADD and self._adds_bias(args):
            return allocation_of(args[0])
        return self._target_in_backward(func, args, moment, allocation_of)

    def _target_in_backward(
        self,
        func: object,
        args: Sequence[Any],
        moment: int,
        allocation_of: Callable[[torch.Tensor], Allocation | None],
    ) -> Allocation | None:
        node = torch._C._current_autograd_node()
        if node is None:
            self._node = None
            return None
        number = node._sequence_nr()
        if number != self._node:
            self._node, self._node_began = number, moment
        if func is not _ADD and func not in _INTO_ZEROS:
            return None
        if torch.is_grad_enabled() or not _called_by_engine():
            return None
        target = allocation_of(args[0])
        if target is None:
            return None
        if func is not _ADD:
            return target if target.born >= self._node_began else None
        adds = _adds_up(args[0], args[1]) and allocation_of(args[1]) is not target
        earlier = target.born < self._node_began or _feeds_one_twice(node)
        return target if adds and earlier else None

    def _adds_bias(self, args: Sequence[Any]) -> bool:
        """Whether a linear layer adds its bias to the product that it has just made."""
        product, self._product = self._product, None
        return (
            product is not None
            and isinstance(args[1], torch.Tensor)
            and args[1].dim() == 1
            and args[0].dim() != 2
            and not is_traceable_wrapper_subclass(args[1])
            and product == _instruction()
            and not _is_transformed()
        )

    def note(self, target: Allocation, made: Allocation | None, end: int) -> None:
        """Note what an operator made whose `target` was found."""
        if made is not None and made is not target:
            self._seen.append((target, made, end))

    def settle(self, trace: Trace) -> None:
        """Let what was made out of place be the storage that it would have been written into."""
        begins = iter(sorted(step.begin for step in trace.steps))
        begin = next(begins, None)
        one: dict[int, Allocation] = {}
        for first, made, end in self._seen:
            while begin is not None and begin <= end:
                begin = next(begins, None)
            target = one.get(id(first), first)
            if target.died is None or (begin is not None and target.died > begin):
                continue
            one[id(made)] = target
            target.died = made.died
            if made.category != "activations":
                target.category = made.category
        trace.allocations = [a for a in trace.allocations if id(a) not in one]


def _adds_up(first: object, second: object) -> bool:
    """Whether the engine would add the second tensor to the first in place."""
    return (
        isinstance(first, torch.Tensor)
        and isinstance(second, torch.Tensor)
        and first.shape == second.shape
        and first.dtype == second.dtype
        and first.layout == second.layout == torch.strided
        and not first._is_view()  # a view holds its base, and that the storage
        and (first.is_contiguous() or _is_dense(first))
    )


def _feeds_one_twice(node: torch.autograd.graph.Node) -> bool:
    """Whether two of a node's gradients go to the same place, as those of ``x * x`` do."""
    following = [(id(after), number) for after, number in node.next_functions if after is not None]
    return len(set(following)) < len(following)


def _called_by_engine() -> bool:
    """Whether no Python code, such as a hook or a user's function, has asked for the operator."""
    frame = _frame_outside_modes()
    return frame is None or frame.f_code is _ENGINE


def _instruction() -> _Instruction | None:
    """The one of Python's that runs: operators with the same one are of the same function of C."""
    frame = _frame_outside_modes()
    return None if frame is None else (id(frame), frame.f_lasti)


def _is_transformed() -> bool:
    """Whether a transform of functions runs: its tensors are of a class of their own anyway."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _OF_TRANSFORMS in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _frame_outside_modes() -> FrameType | None:
    """``None`` in the engine's own thread, as GPUs have one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_part_of_a_mode(frame.f_code):
        frame = frame.f_back
    return frame


def _is_part_of_a_mode(code: CodeType) -> bool:
    return code.co_filename.endswith(_OF_MODES)


_OF_TRANSFORMS = "/torch/_functorch/"
# What stands between an operator and a mode's own code: PyTorch keeps Dynamo off it.
_OF_MODES = (
    "/layerbench/instruments/in_place.py",
    "/layerbench/instruments/storage_tracker.py",
    "/torch/utils/_python_dispatch.py",
    "/torch/_compile.py",
    "/torch/_dynamo/eval_frame.py",
)
