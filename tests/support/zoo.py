"""What tests of models by name share."""

from __future__ import annotations

import torch

from layerbench.zoo import Built


def run(built: Built):
    with torch.inference_mode():
        return built.module(*built.args, **built.kwargs)
