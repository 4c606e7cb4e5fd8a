"""A model's modules, and their calls, order and shapes in one forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling

from layerbench.errors import UsageError, first_line
from layerbench.instruments.attach import Attachment, Forward, Replacement, function_at, usual_place
from layerbench.instruments.calls import CallTree
from layerbench.instruments.closures import calls_stood_for
from layerbench.instruments.compiled import entry_noticed, inside_compiled, is_compiled
from layerbench.instruments.holdings import Holdings
from layerbench.instruments.module_tracker import RunningModule
from layerbench.instruments.overlay import Overlay
from layerbench.instruments.threads import Carrier
from layerbench.introspection.iterators import iterator_in, notes_on_iterators
from layerbench.introspection.modules import children, modules, named_modules
from layerbench.introspection.nested import tensors_in
from layerbench.introspection.tensors import bytes_of, elements_of, shape_of
from layerbench.records.bounds import Shape
from layerbench.records.tree import depth_of
from layerbench.records.workload import Frozen

if TYPE_CHECKING:
    from layerbench.instruments.data_flow import DataFlow


class ModuleFacts(Frozen):
    """A module as it stands in the tree, before anything runs.

    Attributes:
        path: qualified name, ``""`` for the model itself.
        aliases: other names of the same instance.
        parameters: elements of the parameters in it and below, shared ones counted once.
        shared: those of them that also lie in modules outside it.
        composite: whether it has submodules.
        reachable: whether its calls can be seen; the inside of a scripted or compiled module runs
            outside Python.
    """

    path: str
    type: str
    depth: int
    aliases: tuple[str, ...]
    parameters: int
    shared: int
    composite: bool
    reachable: bool


@dataclass(slots=True)
class CallFacts:
    """What one forward showed of a module: its calls and the shapes of the first one.

    Attributes:
        order: of its first call among all modules.
        output_bytes: of the tensors that the first one returned.
        direct: whether its ``forward`` was called by name, and not the module itself.
    """

    order: int
    calls: int
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    output_bytes: int = 0
    direct: bool = False


class ObservedCalls(dict[str, CallFacts]):
    """What one forward showed: facts by path, of the modules that ran.

    Attributes:
        calls: which calls were made within which.
    """

    def __init__(self, calls: CallTree | None = None) -> None:
        super().__init__()
        self.calls = calls or CallTree()


def named_instances(model: nn.Module) -> dict[str, nn.Module]:
    """Every module instance once, by its first name, in tree order; ``""`` is the model."""
    return dict(named_modules(model))


def module_facts(model: nn.Module) -> tuple[ModuleFacts, ...]:
    """The static facts of every module, in the order of `named_instances`."""
    names: dict[int, list[str]] = {}
    for path, module in named_modules(model, remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    hidden = _hidden(model)
    held = Holdings(model, "_parameters")
    elements = held.sums(elements_of)
    shared = held.shared(elements_of)
    return tuple(
        ModuleFacts(
            path=path,
            type=type_name(module),
            depth=depth_of(path),
            aliases=tuple(names[id(module)][1:]),
            parameters=elements[number],
            shared=shared[number],
            composite=any(True for _ in children(module)),
            reachable=id(module) not in hidden,
        )
        for number, (path, module) in enumerate(named_instances(model).items())
    )


def without_reach(
    facts: tuple[ModuleFacts, ...], model: nn.Module, hidden: set[int]
) -> tuple[ModuleFacts, ...]:
    """The facts, where modules of these identities were found to run outside Python."""
    if not hidden:
        return facts
    there = named_instances(model)
    return tuple(
        fact.model_copy(update={"reachable": False}) if id(there.get(fact.path)) in hidden else fact
        for fact in facts
    )


def type_name(module: nn.Module) -> str:
    """The class name; for a scripted module, the name of its original class."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(getattr(module, "original_name", type(module).__name__))
    return type(module).__name__


def _hidden(model: nn.Module) -> set[int]:
    """Modules below a scripted or compiled module: they are not called through Python."""
    scripted = {
        id(inner)
        for outer in modules(model)
        if isinstance(outer, torch.jit.ScriptModule)
        for inner in modules(outer)
        if inner is not outer
    }
    return scripted | inside_compiled(model)


def shapes_of(values: object) -> tuple[Shape, ...]:
    """Shapes of the tensors in ``values``."""
    try:
        return tuple(shape_of(tensor) for tensor in tensors_in(values))
    except Exception:  # a container of the user's own that cannot be read twice
        return ()


def _bytes_in(values: object) -> int:
    try:
        return sum(bytes_of(tensor) for tensor in tensors_in(values))
    except Exception:
        return 0


class CallObserver:
    """Runs one forward and notes for every module its order, calls and shapes.

    It is also where a model that does not take its input is found out: the innermost module
    that raised is named, with the shapes that came in.

    Args:
        model: what will run.
        facts: of its modules; those that are not reachable are not observed.
        running: told of each call's beginning and end.
        shapes: whether shapes and bytes are noted, too; who counts calls alone needs none.
        flow: told of each call, what it takes and what it gives.

    Attributes:
        compiled: identities of the modules that were found to run inside compiled code.
        in_threads: paths of those called in threads that the forward started.
        notes: what a reader should know of the model's output.
    """

    def __init__(
        self,
        model: nn.Module,
        facts: Sequence[ModuleFacts],
        running: RunningModule | None = None,
        *,
        shapes: bool = True,
        flow: DataFlow | None = None,
    ) -> None:
        self._shapes = shapes
        self._flow = flow
        # Whether the next call of the model is the one that is noted around it.
        self._is_noted = False
        self._running = running or RunningModule(model)
        self._seen = ObservedCalls(self._running.calls)
        self._order = 0
        self._failure: tuple[str, str, tuple[Shape, ...]] | None = None
        instances = named_instances(model)
        self._attachment = Attachment(
            self._observed(instances[fact.path], fact)
            for fact in facts
            if fact.reachable and (fact.path or not is_compiled(model))
        )
        self._root = facts[0]
        self._fact_of = {fact.path: fact for fact in facts}
        self.compiled: set[int] = set()
        self.in_threads: set[str] = set()
        self.notes: tuple[str, ...] = ()
        self._carrier: Carrier | None = None

    def _compiled_code_begins(self, reached: list[nn.Module]) -> None:
        """It would be compiled again with something of ours on its modules."""
        self.compiled.update(map(id, reached))
        for module in reached:
            Overlay.give_up(module)

    def _observed(self, module: nn.Module, fact: ModuleFacts) -> Replacement:
        place = usual_place(module)
        original = function_at(module, place)

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            if is_dynamo_compiling() or not calls_stood_for():
                return original(*args, **kwargs)
            if self._is_noted and not fact.path:
                self._is_noted = False
                return original(*args, **kwargs)
            direct = _called_directly()
            if self._carrier is None or not self._carrier.is_elsewhere():
                return self._observe(original, fact, args, kwargs, direct)
            self.in_threads.add(fact.path)
            with self._carrier.present():
                return self._observe(original, fact, args, kwargs, direct)

        return module, place, forward

    def _observe(
        self,
        original: Forward,
        fact: ModuleFacts,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        direct: bool = False,
    ) -> Any:  # noqa: ANN401 - whatever the module returns
        order, self._order = self._order, self._order + 1
        # Before the call: an in-place module or a container emptied by it would hide what came in.
        came_in = shapes_of((args, kwargs)) if self._shapes else ()
        self._running.entered(fact.path)
        if self._flow is not None:
            self._flow.entered(fact.path, (args, kwargs))
        output = None
        try:
            output = original(*args, **kwargs)
            self._failure = None  # what was raised meanwhile, the model has dealt with
        except Exception:
            self._failure = self._failure or (fact.path, fact.type, came_in)
            raise
        finally:
            self._running.left()
            if self._flow is not None:
                self._flow.left(output)
            self._note(fact, order, came_in, output, direct)
        return output

    def _note(
        self,
        fact: ModuleFacts,
        order: int,
        came_in: tuple[Shape, ...],
        output: Any,  # noqa: ANN401 - whatever the module returned, None where it raised
        direct: bool,
    ) -> None:
        facts = self._seen.get(fact.path)
        # The first call of a module that calls itself is the last to end.
        if facts is None or order < facts.order:
            facts = self._seen[fact.path] = CallFacts(
                order=order,
                calls=facts.calls if facts else 0,
                input_shapes=came_in,
                output_shapes=shapes_of((output,)) if self._shapes else (),
                output_bytes=_bytes_in((output,)) if self._shapes else 0,
                direct=facts.direct if facts else False,
            )
        facts.calls += calls_stood_for()
        facts.direct = facts.direct or direct

    def observe(
        self,
        forward: Forward,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        within: bool = False,
    ) -> ObservedCalls:
        """Run the whole model's forward once.

        Args:
            forward: the model, or what calls it.
            args, kwargs: what it gets.
            within: whether the model's call has begun, and ``forward`` is what it runs.

        Returns:
            facts by path; a module that did not run has no entry. Whatever the model raises
            passes through, and `explain` then says where.
        """
        self._seen, self._order, self._failure = ObservedCalls(self._running.calls), 0, None

        self._is_noted = not within

        def carried(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for the forward
            self._carrier = Carrier(self._running)
            with self._carrier.attached():
                return forward(*args, **kwargs)

        with self._attachment.attached(), entry_noticed(self._compiled_code_begins):
            output = self._observe(carried, self._root, args, kwargs)
        self.notes = notes_on_iterators(iterator_in(output, unread=True))
        return self._seen

    def of_module(self, path: str, forward: Forward) -> Forward:
        """What `observe` may run in the model's place: one module, whose call has begun."""

        def noted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the module
            return self._observe(forward, self._fact_of[path], args, kwargs)

        return noted

    def explain(self, error: Exception) -> str:
        """One line that says in which module ``error`` arose and what had come in."""
        _, _, came_in = self._failed()
        shapes = ", ".join(str(list(shape)) for shape in came_in) or "no tensor"
        return f"the forward failed in {self.where_it_failed}, given {shapes}: {first_line(error)}"

    @property
    def where_it_failed(self) -> str:
        """The module in which the last forward raised, such as ``Linear at head``."""
        path, kind, _ = self._failed()
        return f"{kind} at {path}" if path else kind

    def _failed(self) -> tuple[str, str, tuple[Shape, ...]]:
        return self._failure or ("", self._root.type, ())


# What runs a module's forward where the module itself is called.
_CALLS = (nn.Module._call_impl.__code__, nn.Module._wrapped_call_impl.__code__)


def _called_directly() -> bool:
    """Whether the wrapped forward above was called by name; our own frames do not count."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("layerbench."):
        frame = frame.f_back
    return frame is None or frame.f_code not in _CALLS


def modules_at(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """The instances at these paths, in tree order."""
    wanted = set(paths)
    return {path: module for path, module in named_instances(model).items() if path in wanted}


def checked_module(model: object) -> nn.Module:
    """The same, if it is one.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"a {type(model).__name__} is no torch.nn.Module: give the one that runs")
    return model


def has_no_forward(module: nn.Module) -> bool:
    """Whether it only holds others, as a ``ModuleList`` does."""
    of_class = inspect.getattr_static(type(module), "forward")
    return of_class is nn.Module.forward and "forward" not in module.__dict__


Call = Callable[[], Any]
"""One forward of the whole model, arguments bound."""
