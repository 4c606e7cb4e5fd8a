"""Work that holds a queue: nobody else sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from layerbench.environment.devices.blocking import products


def test_a_users_modes_do_not_see_what_blocks_a_queue() -> None:
    seen = []

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    spin = products(torch.device("cpu"))
    with Operators(), Functions():
        spin(1)
        assert seen == []
        torch.zeros(1)
    assert len(seen) == 2
