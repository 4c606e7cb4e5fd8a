"""What PyTorch says of its own state, which is no matter of the model's author. Loads no torch."""

from __future__ import annotations

import warnings

# Of sparse tensors: that their layout is new, and that nothing checks their indices.
NOTICES = (
    r"Sparse (CSR|CSC|BSR|BSC) tensor support is in beta",
    r"Sparse invariant checks are implicitly disabled",
)


def keep_notices_back() -> None:
    """Leave those notices out of standard error, in a process of our own."""
    for notice in NOTICES:
        warnings.filterwarnings("ignore", message=notice, category=UserWarning)
