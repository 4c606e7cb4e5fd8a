"""Which parts of a model run compiled by `torch.compile`, and how to run them as Python.

Dynamo compiles again where it sees that a module's ``forward`` was replaced or a mode is on. So
instruments stay outside what is compiled, or the whole model runs as Python for a while.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import CellType, CodeType, FrameType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from layerbench.instruments.control_flow import run_as_python
from layerbench.instruments.replaced import Function, Layer, function_replaced
from layerbench.introspection.modules import modules

COMPILED = "what is compiled by torch.compile runs as one, outside Python"
LOOKED_THROUGH = "what is compiled by torch.compile ran as plain Python here, layer by layer"


def is_compiled(module: nn.Module) -> bool:
    """Whether calling the module runs compiled code: it was compiled, in place or by a wrapper.

    Not while `compilation_off`, or where the user has set that stance.
    """
    if _runs_as_python():
        return False
    wrapped = type(module).__name__ == "OptimizedModule"
    if wrapped or module._compiled_call_impl is not None:
        return True
    # A scripted list of modules has no forward.
    return _is_compiled(getattr(module, "forward", None))


def inside_compiled(model: nn.Module) -> set[int]:
    """Identities of the modules that compiled code runs, which Python does not call."""
    hidden: set[int] = set()
    if _runs_as_python():
        return hidden
    of_class: dict[type, bool] = {}
    for module in modules(model):
        kind = type(module)
        if kind not in of_class:
            of_class[kind] = any(map(_is_compiled, _methods(kind)))
        if of_class[kind] or is_compiled(module):
            hidden.update(id(inner) for inner in modules(module) if inner is not module)
        for name, value in list(module.__dict__.items()):
            if name != "_compiled_call_impl" and _is_compiled(value):
                hidden.update(map(id, _called_by(value._torchdynamo_orig_callable)))
    return hidden


def compiled_with_inside(model: nn.Module) -> set[int]:
    """Identities of the modules that are compiled, and of those that compiled code runs."""
    return inside_compiled(model).union(id(one) for one in modules(model) if is_compiled(one))


def any_compiled(model: nn.Module) -> bool:
    """Whether any part of the model is compiled, as far as its modules show."""
    return bool(compiled_with_inside(model))


def notes_on_compiled(model: nn.Module) -> tuple[str, ...]:
    """One sentence where `compilation_off` makes a difference to the model."""
    return (LOOKED_THROUGH,) if any_compiled(model) else ()


def original(model: nn.Module) -> nn.Module:
    """The model beneath `torch.compile`'s wrapper; any other model itself."""
    while type(model).__name__ == "OptimizedModule":
        model = model._modules["_orig_mod"]  # type: ignore[assignment]
    return model


@contextmanager
def compilation_off() -> Iterator[set[str]]:
    """Run everything as Python for the duration of a ``with`` block; nothing compiled is lost.

    Yields:
        the operators that have run their functions in training, see
        `layerbench.instruments.control_flow`.
    """
    with _stance_of_python(), run_as_python() as trained:
        yield trained


def _stance_of_python() -> AbstractContextManager[object]:
    if _dynamo() is None:
        return nullcontext()
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        return _frames_as_python()
    stance: AbstractContextManager[object] = set_stance("force_eager")
    return stance


@contextmanager
def _frames_as_python() -> Iterator[None]:
    """What the stance ``force_eager`` does, in PyTorch before 2.6: Dynamo looks at no frame."""

    def made(layer: Layer) -> Function:
        def set_none(callback: Any) -> Any:  # noqa: ANN401 - as the function does
            return layer.beneath(None if callable(callback) else callback)

        return set_none

    with function_replaced(_dynamo().eval_frame, "set_eval_frame", made):
        _AS_PYTHON.append(made)
        try:
            yield
        finally:
            _AS_PYTHON.remove(made)


_AS_PYTHON: list[Callable[..., Any]] = []


Entered = Callable[[list[nn.Module]], None]
"""Hears that compiled code begins, and which modules it was given, with all that are in them."""


@contextmanager
def entry_noticed(entered: Entered) -> Iterator[None]:
    """Say so before compiled code runs in this thread, while a ``with`` block runs.

    Operators that take functions, such as ``torch.cond`` and ``flex_attention``, compile inside.
    """
    thread = threading.get_ident()
    # Dynamo keeps what it finds as `torch.compile` for good: after the block that leads nowhere.
    listening = [entered]

    def notice(frame: FrameType) -> None:
        if threading.get_ident() == thread and not _runs_as_python():
            for one in listening:
                one(_given_to(frame))

    places: list[tuple[Any, str, Callable[[Notice, Layer], Function]]] = [
        (torch, "compile", _before)
    ]
    frames = getattr(_dynamo(), "eval_frame", None)
    if hasattr(frames, "set_eval_frame") and hasattr(frames, "skip_code"):
        places.append((frames, "set_eval_frame", _as_dynamo_steps_aside))
    with ExitStack() as replaced:
        replaced.callback(listening.clear)
        for place, name, noticing in places:
            replaced.enter_context(function_replaced(place, name, partial(noticing, notice)))
        yield


Notice = Callable[[FrameType], None]
# What Dynamo's wrapper is called: by a newer PyTorch, and by an older one.
_WRAPPERS = ("compile_wrapper", "_fn")
# What that calls the callback that was there before it: it has a value once it has begun.
_BEFORE = "prior"


def _before(notice: Notice, layer: Layer) -> Function:
    def noticed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function does
        notice(sys._getframe(1))
        return layer.beneath(*args, **kwargs)

    return noticed


def _as_dynamo_steps_aside(notice: Notice, layer: Layer) -> Function:
    """Dynamo's wrapper begins by stepping aside, so that nothing it does itself is traced.

    In an older PyTorch, such as 2.4, it begins by stepping in. There it is made to step aside for
    the notice.
    """
    frames = _dynamo().eval_frame
    compiling = _code_in(frames._TorchDynamoContext.__call__)
    # The wrapper of functions that must not be compiled, such as checkpointing.
    leaving_alone = _code_in(frames.DisableContext.__call__)
    passing_on = _passing_on()

    def noticed(callback: Any) -> Any:  # noqa: ANN401 - as the function does
        frame = _not_of_ours(sys._getframe(1))
        code = None if frame is None else frame.f_code
        steps_in = callable(callback) and code in compiling
        if code is passing_on or (callback is not None and not steps_in):
            return layer.beneath(callback)
        earlier = layer.beneath(None)
        if frame is not None and not callable(earlier) and code not in leaving_alone:
            notice(frame)
        if steps_in:
            layer.beneath(callback)
        return earlier

    # They also run while Dynamo is on, which would trace them.
    for ours in (noticed, _not_of_ours):
        frames.skip_code(ours.__code__)
    return noticed


Around = Callable[[Any, list[nn.Module]], AbstractContextManager[object]]
"""Makes what is entered around a call: gets the function, and the modules that it leads to."""


@contextmanager
def around_compiled(around: Around) -> Iterator[None]:
    """Enter something around each call of a compiled function, while a ``with`` block runs.

    It is entered before Dynamo asks its guards, and left after the function has ended: whatever is
    lifted off a model meanwhile is neither guarded nor traced. Calls within others count as parts
    of them. Where Dynamo is not as it is known here, nothing is entered.
    """
    listening = [around]
    if _dynamo() is not None:
        with _entering_around(listening):
            yield
        return
    # It takes a second to load, which only `torch.compile` does.
    with ExitStack() as later:
        later_on: list[None] = []

        def made(layer: Layer) -> Function:
            def loading(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function does
                if listening and not later_on:
                    importlib.import_module("torch._dynamo")
                    later_on.append(later.enter_context(_entering_around(listening)))
                return layer.beneath(*args, **kwargs)

            return loading

        later.callback(listening.clear)
        later.enter_context(function_replaced(torch, "compile", made))
        yield


@contextmanager
def _entering_around(listening: list[Around]) -> Iterator[None]:
    frames = _dynamo().eval_frame
    wrappers = {
        code
        for code in _code_in(frames._TorchDynamoContext.__call__)
        if code.co_name in _WRAPPERS and _BEFORE in code.co_varnames
    }
    passing_on = _passing_on()
    open_: dict[FrameType, ExitStack] = {}

    def made(layer: Layer) -> Function:
        def entering(callback: Any) -> Any:  # noqa: ANN401 - as the function does
            frame = sys._getframe(1)
            while frame.f_back is not None and (
                frame.f_code is passing_on or frame.f_globals.get("__name__") == __name__
            ):
                frame = frame.f_back
            if frame.f_code not in wrappers:
                return layer.beneath(callback)
            if _BEFORE in frame.f_locals:
                earlier = layer.beneath(callback)
                if not callable(callback) and frame in open_:
                    open_.pop(frame).close()
                return earlier
            earlier = layer.beneath(None)
            if not callable(earlier):
                open_[frame] = ExitStack()
                wrapped = frame.f_locals.get("fn")
                leading_to = [*_given_to(frame), *_mentioned(wrapped)]
                for one in listening:
                    open_[frame].enter_context(one(wrapped, leading_to))
            if callable(callback):
                layer.beneath(callback)
            return earlier

        frames.skip_code(entering.__code__)  # it also runs while Dynamo is on, which would trace it
        return entering

    with ExitStack() as replaced:
        replaced.callback(listening.clear)
        replaced.enter_context(function_replaced(frames, "set_eval_frame", made))
        yield


def _passing_on() -> CodeType | None:
    """The code of what a wrapper calls `set_eval_frame` by, once it has stepped aside itself."""
    function = getattr(_dynamo().eval_frame, "_maybe_set_eval_frame", None)
    code: CodeType | None = getattr(function, "__code__", None)
    return code


def _code_in(function: Callable[..., Any]) -> set[CodeType]:
    """The code of the functions that a function makes."""
    waiting = [function.__code__]
    made: set[CodeType] = set()
    while waiting:
        inner = [one for one in waiting.pop().co_consts if isinstance(one, CodeType)]
        made.update(inner)
        waiting += inner
    return made


def _not_of_ours(frame: FrameType | None) -> FrameType | None:
    """The frame, or the first around it that is not of this module, where two of us listen."""
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame


def _given_to(frame: FrameType) -> list[nn.Module]:
    """The modules that Dynamo's wrapper, whose frame this is, hands to what it compiled."""
    there = _locals_of_wrapper(frame)
    function, args, kwargs = (there.get(name) for name in ("fn", "args", "kwargs"))
    arguments = [*(args or ()), *(kwargs or {}).values()]
    reached = [inner for one in arguments if isinstance(one, nn.Module) for inner in modules(one)]
    if arguments and _is_method_of(function, arguments[0]):
        reached = [module for module in reached if module is not arguments[0]]
    return [*reached, *_called_by(function)]


def _locals_of_wrapper(frame: FrameType | None) -> dict[str, Any]:
    frame = _not_of_ours(frame)
    if frame is None or frame.f_code.co_name not in _WRAPPERS:
        return {}
    return frame.f_locals


def _is_method_of(function: Any, owner: object) -> bool:  # noqa: ANN401 - any function
    name = getattr(function, "__name__", "")
    return any(
        getattr(vars(base).get(name), "_torchdynamo_orig_callable", None) is function
        for base in type(owner).__mro__
    )


def _dynamo() -> Any:  # noqa: ANN401 - the module, which takes a second to load
    """Where it is not loaded, nothing has been compiled."""
    return sys.modules.get("torch._dynamo")


def _runs_as_python() -> bool:
    if _AS_PYTHON:
        return True
    dynamo = _dynamo()
    stance = getattr(getattr(dynamo, "eval_frame", None), "_stance", None)
    return getattr(stance, "stance", "default") == "force_eager"


def _is_compiled(value: object) -> bool:
    """Whether it is a function that `torch.compile` made, or a method of a class made so."""
    if type(value) not in (FunctionType, MethodType):
        return False
    made_by_dynamo = getattr(value, "_torchdynamo_orig_callable", None) is not None
    return made_by_dynamo and not getattr(value, "_torchdynamo_disable", False)


def _methods(kind: type) -> Iterator[object]:
    for base in kind.__mro__:
        if base is nn.Module:
            return
        yield from vars(base).values()


def _called_by(function: Any) -> Iterator[nn.Module]:  # noqa: ANN401 - any function
    """The modules that a function calls, as far as it tells."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        name = getattr(function, "__name__", "")
        in_place = name == "_call_impl" and owner._compiled_call_impl is not None
        # What calls it is outside.
        itself = owner if name == "forward" or in_place else None
        yield from (inner for inner in modules(owner) if inner is not itself)
    for cell in getattr(function, "__closure__", None) or ():
        captured = _content(cell)
        if isinstance(captured, nn.Module):
            yield from modules(captured)


def _mentioned(function: Any) -> Iterator[nn.Module]:  # noqa: ANN401 - any function
    """The modules that a function names: global ones, and its own object's."""
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    there = getattr(function, "__globals__", {})
    owned = getattr(getattr(function, "__self__", None), "__dict__", {})
    for name in names:
        for value in (there.get(name), owned.get(name)):
            if isinstance(value, nn.Module):
                yield from modules(value)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def is_traced() -> bool:
    """Whether PyTorch is tracing or compiling what runs now, which must not see an instrument."""
    return torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()
