from __future__ import annotations

import pytest
import torch

from layerbench.nested import bytes_of, shape_of


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor_has_the_shape_that_it_would_have_padded(layout: torch.layout) -> None:
    rows = [torch.zeros(6, 16), torch.zeros(4, 16)]
    tensor = torch.nested.nested_tensor(rows, layout=layout)
    assert shape_of(tensor) == (2, 6, 16)
    assert bytes_of(tensor) == 10 * 16 * 4


def test_a_sparse_tensor_holds_indices_and_values() -> None:
    tensor = torch.eye(4).to_sparse()
    assert shape_of(tensor) == (4, 4)
    assert bytes_of(tensor) == 4 * 2 * 8 + 4 * 4
