"""Tensors without memory in the place of a model's own, and of its inputs'."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch

from layerbench import zoo
from layerbench.environment.notices import logged_notices_kept_back
from layerbench.errors import message_of
from layerbench.instruments.attach import tensors_replaced
from layerbench.instruments.fake_answers import UNKNOWN, FakeAnswers
from layerbench.instruments.function_timer import GUARDED
from layerbench.instruments.quick_answers import quick_answer
from layerbench.introspection.modules import buffers, modules, own_attributes, parameters
from layerbench.introspection.nested import map_tensors, tensors_in
from layerbench.introspection.tensors import is_plain, storage_of
from layerbench.records.workload import Workload
from layerbench.zoo import Built


def shapes_of_model(workload: Workload) -> Built | None:
    """A model without memory, if fake tensors show of it what real ones would.

    ``None`` where its constructor needs values, and where it holds attention's fused kernel, which
    returns no attention weights on real tensors and empty ones on fake tensors.
    """
    try:
        built = zoo.build_shapes(workload)
    except Exception:
        return None  # a real build says what is wrong, if anything is
    fused = any(isinstance(module, GUARDED) for module in modules(built.module))
    return None if fused or _why_shapes_do_not_suffice(built) else built


def fake_tensors() -> AbstractContextManager[object]:
    """The mode in which tensors have shape, type and device but no memory; it refuses fallbacks."""
    mode: AbstractContextManager[object] = _fake_mode()(
        allow_non_fake_inputs=True, allow_fallback_kernels=False
    )
    return mode


@cache
def _fake_mode() -> Any:  # noqa: ANN401 - a class of a module that takes a second to load
    from torch._subclasses.fake_tensor import FakeTensorMode

    class Fakes(FakeTensorMode):  # type: ignore[no-untyped-call]
        def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as PyTorch has them
            super().__init__(**options)
            self._answers = FakeAnswers(self)

        def __torch_dispatch__(
            self,
            func: Any,  # noqa: ANN401 - an OpOverload
            types: Any,  # noqa: ANN401 - as PyTorch has it
            args: Any = (),  # noqa: ANN401 - as above
            kwargs: Any = None,  # noqa: ANN401 - as above
        ) -> Any:  # noqa: ANN401 - whatever the operator returns
            keywords = kwargs or {}
            key = self._answers.key(func, args, keywords)
            if key is None:
                return self._asked(func, types, args, keywords)
            made = self._answers.given(key, args)
            if made is UNKNOWN:
                made = quick_answer(func, args, keywords)
                if made is None:
                    made = self._asked(func, types, args, keywords)
                self._answers.keep(key, args, keywords, made)
            return made

        def _asked(self, func: Any, types: Any, args: Any, keywords: dict[str, Any]) -> Any:  # noqa: ANN401
            made = super().__torch_dispatch__(func, types, args, keywords)
            return _as_kernels_save(made, args) if func in _NORMALIZATION else made

    return Fakes


_NORMALIZATION = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.native_layer_norm.default,
    torch.ops.aten.native_group_norm.default,
)


def _as_kernels_save(made: Any, args: Sequence[object]) -> Any:  # noqa: ANN401 - output and statistics
    """Statistics in float32, where weights are: PyTorch's fake ones have the input's format.

    As ``param_scalar_type`` of ``aten/src/ATen/native/cpu/mixed_data_type.h`` says.
    """
    if not isinstance(made, tuple):
        return made
    output, *statistics = made
    held = (arg.dtype for arg in args[1:] if isinstance(arg, torch.Tensor))
    if output.dtype == torch.float32 or torch.float32 not in held:
        return made
    return (output, *(one.to(torch.float32) for one in statistics))


@contextmanager
def without_memory(
    built: Built, device: str, mode: AbstractContextManager[object] | None = None
) -> Iterator[Built]:
    """Run the block on tensors that say they are on a device; the model has its own afterwards.

    Args:
        built: a model and its inputs, of any tensors.
        device: such as ``cpu``, ``cuda`` or ``meta``.
        mode: stays on for the block; `fake_tensors` if ``None``.
    """
    check_shapes_suffice(built)
    # A scripted function specialises on what it has seen: a later call would look for that device.
    unspecialised = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    with unspecialised, logged_notices_kept_back(), mode or fake_tensors():
        fakes = _Fakes(built, device)
        with tensors_replaced(built.module, fakes.of):
            args, kwargs = map_tensors((built.args, built.kwargs), fakes.of)
            stand_in = Built(built.module, args, kwargs)
            del args, kwargs
            fakes.let_go()
            try:
                yield stand_in
            finally:
                # Whoever has the name still in hand keeps no tensor by it.
                object.__setattr__(stand_in, "args", ())
                stand_in.kwargs.clear()


class _Fakes:
    """Tensors without memory; those whose models share a storage share one, too."""

    def __init__(self, built: Built, device: str) -> None:
        self._device = device
        self._storages: dict[tuple[int, torch.dtype], torch.Tensor] = {}
        self._sharing = Counter(
            storage._cdata
            for tensor in _all_tensors(built)
            if (storage := storage_of(tensor)) is not None
        )

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands in for a tensor."""
        storage, kind, where = storage_of(tensor), tensor.dtype, self._device
        if storage is None or self._sharing[storage._cdata] < 2:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device=where)
        key = (storage._cdata, kind)
        if key not in self._storages:
            elements = storage.nbytes() // tensor.element_size()
            self._storages[key] = torch.empty(elements, dtype=kind, device=where)
        return self._storages[key].as_strided(
            tensor.shape, tensor.stride(), tensor.storage_offset()
        )

    def let_go(self) -> None:
        """Hold no storage any longer; tensors that are made from now on share none of before."""
        self._storages.clear()


def what_it_needs(error: BaseException) -> str:
    """What of a real run a model needs, where that is why a run without memory failed.

    Args:
        error: that such a run raised, on ``cpu``.

    Returns:
        a clause about the model; empty where the error is its own, and would come in any run.
    """
    from torch._subclasses import fake_tensor as fakes

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ShapesDoNotSuffice):
            return str(seen)
        if isinstance(seen, fakes.UnsupportedOperatorException):
            return f"it runs {seen}, which needs real tensors,"
        if isinstance(
            seen, fakes.DataDependentOutputException | fakes.DynamicOutputShapeException
        ) or any(text in message_of(seen) for text in _VALUES_READ):
            return READS_VALUES
        seen = seen.__cause__
    return ""


READS_VALUES = "it reads values of its tensors"

# What PyTorch says where there is no value to be read.
_VALUES_READ = (
    "Cannot copy out of meta tensor",
    "cannot be called on meta tensors",
    ".numpy() is not supported for tensor subclasses",
    "Cannot access data pointer of Tensor",
    "Could not guard on data-dependent expression",
)


def _function_of(kind: type[torch.Tensor]) -> object:
    function = kind.__torch_function__
    return getattr(function, "__func__", function)


class ShapesDoNotSuffice(Exception):
    """A model has what tensors without memory cannot stand in for."""


def check_shapes_suffice(built: Built) -> None:
    """Raise `ShapesDoNotSuffice` for a model that has to run on its own tensors."""
    reason = _why_shapes_do_not_suffice(built)
    if reason is not None:
        raise ShapesDoNotSuffice(reason)


def _why_shapes_do_not_suffice(built: Built) -> str | None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules(built.module)):
        # Its interpreter would compile itself anew for what it saw first.
        return "a part of it is scripted or traced"
    if not all(is_plain(tensor) for tensor in _all_tensors(built)):
        return "a tensor of it is sparse, nested or quantized"
    if any(map(_has_functions_of_its_own, _all_tensors(built))):
        return "a tensor of it is of a class with functions of its own"
    return None


# What takes a tensor's place is a plain one; a parameter's class has no functions.
_WITHOUT_FUNCTIONS = {id(torch._C._disabled_torch_function_impl), id(_function_of(torch.Tensor))}


def _has_functions_of_its_own(tensor: torch.Tensor) -> bool:
    return id(_function_of(type(tensor))) not in _WITHOUT_FUNCTIONS


def _all_tensors(built: Built) -> Iterator[torch.Tensor]:
    yield from parameters(built.module)
    yield from buffers(built.module)
    for module in modules(built.module):
        yield from tensors_in([value for _, value in own_attributes(module)])
    yield from {id(tensor): tensor for tensor in tensors_in((built.args, built.kwargs))}.values()
