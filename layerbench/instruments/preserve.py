"""Whatever a run does to a model and its inputs, they come back as they were.

A forward may keep what it computed (a cache, a table of positions, the last activation), count its
calls, change its input, or write its weights. All of it is noted before a run, and put back in
place after it, also after one that raised: attributes and containers, modes, hooks, tensors'
contents, gradients of parameters and inputs, and the generators of random numbers
(docs/decisions/0017).
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from layerbench.environment import devices
from layerbench.instruments.python_state import PythonState
from layerbench.instruments.random_state import RandomState, drawing_from
from layerbench.instruments.release import Releaser
from layerbench.instruments.stray_tensors import StrayTensors, is_without_memory
from layerbench.instruments.tensor_state import TensorState
from layerbench.introspection.modules import buffers, parameters
from layerbench.introspection.nested import map_tensors, tensors_in
from layerbench.records.workload import OWN_WEIGHTS, Workload
from layerbench.units import bytes_
from layerbench.zoo import Built


@contextmanager
def preserved(
    built: Built, *, training: bool = False, releaser: Releaser | None = None
) -> Iterator[Built]:
    """Leave a model that was handed over, and its inputs, as they are now.

    To be entered before anything is attached, and left after it was taken off.

    Args:
        built: the user's.
        training: whether autograd will work on it.
        releaser: is to hold the tensors meanwhile, where memory that the run lets go must not be
            held.

    Yields:
        the same model, with inputs that are cut off from the user's own graph.

    Warns:
        UserWarning: before the run, if something cannot be put back.
    """
    state = PythonState((built.module, built.args, built.kwargs))
    room = devices.get("cpu").memory().free_bytes // 2
    tensors = TensorState([*state.tensors, *state.table_tensors], room=room)
    _say_what_stays_changed(built, state, tensors)
    if releaser is not None:
        state.hold_elsewhere(tensors.hand_over(releaser), releaser)
    with _put_back_after(state, tensors):
        yield _cut_off(built, training)


@contextmanager
def preserved_from_stand_ins(built: Built, *, handed_over: bool) -> Iterator[Built]:
    """Leave a model as it is now, when tensors without memory stand in for its own.

    Its parameters and buffers are out of reach then, so that no copy of them is taken.

    Args:
        built: the model and its inputs.
        handed_over: whether it is the user's; else it lives for this run alone, and what matters
            is what its code keeps elsewhere.
    """
    state = PythonState((built.module, built.args, built.kwargs))
    replaced = {id(tensor) for tensor in (*parameters(built.module), *buffers(built.module))}
    others = [tensor for tensor in state.table_tensors if id(tensor) not in replaced]
    within_reach = [*state.tensors, *others] if handed_over else []
    tensors = TensorState(within_reach, bare=state.table_tensors)
    with _put_back_after(state, tensors):
        yield built


@contextmanager
def drawing_anew(workload: Workload, built: Built) -> Iterator[None]:
    """Let a model that was built by name draw in each run what it draws in every other one.

    The process's generators start from the workload's seed. Those that a user's own model holds,
    or finds in its file, are put back afterwards; a library's model has none.
    """
    roots = (built.module, built.args, built.kwargs)
    own = PythonState(roots).draws() if workload.weights == OWN_WEIGHTS else []
    try:
        with drawing_from(workload.seed):
            yield
    finally:
        for generator in own:
            generator.restore()


@contextmanager
def strays_removed(model: str) -> Iterator[None]:
    """Remove the tensors without memory that a run on stand-ins left in other objects.

    To be left when the run has ended. The frames of its error, if it raised, lose their variables.

    Args:
        model: its name.

    Warns:
        UserWarning: such a tensor is held where it cannot be taken away.
    """
    strays = StrayTensors()
    ending = False
    try:
        yield
    except BaseException as error:
        # The frames of an interrupt or of a `sys.exit` still hold what the run made.
        ending = not isinstance(error, Exception)
        if not ending:
            _let_go(error)
        raise
    finally:
        holders = strays.remove()
        if holders and not ending:
            warnings.warn(
                f"{model}: a tensor without contents stays in {', '.join(holders)}: make the "
                "model anew before it runs again",
                stacklevel=2,
            )


def _let_go(error: BaseException) -> None:
    """Empty the frames of an error and of those before it, which still hold what a run made."""
    following: list[BaseException | None] = [error]
    known: set[int] = set()
    while following:
        one = following.pop()
        if one is not None and id(one) not in known:
            known.add(id(one))
            traceback.clear_frames(one.__traceback__)
            following += [one.__cause__, one.__context__]


@contextmanager
def _put_back_after(state: PythonState, tensors: TensorState) -> Iterator[None]:
    draws = RandomState()
    try:
        yield
    finally:
        # Containers first: then each tensor is again where its flags and contents belong.
        state.restore()
        tensors.restore()
        draws.restore()


def _say_what_stays_changed(built: Built, state: PythonState, tensors: TensorState) -> None:
    name = type(built.module).__name__
    if state.unkept:
        warnings.warn(
            f"{name} keeps what cannot be put back after a run: {', '.join(state.unkept)}",
            stacklevel=2,
        )
    if tensors.without_room:
        warnings.warn(
            f"{name}: there is no room to keep {bytes_(tensors.without_room)} of its tensors: "
            "what the run writes into them stays",
            stacklevel=2,
        )


def _cut_off(built: Built, training: bool) -> Built:
    """Inputs that no backward leads out of, and that autograd may work on if it has to."""
    inputs = list(tensors_in((built.args, built.kwargs)))
    if all(tensor.is_leaf and not tensor.is_inference() for tensor in inputs):
        return built

    def own(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_inference() and training:
            with torch.inference_mode(False):
                return tensor.clone()
        return tensor if tensor.is_leaf else tensor.detach().requires_grad_()

    args, kwargs = map_tensors((built.args, built.kwargs), own)
    return Built(built.module, args, kwargs)


class FreshInputs:
    """Gives every forward the inputs as they first were, where forwards change them.

    Args:
        built: whose inputs may be emptied or written by a forward.
    """

    def __init__(self, built: Built) -> None:
        self._state = PythonState((built.args, built.kwargs), code=False)
        room = devices.get("cpu").memory().free_bytes // 2
        # Of stand-ins there is nothing to put back, and to ask them is work that a trace sees.
        real = [tensor for tensor in self._state.tensors if not is_without_memory(tensor)]
        self._tensors = TensorState(real, room=room, hold=True)
        self._needed: bool | None = None

    def renew(self) -> None:
        """Undo the previous forward's changes; the first call decides whether there are any."""
        if self._needed is False:
            return
        python, tensors = self._state.restore(), self._tensors.restore()
        self._needed = self._needed or python or tensors
