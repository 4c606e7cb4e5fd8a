"""Random numbers that depend on where in a run one is, and on nothing that went before.

So a run that was ended and taken up again draws what it would have drawn, and the number of
processes that load images changes nothing.
"""

from __future__ import annotations

import hashlib
import struct


def mixed(*numbers: int) -> int:
    """A seed made of several numbers, 63 bits; neighbours give seeds far apart.

    Args:
        numbers: each within 64 bits, signed.
    """
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1
