"""The objects of Python callers: one lazy object per encoder, which loads at its first use and never before.

Building a proxy, `repr`, `loaded`, `peek()` and the pure maths (`similarity`, `nearest`) load nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from engine.operations.axes import EncodeAxes
from engine.operations.classify import Classify
from engine.operations.dense import Embed
from engine.operations.image_text import EncodeImages
from engine.operations.multi import EncodeMulti
from engine.operations.plugin import Call
from engine.operations.rerank import Score
from engine.operations.sparse import EncodeSparse
from engine.operations.tag import Tag
from engine.proxies.axes import AxesProxy
from engine.proxies.classify import ClassifyProxy
from engine.proxies.dense import DenseProxy
from engine.proxies.image_text import ImageTextProxy
from engine.proxies.multi import MultiProxy
from engine.proxies.plugin import PluginProxy
from engine.proxies.proxy import Caller
from engine.proxies.rerank import RerankProxy
from engine.proxies.sparse import SparseProxy
from engine.proxies.tag import TagProxy


class Proxies(Caller, ABC):
    """The proxies of an engine, by kind; wherever that engine may be."""

    @abstractmethod
    def resolve(self, name: str | None, *kinds: str, part: str | None = None) -> str:
        """Return the name of the encoder that `name` means, or of its part; raises UnknownEncoder."""

    def dense(self, name: str | None = None) -> DenseProxy:
        """Return the lazy object for a dense encoder by name or alias, None for the default; raises UnknownEncoder."""
        return DenseProxy(self, self.resolve(name, *Embed.kinds, part=Embed.part))

    def image_text(self, name: str | None = None) -> ImageTextProxy:
        """Return the lazy object for a model of images and texts by name or alias, None for the default.

        Raises UnknownEncoder.
        """
        text, image = (self.resolve(name, *EncodeImages.kinds, part=part) for part in (Embed.part, EncodeImages.part))
        return ImageTextProxy(self, text, image)

    def sparse(self, name: str | None = None) -> SparseProxy:
        """Return the lazy object for a sparse encoder by name or alias, None for the default; raises UnknownEncoder."""
        return SparseProxy(self, self.resolve(name, *EncodeSparse.kinds))

    def multi(self, name: str | None = None) -> MultiProxy:
        """Return the lazy object for an encoder of kind multi by name or alias, None for the default; as `dense`."""
        return MultiProxy(self, self.resolve(name, *EncodeMulti.kinds))

    def rerank(self, name: str | None = None) -> RerankProxy:
        """Return the lazy object for a reranker by name or alias, None for the default; raises UnknownEncoder."""
        return RerankProxy(self, self.resolve(name, *Score.kinds))

    def classify(self, name: str | None = None) -> ClassifyProxy:
        """Return the lazy object for a classifier by name or alias, None for the default; raises UnknownEncoder."""
        return ClassifyProxy(self, self.resolve(name, *Classify.kinds))

    def axes(self, name: str | None = None) -> AxesProxy:
        """Return the lazy object for an encoder of kind axes by name or alias, None for the default; as `dense`."""
        return AxesProxy(self, self.resolve(name, *EncodeAxes.kinds))

    def tag(self, name: str | None = None) -> TagProxy:
        """Return the lazy object for a tagger by name or alias, None for the default; raises UnknownEncoder."""
        return TagProxy(self, self.resolve(name, *Tag.kinds))

    def plugin(self, name: str | None = None) -> PluginProxy:
        """Return the lazy object for a plug-in by name or alias, None for the default; raises UnknownEncoder."""
        return PluginProxy(self, self.resolve(name, *Call.kinds))
