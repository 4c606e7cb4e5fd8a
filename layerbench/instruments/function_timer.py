"""Time of the functions that composite modules run themselves: an add, a pooling, attention.

A pass of its own, because seeing the functions costs more than timing the modules.
`torch.overrides.TorchFunctionMode` sees them by the names their author wrote; where its mere
presence would switch a fused path off, a dispatch mode names the operators instead
(docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from threading import get_ident
from typing import Any

from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.overrides import TorchFunctionMode

from layerbench.environment.devices.clocks import Clock
from layerbench.instruments.attach import Attachment, Replacement, function_at, usual_place
from layerbench.instruments.compiled import is_compiled
from layerbench.instruments.modes import ModeSwitch, OperatorMode
from layerbench.instruments.modules import Call, ModuleFacts, modules_at, shapes_of
from layerbench.introspection.nested import has_tensor
from layerbench.records.bounds import Shape
from layerbench.records.workload import Frozen

# These ask torch.overrides.has_torch_function before they take their fused path; any function
# mode makes the answer yes.
GUARDED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class FunctionFacts(Frozen):
    """A function in a module: all its calls there in one forward, shapes of the first.

    Attributes:
        module: path of the module that runs it.
        order: of its first call, on one count with the modules' first calls.
    """

    module: str
    name: str
    order: int
    calls: int
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class FunctionForward:
    """One forward of the functions' pass.

    Attributes:
        facts: a row for each (module, name), in order of first call.
        times_ns: nanoseconds, in the order of ``facts``.
        module_order: first call of each module that ran, on one count with the functions'.
        unseen: why functions were not seen up to the end; empty where they were.
    """

    facts: tuple[FunctionFacts, ...]
    times_ns: tuple[int, ...]
    module_order: dict[str, int]
    unseen: str = ""


@dataclass
class _Tally:
    """The calls and times of one function in one module during the forward."""

    order: int
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    spans: list[tuple[int, int]]


def function_name(function: Callable[..., Any]) -> str:
    """The name an author would recognise: ``add`` for ``+``, ``add_`` for ``+=``."""
    name = getattr(function, "__name__", type(function).__name__)
    if name in ("__get__", "__set__"):
        return str(getattr(getattr(function, "__self__", None), "__name__", name.strip("_")))
    if name.startswith("__") and name.endswith("__"):
        bare = name[2:-2]
        if bare.startswith("i") and bare[1:] in _IN_PLACE:
            return bare[1:] + "_"
        if bare.startswith("r") and bare[1:] in _IN_PLACE:
            return bare[1:]
        return bare
    return str(name).partition(".")[0]


_IN_PLACE = frozenset({"add", "sub", "mul", "truediv", "floordiv", "matmul", "pow", "mod"})


class FunctionTimer:
    """Times functions under the module that runs them.

    Every module is followed, whatever gets rows: a function belongs to the innermost one.

    Args:
        model: any module.
        facts: its modules.
        with_rows: paths of the modules whose own functions are timed.
        clock: where marks come from.
    """

    def __init__(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        with_rows: frozenset[str],
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._mark = clock.mark
        self._marks = 0  # of a forward
        self._with_rows = with_rows
        self._running: list[str] = []
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._module_order: dict[str, int] = {}
        self._modes = ModeSwitch(_FunctionMode(self), _OperatorMode(self))
        self._thread = get_ident()
        self._around_root = self._modes_around(model)
        reachable = [fact.path for fact in facts if fact.reachable and fact.path]
        self._attachment = Attachment(
            self._followed(module, path) for path, module in modules_at(model, reachable).items()
        )

    def _modes_around(self, module: nn.Module) -> Callable[[], AbstractContextManager[None]]:
        """The modes that are active while the module runs."""
        if is_compiled(module):
            return self._modes.off
        return self._modes.operators if isinstance(module, GUARDED) else nullcontext

    def _followed(self, module: nn.Module, path: str) -> Replacement:
        place = usual_place(module)
        original = function_at(module, place)
        around = self._modes_around(module)

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or get_ident() != self._thread:
                return original(*args, **kwargs)
            self._module_order.setdefault(path, self._next_order())
            self._running.append(path)
            try:
                if around is nullcontext:
                    return original(*args, **kwargs)
                with around():
                    return original(*args, **kwargs)
            finally:
                self._running.pop()

        return module, place, forward

    def _next_order(self) -> int:
        return len(self._module_order) + len(self._tallies)

    def timed_function(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        """Run one function, and note it if its module has rows and it gives or fills a tensor."""
        module = self._running[-1]
        if module not in self._with_rows:
            return function(*args, **kwargs)
        tally = self._tallies.get((module, name))
        came_in = shapes_of((args, kwargs)) if tally is None else ()
        start = self._mark()
        output = function(*args, **kwargs)
        end = self._mark()
        # Questions (size, dim, is_cuda) are asked through the same door; they give no tensor.
        if name == "setitem" or has_tensor(output):
            tally = tally or self._tallies.get((module, name))
            if tally is None:
                tally = self._tallies[module, name] = _Tally(
                    self._next_order(), came_in, shapes_of((output,)), []
                )
            tally.spans.append((start, end))
        return output

    def run(self, call: Call, release: bool = True) -> FunctionForward:
        """Run one forward of the whole model with the functions timed.

        Whatever the model raises passes through; the model is left as it was.

        Args:
            call: the forward.
            release: give the clock's marks back; not where another instrument holds some.
        """
        self._tallies.clear()
        self._module_order = {"": 0}
        self._running = [""]
        self._thread = get_ident()
        self._clock.reserve(self._marks)
        with self._attachment.attached(), self._modes.on(), self._around_root():
            call()
        self._marks = 2 * sum(len(tally.spans) for tally in self._tallies.values())
        self._clock.synchronize()
        try:
            return self._result()
        finally:
            if release:
                self._clock.release()

    def _result(self) -> FunctionForward:
        return FunctionForward(
            facts=tuple(
                FunctionFacts(
                    module=module,
                    name=name,
                    order=tally.order,
                    calls=len(tally.spans),
                    input_shapes=tally.input_shapes,
                    output_shapes=tally.output_shapes,
                )
                for (module, name), tally in self._tallies.items()
            ),
            times_ns=tuple(self._total_ns(tally.spans) for tally in self._tallies.values()),
            module_order=dict(self._module_order),
            unseen=self._modes.unseen,
        )

    def _total_ns(self, spans: list[tuple[int, int]]) -> int:
        positions = self._clock.resolve([mark for span in spans for mark in span])
        return sum(positions[1::2]) - sum(positions[::2])


class _FunctionMode(TorchFunctionMode):
    def __init__(self, timer: FunctionTimer) -> None:
        super().__init__()
        self._timer = timer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function returns
        del types
        return self._timer.timed_function(function_name(func), func, args, kwargs or {})


class _OperatorMode(OperatorMode):
    def __init__(self, timer: FunctionTimer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._timer = timer

    def operator(self, func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:  # noqa: ANN401
        name = func.overloadpacket.__name__
        return self._timer.timed_function(name, func, args, keywords)
