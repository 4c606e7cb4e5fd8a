"""Cells of recurrent layers, of which PyTorch has fused ones for GPUs only.

On a GPU, and so on the simulated accelerator, an LSTM or a GRU runs them instead of single
operators. Here the CPU learns them, because it computes the accelerator's values: each is one
kernel there. The formulas, and what a workspace holds, are those of PyTorch's ``RNN.cu``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

Maybe = Tensor | None


@cache
def register() -> torch.library.Library:
    """Let the CPU compute them in this process; kept, because they end with what is returned."""
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for cell in (
        _thnn_fused_lstm_cell,
        _thnn_fused_lstm_cell_backward_impl,
        _thnn_fused_gru_cell,
        _thnn_fused_gru_cell_backward,
    ):
        library.impl(cell.__name__, cell, "CPU")
    return library  # type: ignore[no-any-return]


def _added(*terms: Maybe) -> Tensor:
    return sum(term for term in terms if term is not None)  # type: ignore[return-value]


def _thnn_fused_lstm_cell(
    of_input: Tensor, of_hidden: Tensor, cx: Tensor, b_input: Maybe = None, b_hidden: Maybe = None
) -> tuple[Tensor, Tensor, Tensor]:
    in_, forget, cell, out = _added(of_input, of_hidden, b_input, b_hidden).chunk(4, 1)
    gates = [in_.sigmoid(), forget.sigmoid(), cell.tanh(), out.sigmoid()]
    cy = gates[1] * cx + gates[0] * gates[2]
    return gates[3] * cy.tanh(), cy, torch.cat(gates, 1)


def _thnn_fused_lstm_cell_backward_impl(
    grad_hy: Maybe, grad_cy: Maybe, cx: Tensor, cy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    in_, forget, cell, out = workspace.chunk(4, 1)
    shown = cy.tanh()
    hidden = torch.zeros_like(cy) if grad_hy is None else grad_hy
    through = _added(hidden * out * (1 - shown**2), grad_cy)
    grads = [
        through * cell * in_ * (1 - in_),
        through * cx * forget * (1 - forget),
        through * in_ * (1 - cell**2),
        hidden * shown * out * (1 - out),
    ]
    gates = torch.cat(grads, 1)
    return gates, through * forget, gates.sum(0) if has_bias else gates.new_empty(0)


def _thnn_fused_gru_cell(
    of_input: Tensor, of_hidden: Tensor, hx: Tensor, b_input: Maybe = None, b_hidden: Maybe = None
) -> tuple[Tensor, Tensor]:
    reset_in, update_in, new_in = _added(of_input, b_input).chunk(3, 1)
    reset_hidden, update_hidden, new_hidden = _added(of_hidden, b_hidden).chunk(3, 1)
    reset, update = (reset_in + reset_hidden).sigmoid(), (update_in + update_hidden).sigmoid()
    new = (new_in + reset * new_hidden).tanh()
    return new + update * (hx - new), torch.cat([reset, update, new, hx, new_hidden], 1)


def _thnn_fused_gru_cell_backward(
    grad_hy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    reset, update, new, hx, new_hidden = workspace.chunk(5, 1)
    of_new = grad_hy * (1 - update) * (1 - new**2)
    of_update = grad_hy * (hx - new) * update * (1 - update)
    of_reset = of_new * new_hidden * reset * (1 - reset)
    of_input = torch.cat([of_reset, of_update, of_new], 1)
    of_hidden = torch.cat([of_reset, of_update, of_new * reset], 1)
    biases = [one.sum(0) if has_bias else one.new_empty(0) for one in (of_input, of_hidden)]
    return of_input, of_hidden, grad_hy * update, biases[0], biases[1]
