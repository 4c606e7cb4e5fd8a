"""The garbage collector, switched off where much is made and nothing of it is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# So many objects may pass by the collector's count before it looks at all of them as ever.
PUT_OFF_AT_MOST = 1_000_000


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch the garbage collector off, and leave it no debt of what was made meanwhile.

    In a process with PyTorch a full collection looks at half a million objects, in 0.2 seconds.
    Without more, what was made meanwhile would have it run at once when it is switched on.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            _put_off.count_as_old()
            gc.enable()


class _PutOff:
    """Objects that passed by the collector's count since it last counted.

    Attributes:
        objects: so many.
        frozen: whether a user's frozen objects were there when they were last counted.
    """

    def __init__(self) -> None:
        self.objects = 0
        self.frozen = False

    def count_as_old(self) -> None:
        """Move what was made to the oldest generation, as a full collection would, without one.

        Freezing and unfreezing does that and sets the counts to 0. It is left out where a user has
        frozen objects of their own, which would be unfrozen, and now and then, so that garbage
        among what was made does not grow without end.
        """
        self.objects += gc.get_count()[0]
        if self.objects > PUT_OFF_AT_MOST:
            self.objects, self.frozen = 0, False
            return
        # Python counts frozen objects one by one, 40 ms for those of PyTorch: now and then, too.
        self.frozen = self.frozen or gc.get_freeze_count() > 0
        if self.frozen:
            return
        gc.freeze()
        gc.unfreeze()


_put_off = _PutOff()
