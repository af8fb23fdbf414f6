"""The bytes of device memory that are still allocated after we released them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class LiveBytes:
    """Weak references to device memory: one parameter that is still referenced keeps its whole storage alive."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        """Watch the storages of tensors; a storage that tensors share is counted once."""
        from torch.multiprocessing.reductions import StorageWeakRef

        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
        self._seen = [(StorageWeakRef(storage), storage.nbytes()) for storage in storages.values()]

    @property
    def nbytes(self) -> int:
        """Bytes that are still allocated."""
        self._seen = [(seen, nbytes) for seen, nbytes in self._seen if not seen.expired()]
        return sum(nbytes for _, nbytes in self._seen)
