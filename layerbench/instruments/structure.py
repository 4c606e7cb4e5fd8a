"""What a model is made of, and what one forward shows of it: calls, order and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import nn

from layerbench.instruments.attach import Forward, forwards_replaced
from layerbench.records import Shape
from layerbench.workload import Frozen


class ModuleFacts(Frozen):
    """A module as it stands in the tree, before anything runs.

    Attributes:
        path: qualified name, ``""`` for the model itself.
        aliases: other names of the same instance.
        parameters: elements of the parameters in it and below, shared ones counted once.
        composite: whether it has submodules.
        reachable: whether its ``forward`` can be wrapped; a scripted module runs outside Python.
    """

    path: str
    type: str
    depth: int
    aliases: tuple[str, ...]
    parameters: int
    composite: bool
    reachable: bool


class CallFacts(Frozen):
    """What one forward showed of a module: its calls and the shapes of the first one."""

    order: int
    calls: int
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]


def named_instances(model: nn.Module) -> dict[str, nn.Module]:
    """Every module instance once, by its first name, in tree order; ``""`` is the model."""
    return dict(model.named_modules())


def module_facts(model: nn.Module) -> tuple[ModuleFacts, ...]:
    """The static facts of every module, in the order of `named_instances`."""
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    scripted = _inside_scripted(model)
    return tuple(
        ModuleFacts(
            path=path,
            type=type_name(module),
            depth=depth_of(path),
            aliases=tuple(names[id(module)][1:]),
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            composite=any(True for _ in module.children()),
            reachable=id(module) not in scripted,
        )
        for path, module in named_instances(model).items()
    )


def depth_of(path: str) -> int:
    """0 for the model itself, 1 for its children."""
    return path.count(".") + 1 if path else 0


def type_name(module: nn.Module) -> str:
    """The class name; for a scripted module, that of the class it was made from."""
    if isinstance(module, torch.jit.ScriptModule):
        return str(getattr(module, "original_name", type(module).__name__))
    return type(module).__name__


def _inside_scripted(model: nn.Module) -> set[int]:
    """Modules below a scripted module: they are called by TorchScript, never through Python."""
    return {
        id(inner)
        for outer in model.modules()
        if isinstance(outer, torch.jit.ScriptModule)
        for inner in outer.modules()
        if inner is not outer
    }


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The tensors of nested lists, tuples, dicts and dataclass-like outputs, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "tensors") and isinstance(value.tensors, torch.Tensor):
        # torchvision's ImageList, what its detectors hand from module to module.
        yield value.tensors


def shapes_of(values: object) -> tuple[Shape, ...]:
    """Shapes of the tensors in ``values``."""
    return tuple(tuple(tensor.shape) for tensor in tensors_in(values))


class CallObserver:
    """Runs one forward and notes for every module its order, calls and shapes.

    It is also where a model that does not take its input is found out: the innermost module
    that raised is named, with the shapes that came in.
    """

    def __init__(self, model: nn.Module, facts: Sequence[ModuleFacts]) -> None:
        self._calls: dict[str, CallFacts] = {}
        self._order = 0
        self._failure: tuple[str, str, tuple[Shape, ...]] | None = None
        instances = named_instances(model)
        self._wrapped = {
            instances[fact.path]: self._observed(instances[fact.path].forward, fact)
            for fact in facts
            if fact.path and fact.reachable
        }
        self._root = facts[0]

    def _observed(self, original: Forward, fact: ModuleFacts) -> Forward:
        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - stands for any forward
            return self._observe(original, fact, args, kwargs)

        return forward

    def _observe(
        self, original: Forward, fact: ModuleFacts, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - whatever the module returns
        order, self._order = self._order, self._order + 1
        # Before the call: an in-place module or a container emptied by it would hide what came in.
        came_in = shapes_of((args, kwargs))
        try:
            output = original(*args, **kwargs)
        except Exception:
            self._failure = self._failure or (fact.path, fact.type, came_in)
            raise
        earlier = self._calls.get(fact.path)
        self._calls[fact.path] = (
            CallFacts(
                order=order, calls=1, input_shapes=came_in, output_shapes=shapes_of((output,))
            )
            if earlier is None
            else earlier.model_copy(update={"calls": earlier.calls + 1})
        )
        return output

    def observe(
        self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, CallFacts]:
        """Run the whole model's forward once.

        Args:
            forward: the model, or what stands for its forward.

        Returns:
            facts by path; a module that did not run has no entry. Whatever the model raises
            passes through, and `explain` then says where.
        """
        self._calls, self._order, self._failure = {}, 0, None
        with forwards_replaced(self._wrapped):
            self._observe(forward, self._root, args, kwargs)
        return self._calls

    def explain(self, error: Exception) -> str:
        """One line that says in which module ``error`` arose and what had come in."""
        path, kind, came_in = self._failure or ("", self._root.type, ())
        where = f"{kind} at {path}" if path else kind
        shapes = ", ".join(str(list(shape)) for shape in came_in) or "no tensor"
        return f"the forward failed in {where}, given {shapes}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """An error's message on one line, without the stack that some of torch's messages carry."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()


def modules_at(model: nn.Module, paths: Iterable[str]) -> dict[str, nn.Module]:
    """The instances at these paths, in tree order."""
    wanted = set(paths)
    return {path: module for path, module in named_instances(model).items() if path in wanted}


Call = Callable[[], Any]
"""One forward of the whole model, arguments bound."""
