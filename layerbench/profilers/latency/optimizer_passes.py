"""What an optimizer's step reads and writes of memory, in sizes of its parameters."""

from __future__ import annotations

from typing import NamedTuple

from layerbench.records.memory import Optimizer


class OptimizerStep(NamedTuple):
    """Tensors as large as the parameters that one step reads and writes.

    Attributes:
        read, written: how many.
        kernels: launched over all parameters, one after the other.
    """

    read: int
    written: int
    kernels: int


_STEPS: dict[str, OptimizerStep] = {
    "sgd": OptimizerStep(2, 1, 1),
    "momentum": OptimizerStep(5, 3, 3),
    "adagrad": OptimizerStep(9, 5, 5),
    "rmsprop": OptimizerStep(9, 5, 5),
    "adam": OptimizerStep(14, 8, 8),
    "adamw": OptimizerStep(15, 9, 9),
}


def optimizer_step(optimizer: Optimizer) -> OptimizerStep:
    """What a step does, counted from the operators on lists of tensors in PyTorch's own code.

    Source: ``_multi_tensor_*`` in ``torch/optim/*.py``, which is the usual way on a GPU.
    """
    return _STEPS[optimizer]
