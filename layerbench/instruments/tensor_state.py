"""What tensors hold and how they stand: noted before a run, put back in place after it.

Contents are kept by storage, so that views of one storage are one; on the host, so that a
device's memory stays as it is. A storage is written again only where it differs: it may be a
file's, and then it cannot be written. Memory that the run lets go is let go, and made anew after
it: a forward that casts its own weights takes what it takes without us.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from layerbench.instruments.release import HeldOnce, Releaser
from layerbench.introspection.tensors import parts_of, storage_of

_Copy = bytes | torch.UntypedStorage | None

_PLAIN = (torch.Tensor, torch.nn.Parameter)

# Up to this many bytes a copy through Python is faster than one through PyTorch.
_SMALL = 1 << 16


class TensorState:
    """Tensors with their flags, gradients and hooks; of some also the contents.

    Gradients are taken off while the state is kept: what the run adds up goes into new ones.

    Args:
        tensors: whose contents are kept too.
        bare: others, whose contents cannot be reached by the run.
        room: bytes that may be taken for contents; the largest go without where it does not do.
        hold: whether the tensors' memory stays there until it is put back, whatever the run does.

    Attributes:
        without_room: bytes of contents that were not kept.
    """

    def __init__(
        self,
        tensors: Iterable[torch.Tensor],
        bare: Iterable[torch.Tensor] = (),
        *,
        room: int | None = None,
        hold: bool = False,
    ) -> None:
        self.without_room = 0
        self._standings: dict[int, _Standing] = {}
        storages: dict[int, torch.UntypedStorage] = {}
        with torch._C.DisableTorchFunctionSubclass(), _disable_current_modes():
            tensors = list(tensors)
            for tensor in tensors:
                for storage in _storages_of(tensor):
                    storages[storage._cdata] = storage
            self._contents = self._copied(storages.values(), room)
            let_go = {} if hold else {id(c.storage()): c for c in self._contents if not c.held}
            for tensor in (*tensors, *bare):
                if id(tensor) not in self._standings:
                    self._standings[id(tensor)] = _Standing.of(tensor, let_go)

    def hand_over(self, releaser: Releaser) -> dict[int, HeldOnce]:
        """Let another hold the tensors whose memory can be made anew.

        Returns:
            What stands for each of them, by its id.
        """
        held: dict[int, HeldOnce] = {}
        for key, standing in self._standings.items():
            if isinstance(standing.data, _Place):
                standing.tensor = held[key] = releaser.hold(standing.tensor())
        return held

    def _copied(
        self, storages: Iterable[torch.UntypedStorage], room: int | None
    ) -> list[_Contents]:
        kept: list[_Contents] = []
        left = room
        for storage in sorted(storages, key=torch.UntypedStorage.nbytes):
            size = storage.nbytes()
            if left is not None and size > left:
                self.without_room += size
                continue
            if left is not None:
                left -= size
            kept.append(_Contents.of(storage))
        return kept

    def restore(self) -> bool:
        """Put back what differs; gives whether anything did, gradients aside."""
        with (
            torch._C.DisableTorchFunctionSubclass(),
            _disable_current_modes(),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            changed = [standing.restore() for standing in self._standings.values()]
            changed += [contents.put_back() for contents in self._contents]
            for standing in self._standings.values():
                standing.restore_version()
        return any(changed)


@dataclass(slots=True)
class _Standing:
    """How one tensor stands: where its data is, what autograd knows of it."""

    tensor: Callable[[], torch.Tensor]
    kind: type
    data: Callable[[], torch.Tensor]
    requires_grad: bool
    leaf: bool
    grad: torch.Tensor | None
    hooks: Any
    after_hooks: Any
    version: int | None

    @classmethod
    def of(cls, tensor: torch.Tensor, let_go: dict[int, _Contents]) -> _Standing:
        leaf = tensor.is_leaf
        grad = tensor.grad if leaf else None
        standing = cls(
            tensor=lambda: tensor,
            kind=type(tensor),
            data=_data_of(tensor, let_go),
            requires_grad=tensor.requires_grad,
            leaf=leaf,
            grad=grad,
            hooks=tensor._backward_hooks,
            after_hooks=tensor._post_accumulate_grad_hooks if leaf else None,
            version=None if tensor.is_inference() else tensor._version,
        )
        if grad is not None:
            tensor.grad = None
        return standing

    def restore(self) -> bool:
        tensor = self.tensor()
        changed = False
        if type(tensor) is not self.kind:
            tensor.__class__ = self.kind  # a lazy module's parameter
            changed = True
        if self.leaf and tensor.grad_fn is not None:
            tensor.detach_()
            changed = True
        data = self.data()
        if not _same_place(tensor, data):
            tensor.data = data
            changed = True
        if self.leaf:
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
                changed = True
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
            if tensor._post_accumulate_grad_hooks is not self.after_hooks:
                tensor._post_accumulate_grad_hooks = self.after_hooks
        if tensor._backward_hooks is not self.hooks:
            tensor._backward_hooks = self.hooks
        return changed

    def restore_version(self) -> None:
        # What others have kept for their own backward still counts as unchanged.
        tensor = self.tensor()
        if self.version is not None and tensor._version != self.version:
            _set_version(tensor, self.version)


def _set_version(tensor: torch.Tensor, version: int) -> None:
    set_version: Callable[..., None] = torch._C._autograd._unsafe_set_version_counter
    try:
        set_version((tensor,), (version,))
    except TypeError:  # an older PyTorch, such as 2.4, takes one of each
        set_version(tensor, version)


def _data_of(tensor: torch.Tensor, let_go: dict[int, _Contents]) -> Callable[[], torch.Tensor]:
    """Where a tensor's data is; only a plain tensor's can be told without holding its memory."""
    storage = storage_of(tensor) if _is_plain(tensor) else None
    contents = let_go.get(id(storage))
    if contents is None:
        data = tensor.detach()
        return lambda: data
    return _Place(
        contents, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset())
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the data of a plain tensor is, in a storage that need not be there now."""

    contents: _Contents
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def __call__(self) -> torch.Tensor:
        empty = torch.empty(0, dtype=self.dtype, device="cpu")
        return empty.set_(self.contents.storage(), self.offset, self.shape, self.stride)


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a storage, a type of numbers and a geometry say all of a tensor's data."""
    return (
        type(tensor) in _PLAIN
        and tensor.layout is torch.strided
        and not (tensor.is_nested or tensor.is_quantized or tensor.is_inference())
        and not (tensor.is_conj() or tensor.is_neg())
    )


def _same_place(tensor: torch.Tensor, data: torch.Tensor) -> bool:
    if tensor.layout != data.layout or tensor.dtype != data.dtype or tensor.device != data.device:
        return False
    if tensor.is_nested or data.is_nested:  # whose rows have shapes, but they have none
        if not (tensor.is_nested and data.is_nested):
            return False
    elif tensor.shape != data.shape or (
        tensor.layout is torch.strided
        and (tensor.stride() != data.stride() or tensor.storage_offset() != data.storage_offset())
    ):
        return False
    return [*map(_identity, _storages_of(tensor))] == [*map(_identity, _storages_of(data))]


def _identity(storage: torch.UntypedStorage) -> int:
    return int(storage._cdata)


def _storages_of(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    """Those that hold a tensor's contents; none for one without memory, or of a library's own."""
    if tensor.is_meta:
        return []
    storages = (storage_of(part) for part in parts_of(tensor))
    return [storage for storage in storages if storage is not None]


# --- contents ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Contents:
    """A storage, which is held where it could not be made anew, and what it contains."""

    alive: weakref.ref[torch.UntypedStorage]
    held: torch.UntypedStorage | None
    copy: _Copy

    @classmethod
    def of(cls, storage: torch.UntypedStorage) -> _Contents:
        copy = _copy(storage)
        # Memory of NumPy's, a file's or other processes' is theirs, too.
        own = storage.device.type == "cpu" and storage.resizable() and not storage.is_shared()
        held = None if own and copy is not None else storage
        return cls(weakref.ref(storage), held, copy)

    def storage(self) -> torch.UntypedStorage:
        """The storage; a new one if nobody has held it."""
        storage = self.alive()
        if storage is None:
            storage = self.held = _new(0 if self.copy is None else _size(self.copy))
            self.alive = weakref.ref(storage)
        return storage

    def put_back(self) -> bool:
        """Make the storage contain again what it did; gives whether it did not."""
        return _put_back(self.storage(), self.copy)


def _size(copy: bytes | torch.UntypedStorage) -> int:
    return len(copy) if isinstance(copy, bytes) else copy.nbytes()


def _copy(storage: torch.UntypedStorage) -> _Copy:
    """The contents on the host; ``None`` where there is no memory behind it."""
    size = storage.nbytes()
    if storage.device.type == "meta":
        return None
    if size == 0:
        return b""
    if storage.device.type != "cpu":
        return _on_host(storage)
    if not storage.data_ptr():
        return None
    if size <= _SMALL:
        return ctypes.string_at(storage.data_ptr(), size)
    return _new(size).copy_(storage, False)


def _put_back(storage: torch.UntypedStorage, copy: _Copy) -> bool:
    if copy is None:
        return False
    size = _size(copy)
    resized = storage.nbytes() != size
    if resized:
        storage.resize_(size)
    if size == 0:
        return resized
    if isinstance(copy, bytes):
        if ctypes.string_at(storage.data_ptr(), size) == copy:
            return False
        ctypes.memmove(storage.data_ptr(), copy, size)
        return True
    if torch.equal(_bytes(_on_host(storage)), _bytes(copy)):
        return False
    storage.copy_(copy, False)
    return True


def _on_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    if storage.device.type == "cpu":
        return storage
    return _new(storage.nbytes()).copy_(storage, False)


def _new(size: int) -> torch.UntypedStorage:
    return torch.UntypedStorage(size)  # type: ignore[no-untyped-call]


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
