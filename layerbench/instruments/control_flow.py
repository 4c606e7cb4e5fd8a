"""Operators that run functions, such as `torch.cond` and `torch.while_loop`, as plain Python.

In plain PyTorch they compile themselves when they are called, and so find the parameters that
their functions close over. With compilation off they do not, and those would get no gradient. So
each runs here as what its documentation says it is equivalent to, while autograd looks on. It keeps
for the backward what went into a function and not what was made in it, as PyTorch does: there the
function runs once more.

Known limitation: what the operator itself makes in its backward (zeros as the gradients of
functions that did not run, a map's gradients slice by slice) is not made.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch._ops import _higher_order_ops as _operators
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

Function = Callable[..., Any]


@contextmanager
def run_as_python() -> Iterator[set[str]]:
    """Let these operators run as plain Python, while a ``with`` block runs.

    Yields:
        the names of those that have run while gradients were on.
    """
    trained: set[str] = set()
    with ExitStack() as replaced:
        for name, equivalent in _EQUIVALENTS.items():
            operator = _operators.get(name)
            if operator is not None and type(operator) is not HigherOrderOperator:
                replaced.enter_context(_called_instead(operator, equivalent, trained))
        yield trained


def notes_on_trained(names: Collection[str]) -> tuple[str, ...]:
    """One sentence on operators that `run_as_python` has run in training."""
    if not names:
        return ()
    return (
        f"{', '.join(sorted(names))} ran as plain Python: gradients that the operator makes "
        "besides (zeros for a function that did not run, one for each step) are not counted",
    )


@contextmanager
def _called_instead(
    operator: HigherOrderOperator, equivalent: Function, trained: set[str]
) -> Iterator[None]:
    kind: Any = type(operator)
    original = kind.__call__

    @wraps(original)
    def called(itself: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the operator's
        if _has_rules_of_its_own(args):
            return original(itself, *args, **kwargs)
        if torch.is_grad_enabled():
            trained.add(str(operator._name).removesuffix("_impl"))
        return equivalent(*args, **kwargs)

    kind.__call__ = called
    try:
        yield
    finally:
        kind.__call__ = original


def _has_rules_of_its_own(args: object) -> bool:
    """Whether the operator is traced or transformed, or runs on shapes alone: it knows how."""
    if get_proxy_mode() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return not torch.is_grad_enabled() and any(
        isinstance(leaf, FakeTensor) for leaf in tree_leaves(args)
    )


def _once_more(function: Function) -> Function:
    """The function, of whose inside the backward finds nothing and runs it again."""
    if not torch.is_grad_enabled():
        return function

    @wraps(function)
    def kept_by_inputs(*args: Any) -> Any:  # noqa: ANN401 - whatever it returns
        return checkpoint(
            function,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            determinism_check="none",
        )

    return kept_by_inputs


# --- the operators, as their documentation has them ------------------------------------------


def _cond(pred: Any, when: Function, otherwise: Function, operands: Sequence[Any] = ()) -> Any:  # noqa: ANN401
    return _once_more(when if pred else otherwise)(*operands)


def _switch(index: Any, branches: Sequence[Function], operands: Sequence[Any] = ()) -> Any:  # noqa: ANN401
    chosen = max(0, min(int(index), len(branches) - 1))
    return _once_more(branches[chosen])(*operands)


def _while_loop(
    go_on: Function, body: Function, carried: Sequence[Any], more: Sequence[Any] = (), **_: object
) -> Any:  # noqa: ANN401
    first, body = carried, _once_more(body)
    while go_on(*carried, *more):
        carried = body(*carried, *more)
    if carried is first:  # its outputs are never its inputs
        return tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in carried)
    return carried


def _strict_mode(function: Function, operands: Sequence[Any]) -> Any:  # noqa: ANN401
    return _once_more(function)(*operands)


def _map(function: Function, slices: Any, args: Any, **_: object) -> Any:  # noqa: ANN401
    return _kernel("map_impl")(_once_more(function), slices, args)


def _scan(combine: Function, init: Any, slices: Any, args: Any = (), **_: object) -> Any:  # noqa: ANN401
    scan = importlib.import_module("torch._higher_order_ops.scan")
    return scan.generic_scan(_once_more(combine), init, slices, additional_inputs=args)


def _associative_scan(combine: Function, slices: Any, additional_inputs: Any = ()) -> Any:  # noqa: ANN401
    return _kernel("associative_scan")(_once_more(combine), slices, additional_inputs)


def _kernel(name: str) -> Function:
    """What the operator runs on tensors that have memory."""
    kernel: Function = _operators[name].py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd]
    return kernel


_EQUIVALENTS: dict[str, Function] = {
    "associative_scan": _associative_scan,
    "cond": _cond,
    "map_impl": _map,
    "scan": _scan,
    "strict_mode": _strict_mode,
    "switch": _switch,
    "while_loop": _while_loop,
}
