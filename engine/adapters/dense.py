"""Dense encoders through sentence-transformers: one vector per text, pooled and normalised as the model says."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from engine.adapters import references
from engine.adapters.protocol import Footprint, Loaded
from engine.config import EncoderConfig
from engine.errors import InvalidInput, LoadFailed, Unavailable
from engine.weights.gate import CONSTRUCTION
from engine.weights.release import release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH_SIZE: Final = 32
"""Texts per forward; on a CPU larger batches are slower, because they pad more."""
_PREFIX_CHARACTERS: Final = 32
"""Characters a token, looked at first in a long text."""
_PACKAGES: Final = ("torch", "transformers", "sentence_transformers")


@dataclass(frozen=True, slots=True)
class Encoding:
    """Vectors, float32 (n, d), in the order of the inputs, and how many tokens the model read for them."""

    vectors: NDArray[np.float32]
    tokens: int


class DenseAdapter:
    """A `SentenceTransformer` on one device."""

    def __init__(self, config: EncoderConfig, device: str) -> None:
        self._config = config
        self._wanted_device = device
        self._model: Any = None
        self._device = "cpu"
        self.rests_in_ram = False

    def probe(self) -> None:
        """Raise Unavailable when a package or the model's folder is missing; imports nothing."""
        for package in _PACKAGES:
            if find_spec(package) is None:
                name = package.replace("_", "-")
                raise Unavailable(f"The package {name} is not installed.", next_step=f"Run: pip install {name}")
        references.locate(self._config.model)

    def load(self) -> Loaded:
        """Read the model and bring it to its device; asks a hub only for a model that is a hub id."""
        reference = references.locate(self._config.model)
        began = time.monotonic()
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        imported = time.monotonic()
        disable_progress_bar()
        self._device = _choose_device(torch, self._wanted_device)
        with CONSTRUCTION:
            self._model = SentenceTransformer(reference.source, device=self._device, local_files_only=reference.local)
        self.rests_in_ram = self._device != "cpu"
        return Loaded(
            device=self._device,
            revision=reference.revision,
            import_seconds=imported - began,
            load_seconds=time.monotonic() - imported,
        )

    def offload(self) -> None:
        """Copy the weights to RAM and empty the device's cache."""
        with CONSTRUCTION:
            self._model.to("cpu")
        self._empty_device_cache()

    def resume(self) -> None:
        """Copy the weights back to the device."""
        with CONSTRUCTION:
            self._model.to(self._device)

    def unload(self) -> None:
        """Drop the model, whose last reference is here, and give its memory back to the system."""
        self._model = None
        release()
        if self._device != "cpu":
            self._empty_device_cache()

    def footprint(self) -> Footprint:
        """Sum the parameters and buffers by where they are."""
        if self._model is None:
            return Footprint(0, 0, 0)
        tensors = {t.data_ptr(): t for t in (*self._model.parameters(), *self._model.buffers())}.values()
        total = sum(tensor.nbytes for tensor in tensors)
        on_device = sum(tensor.nbytes for tensor in tensors if tensor.device.type == self._device.partition(":")[0])
        return Footprint(on_device=on_device, in_ram=total - on_device, total=total)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of one text; the rest is cut off."""
        limit = self._model.max_seq_length
        return None if limit is None else int(limit)

    def encode(self, inputs: Sequence[str] | Sequence[Sequence[int]], *, dimensions: int | None = None) -> Encoding:
        """Return one vector per text, or per list of this model's own token ids.

        `dimensions` keeps the leading ones and normalises again (Matryoshka). Raises InvalidInput.
        """
        if dimensions is not None and not 1 <= dimensions <= self.dimension:
            raise InvalidInput(
                f"dimensions is {dimensions}, but {self._config.name} has {self.dimension}.",
                param="dimensions",
                next_step=f"Ask for 1 to {self.dimension}, or leave it out.",
            )
        if inputs and not isinstance(inputs[0], str):
            ids = [self._checked_ids(item, index) for index, item in enumerate(inputs)]
            vectors, tokens = self._encode_ids(ids), sum(map(len, ids))
        else:
            texts = [self._shortened(_checked_text(item, index)) for index, item in enumerate(inputs)]
            vectors, tokens = self._encode_texts(texts), self._count_tokens(texts)
        if dimensions is not None:
            vectors = _truncated(vectors, dimensions)
        return Encoding(vectors, tokens)

    def _encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._model.encode(
            texts, batch_size=_BATCH_SIZE, show_progress_bar=False, convert_to_numpy=True
        )
        return vectors

    def _encode_ids(self, ids: list[list[int]]) -> NDArray[np.float32]:
        import numpy as np
        import torch

        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        vectors: list[Any] = [None] * len(ids)
        for start in range(0, len(order), _BATCH_SIZE):
            batch = order[start : start + _BATCH_SIZE]
            features = self._model.tokenizer.pad({"input_ids": [ids[index] for index in batch]}, return_tensors="pt")
            with torch.inference_mode():
                output = self._model({key: value.to(self._device) for key, value in features.items()})
            for index, vector in zip(batch, output["sentence_embedding"].float().cpu().numpy(), strict=True):
                vectors[index] = vector
        return np.stack(vectors)

    def _checked_ids(self, ids: object, index: int) -> list[int]:
        """The ids with the model's begin and end tokens, cut to what it reads."""
        tokenizer = self._model.tokenizer
        size = len(tokenizer)
        if not isinstance(ids, Sequence) or not ids or not all(type(i) is int and 0 <= i < size for i in ids):
            raise InvalidInput(
                f"input[{index}] holds token ids outside 0 to {size - 1}, or none: these ids are of another tokenizer.",
                param="input",
                next_step="Send text. A client that tokenizes for OpenAI must be told not to "
                "(langchain: check_embedding_ctx_length=False).",
            )
        first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
        inner = list(ids[1:] if ids[0] == first else ids)
        if inner and inner[-1] == last:
            inner = inner[:-1]
        before, after = [t for t in (first,) if t is not None], [t for t in (last,) if t is not None]
        room = None if self.max_tokens is None else self.max_tokens - len(before) - len(after)
        return before + inner[:room] + after

    def _shortened(self, text: str) -> str:
        """A prefix of a very long text that holds more tokens than the model reads: the vector is the same.

        Tokenizing megabytes of which the model reads 256 tokens would hold everybody else up for a minute.
        """
        limit = self.max_tokens
        if limit is None:
            return text
        size = limit * _PREFIX_CHARACTERS
        while size < len(text):
            # Twice the limit, because the word at the cut may come out in other pieces.
            if len(self._model.tokenizer(text[:size], verbose=False)["input_ids"]) > 2 * limit:
                return text[:size]
            size *= 8
        return text

    def _count_tokens(self, texts: list[str]) -> int:
        if not texts:
            return 0
        limit = self.max_tokens
        encoded = self._model.tokenizer(texts, truncation=limit is not None, max_length=limit)
        return sum(map(len, encoded["input_ids"]))

    def _empty_device_cache(self) -> None:
        import torch

        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        elif self._device == "mps":
            torch.mps.empty_cache()


def _choose_device(torch: Any, wanted: str) -> str:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if wanted.startswith("cuda") and not cuda:
        raise LoadFailed(
            f"The device is set to {wanted}, but torch {torch.__version__} finds no CUDA GPU.",
            next_step='Set device = "auto" or "cpu", or install a CUDA build of torch.',
        )
    if wanted == "mps" and not mps:
        raise LoadFailed(
            "The device is set to mps, but this machine has none.", next_step='Set device = "auto" or "cpu".'
        )
    return wanted


def _checked_text(text: object, index: int) -> str:
    try:
        if isinstance(text, str):
            text.encode()
            return text
    except UnicodeEncodeError:
        pass
    raise InvalidInput(f"input[{index}] is not a text that can be written as UTF-8.", param="input")


def _truncated(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    import numpy as np

    kept = vectors[:, :dimensions]
    norms = np.linalg.norm(kept, axis=1, keepdims=True)
    result: NDArray[np.float32] = kept / np.maximum(norms, np.finfo(np.float32).tiny)
    return result
