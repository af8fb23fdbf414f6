"""Whether device memory that we took is really free again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class LiveBytes:
    """Device memory, looked at without being held: a parameter that somebody keeps keeps all of its storage."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        """Watch the storages of tensors, each of which is counted once."""
        from torch.multiprocessing.reductions import StorageWeakRef

        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
        self._seen = [(StorageWeakRef(storage), storage.nbytes()) for storage in storages.values()]

    @property
    def nbytes(self) -> int:
        """Bytes that are still there."""
        self._seen = [(seen, nbytes) for seen, nbytes in self._seen if not seen.expired()]
        return sum(nbytes for _, nbytes in self._seen)
