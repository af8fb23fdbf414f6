"""The kinds of encoder, and the adapter class of each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.adapters.protocol import Adapter

ADAPTERS: Final = {
    "dense": "engine.adapters.kinds.dense:DenseAdapter",
    "sparse": "engine.adapters.kinds.sparse:SparseAdapter",
    "multi": "engine.adapters.kinds.multi:MultiAdapter",
    "rerank": "engine.adapters.kinds.rerank:RerankAdapter",
    "classify": "engine.adapters.kinds.classify:ClassifyAdapter",
    "image_text.text": "engine.adapters.kinds.image_text:TextTowerAdapter",
    "image_text.image": "engine.adapters.kinds.image_text:ImageTowerAdapter",
    "tag": "engine.adapters.kinds.tag:TagAdapter",
    "axes": "engine.adapters.kinds.axes:AxesAdapter",
    "plugin": "engine.adapters.kinds.plugin:PluginAdapter",
}
"""Kind, or kind and part -> `module:class`, imported when the first encoder of that kind is built."""


def adapter_class(kind: str, part: str | None = None) -> type[Adapter]:
    """Return the adapter class of a kind in `KINDS`, and of one of its parts where it has them."""
    module, _, name = ADAPTERS[f"{kind}.{part}" if part else kind].partition(":")
    found: type[Adapter] = getattr(import_module(module), name)
    return found
