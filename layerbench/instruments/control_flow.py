"""Operators that run functions, such as `torch.cond` and `torch.while_loop`, without compilation.

In plain PyTorch they compile themselves when they are called, and so find the tensors that their
functions close over. With compilation off they do not, and those would get no gradient. So these
are found here, and go into the operator as arguments: what it keeps for the backward, and makes
there, is then its own. Where they cannot be found, and where no gradient is wanted, it runs as what
its documentation says it is equivalent to.

Known limitation: where it ran so in training, what the operator itself makes in its backward
(zeros as the gradients of functions that did not run) is not made, and a note says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch._higher_order_ops import utils as _utils
from torch._ops import HigherOrderOperator
from torch._ops import _higher_order_ops as _operators
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule
from torch.fx.experimental import proxy_tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.checkpoint import _StopRecomputationError, checkpoint

from layerbench.instruments.closures import Function, closed_over, with_closures
from layerbench.instruments.replaced import function_replaced


@contextmanager
def run_as_python() -> Iterator[set[str]]:
    """Let these operators run without being compiled, while a ``with`` block runs.

    Yields:
        the names of those that have run as plain Python while gradients were on.
    """
    run = _Run()
    with ExitStack() as replaced:
        # An older PyTorch has one of these or none: what compiles there is `torch.compile`, which
        # is off, and no gradient goes through the operators.
        if hasattr(_utils, "_hop_compile_and_call"):
            replaced.enter_context(_replaced(_utils, "_hop_compile_and_call", run.called_by_model))
        if hasattr(_utils, "_maybe_reenter_make_fx"):
            traced = run.traced(_utils._maybe_reenter_make_fx)
            replaced.enter_context(_replaced(_utils, "_maybe_reenter_make_fx", traced))
        for name, kind in _KINDS.items():
            operator = _operators.get(name)
            if operator is not None and type(operator) is not HigherOrderOperator:
                owner = type(operator)
                instead = run.called_instead(str(name), kind, owner.__call__)
                replaced.enter_context(_replaced(owner, "__call__", instead))
        yield run.trained


def notes_on_trained(names: Collection[str]) -> tuple[str, ...]:
    """One sentence on operators that `run_as_python` has run as Python in training."""
    if not names:
        return ()
    return (
        f"{', '.join(sorted(names))} ran as plain Python: gradients that the operator makes "
        "besides (zeros for a function that did not run, one for each step) are not counted",
    )


def _replaced(owner: Any, name: str, instead: Function) -> AbstractContextManager[None]:  # noqa: ANN401
    return function_replaced(owner, name, lambda _: instead)


_caller: ContextVar[Literal["torch", "model", "shapes"]] = ContextVar("caller", default="torch")
"""Who calls an operator: PyTorch, from inside another; the model; or the operator's own rule for
tensors without values, which the model called."""


class _Run:
    """What happens to the operators while they are not compiled.

    Attributes:
        trained: the names of those that have run as plain Python while gradients were on.
    """

    def __init__(self) -> None:
        self.trained: set[str] = set()
        self._modes: list[Any] = []

    def called_by_model(self, function: Function, args: Any, kwargs: Any = None) -> Any:  # noqa: ANN401
        """Call what PyTorch would compile and call: an operator, as a model asks for it."""
        with _called_by("model"):
            return function(*args, **(kwargs or {}))

    def traced(self, original: Function) -> Function:
        """What traces a function; it gets examples of its arguments, which take as much memory."""

        def traced(function: Function, **kwargs: Any) -> Function:  # noqa: ANN401 - the tracer's
            trace = original(function, **kwargs)
            inside = _is_traced()

            def with_examples(*examples: Any) -> Any:  # noqa: ANN401 - as the tracer's
                seen = [] if inside else self._seen(examples)
                try:
                    return trace(*examples)
                finally:
                    seen.clear()

            return with_examples

        return traced

    def _seen(self, examples: Sequence[Any]) -> list[torch.Tensor]:
        """Tensors as large, which the modes see: they are off where the examples are made."""
        with ExitStack() as modes:
            for mode in self._modes:
                modes.enter_context(mode)
            return [torch.empty_like(one) for one in examples if isinstance(one, torch.Tensor)]

    def called_instead(self, name: str, kind: _Kind, original: Function) -> Function:
        """What is called in the place of an operator's own ``__call__``."""

        @wraps(original)
        def called(itself: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the operator's
            operator, caller = partial(original, itself), _caller.get()
            if caller == "model":
                call = _Call(kind, args)
                with _called_by("torch"):
                    return call.restored(self._run(name, operator, call, kwargs))
            its_own = caller == "shapes" or _is_its_own_affair(args)
            return (operator if its_own else kind.run)(*args, **kwargs)

        return called

    def _run(self, name: str, operator: Function, call: _Call, kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if torch.is_grad_enabled():
            if not _is_traced():
                self._modes = [*_get_current_dispatch_mode_stack()]
            try:
                return operator(*call.lifted(), **kwargs)
            except _StopRecomputationError:  # a checkpoint around it has what it needs
                raise
            except Exception:  # where it is not because of us, the equivalent raises it, too
                self.trained.add(name.removesuffix("_impl"))
        elif call.kind.rules and call.has_fake():
            with _called_by("shapes"):
                return operator(*call.args, **kwargs)
        return call.kind.run(*call.args, **kwargs)


@contextmanager
def _called_by(caller: Literal["torch", "model", "shapes"]) -> Iterator[None]:
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def _is_its_own_affair(args: object) -> bool:
    """Whether an operator is recorded, transformed or differentiated."""
    if _is_traced() or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch.is_grad_enabled() and any(
        isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in tree_leaves(args)
    )


def _is_traced() -> bool:
    """Whether what runs is recorded, also where the recorder steps aside for a while."""
    return proxy_tensor._CURRENT_MAKE_FX_TRACER is not None


def _no_call(*_: object) -> int:
    return 0


@dataclass(frozen=True)
class _Kind:
    """An operator that runs functions; its last argument is a sequence of more arguments of theirs.

    Attributes:
        run: what its documentation says it is equivalent to.
        example: the functions' arguments, made of the operator's that are no functions.
        calls: as often as its forward runs what it has made of a function, and not that.
        predicate: whether the first function says whether to go on.
        rules: whether it has its own way on tensors without values.
    """

    run: Function
    example: Function
    calls: Function = _no_call
    predicate: bool = False
    rules: bool = True


class _Call:
    """One call of an operator, whose functions return flat tuples, as they do when compiled.

    Attributes:
        kind: of the operator.
        args: the operator's.
    """

    def __init__(self, kind: _Kind, args: tuple[Any, ...]) -> None:
        *head, operands = args
        self.kind = kind
        self._inputs = [arg for arg in head if not any(map(callable, tree_leaves(arg)))]
        self._operands, nest = tree_flatten(tuple(operands))
        self._form = _Form(nest, head[0] if kind.predicate else None)
        self._head = _functions_replaced(self._form.flat, head)
        self.args = (*self._head, tuple(self._operands))

    def lifted(self) -> tuple[Any, ...]:
        """The arguments, among them the tensors that the functions close over."""
        functions = [leaf for leaf in tree_leaves(self._head) if callable(leaf)]
        if all(isinstance(function, GraphModule) for function in functions):
            return self.args
        operands = (*self._inputs, self._operands)
        calls = self.kind.calls(*operands)
        closures = closed_over(functions, operands, self.kind.example, calls)
        head = _functions_replaced(lambda function: with_closures(function, closures), self._head)
        return (*head, (*self._operands, *closures))

    def has_fake(self) -> bool:
        """Whether it is made on tensors without values."""
        return any(isinstance(leaf, FakeTensor) for leaf in tree_leaves(self.args))

    def restored(self, output: Any) -> Any:  # noqa: ANN401 - whatever the functions return
        """The operator's output, in the form in which the functions returned theirs."""
        returned = self._form.returned
        return output if returned is None else tree_unflatten(tree_leaves(output), returned)


class _Form:
    """In which form functions take their last arguments, and return what they do.

    A function may live as long as the graph of the backward. So it holds this, and no tensor.
    """

    def __init__(self, nest: TreeSpec, predicate: Function | None) -> None:
        self.returned: TreeSpec | None = None
        self._nest = nest
        self._predicate = predicate

    def flat(self, function: Function) -> Function:
        """The function, which takes leaves and returns a tuple of leaves."""
        if isinstance(function, GraphModule):  # as the operator makes them
            return function

        def flat(*args: Any) -> Any:  # noqa: ANN401 - whatever it returns
            own = len(args) - self._nest.num_leaves
            output = function(*args[:own], *tree_unflatten(args[own:], self._nest))
            if function is self._predicate:
                return output
            leaves, self.returned = tree_flatten(output)
            return tuple(leaves)

        return flat


def _functions_replaced(replaced: Callable[[Function], Function], args: Any) -> Any:  # noqa: ANN401
    return tree_map(lambda value: replaced(value) if callable(value) else value, args)


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


def _while_loop(go_on: Function, body: Function, *args: Any, **_: object) -> Any:  # noqa: ANN401
    return _kernel("while_loop")(go_on, _once_more(body), *args)


def _all_of_while_loop(go_on: Function, body: Function, *args: Any, **_: object) -> Any:  # noqa: ANN401
    return _kernel("while_loop_stack_output")(go_on, body, *args)


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


def _first_of(slices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor[0] for tensor in slices]


_KINDS: dict[str, _Kind] = {
    "associative_scan": _Kind(
        _associative_scan, lambda xs, more: (*_first_of(xs), *_first_of(xs), *more)
    ),
    "cond": _Kind(_cond, lambda *operands: operands[-1]),
    "map_impl": _Kind(_map, lambda xs, more: (*_first_of(xs), *more), rules=False),
    "scan": _Kind(
        _scan,
        lambda init, xs, more: (*init, *_first_of(xs), *more),
        calls=lambda *operands: len(operands[1][0]),
        rules=False,
    ),
    "strict_mode": _Kind(_strict_mode, lambda operands: operands),
    "switch": _Kind(_switch, lambda *operands: operands[-1]),
    "while_loop": _Kind(_while_loop, lambda carried, more: (*carried, *more), predicate=True),
    "while_loop_stack_output": _Kind(
        _all_of_while_loop, lambda carried, more: (*carried, *more), predicate=True
    ),
}
