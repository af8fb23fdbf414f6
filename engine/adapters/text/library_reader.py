"""The module of sentence-transformers that reads texts or pairs, and what has to be known to read with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.adapters.text.company import Company
from engine.adapters.text.limits import known_limit, library_limit, limit_in, reading_limit, vocabulary_rows
from engine.adapters.text.reader import columns_of, company_of, economical, with_padding_token
from engine.adapters.text.rows import Features, Item, Limit, Rows, Texts, read_rows

_SIZES: Final = ("padding", "truncation", "max_length", "return_tensors")
"""Arguments that a folder may set in any group of arguments of the library's reading."""
_SEEN: Final = ("image", "video", "audio")


class LibraryReader:
    """One reader of a model: the first module, or the first one of a route; `whole` is the model."""

    def __init__(self, whole: Any, reader: Any, *, said: frozenset[int], asked: int | None) -> None:
        """Prepare the reader: `said` are limits in the model's own files, `asked` is that of the user's settings."""
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

        self._whole, self._reader = whole, reader
        self.tokenizer = getattr(reader, "tokenizer", None)
        if not hasattr(self.tokenizer, "pad"):
            self.tokenizer = None
        self._transformer = isinstance(reader, Transformer) and self.tokenizer is not None
        self._table = isinstance(reader, SparseStaticEmbedding)
        self.company = Company() if self.tokenizer is None else company_of(reader, self.tokenizer)
        self.vocabulary = vocabulary_rows(reader) if self._transformer else None
        self.limit = self._find_limit(said, asked)
        if self.tokenizer is not None:
            with_padding_token(self.tokenizer)
            self.tokenizer.model_max_length = self.limit
        if self._transformer:
            reader.unpad_inputs = False
            economical(reader)

    def _find_limit(self, said: frozenset[int], asked: int | None) -> int | None:
        library = known_limit(getattr(self._reader, "max_seq_length", None))
        if self.tokenizer is None:
            return library
        if library is None:
            library = library_limit(self.tokenizer, getattr(self._reader, "config", None))
        own = library if library in said else None
        return reading_limit(self._reader, said=own, library=library, asked=asked)

    def limit_for(self, **asked: Any) -> int | None:
        """Return the tokens that are read of one text with the library's arguments for a task; None for any number."""
        task = str(asked.get("task"))
        options = getattr(self._reader, "processing_kwargs", None) or {}
        also = [options.get(group, {}).get("max_length") for group in ("text", "common", "chat_template")]
        also.append(getattr(self._reader, {"query": "query_length", "document": "document_length"}.get(task, ""), None))
        return min((one for one in (self.limit, *also) if one), default=None)

    def rows(self, items: Sequence[Item], limit: Limit, **asked: Any) -> Rows:
        """Return texts, or pairs of them, as rows; `asked` are the library's arguments for a task.

        Raises InvalidInput, as `read_rows` does.
        """
        widened = asked.get("task") == "query" and getattr(self._reader, "query_expansion", None)
        if self._transformer and not widened:
            return read_rows(items, partial(self._read, asked), self.tokenizer, limit)
        if self._table:
            return read_rows(items, partial(self._read_table, asked), self.tokenizer, limit)
        return self._texts(items, limit, asked)

    def _read(self, asked: Mapping[str, Any], items: list[Item], limit: int | None) -> Mapping[str, Any]:
        own = self._reader.processing_kwargs
        cut = {"truncation": "longest_first" if limit else False, "max_length": limit}
        sizes = {"padding": False, "return_tensors": None, **cut}
        options = {group: {key: sizes[key] for key in _SIZES if key in own.get(group, {})} for group in own}
        options["text"] = {**options.get("text", {}), "padding": False, "verbose": False, **cut}
        options["common"] = {**options.get("common", {}), "return_tensors": None}
        if any(one in self._reader.modalities for one in _SEEN):
            # Else a text that is the address of a picture would be the picture.
            items = [item if not isinstance(item, str) else {"text": item} for item in items]
        return dict(self._whole.preprocess(items, processing_kwargs=options, **asked))

    def _read_table(self, asked: Mapping[str, Any], items: list[Item], limit: int | None) -> Mapping[str, Any]:
        texts = [(asked.get("prompt") or "") + item for item in items]
        found = columns_of(self.tokenizer, texts, limit, add_special_tokens=False)
        return {**found, "modality": "text", **({"task": asked["task"]} if "task" in asked else {})}

    def _texts(self, items: Sequence[Item], limit: Limit, asked: Mapping[str, Any]) -> Rows:
        """Texts for a reader of another kind: a table of words, or a model's own code."""
        short = [limit.short(item, self.tokenizer) for item in items]
        found = Texts([], texts=short, prepare=partial(self._prepare, asked))
        if self.tokenizer is not None and limit.tokens is not None:
            counts = columns_of(self.tokenizer, [(asked.get("prompt") or "") + one for one in short], None)["input_ids"]
            found.cut = limit.cut_of([len(one) for one in counts])
        return found

    def _prepare(self, asked: Mapping[str, Any], texts: list[str]) -> Features:
        features: Features = self._whole.preprocess(texts, **asked)
        return features


def readers_of(whole: Any, folder: Path, asked: int | None) -> dict[int, LibraryReader]:
    """Return the readers of a model by the `id` of their module."""
    first = whole[0]
    routes = getattr(first, "sub_modules", None)
    modules = [first] if routes is None else [route[0] for route in routes.values()]
    patterns = ("sentence_*_config.json", "*/sentence_*_config.json")
    said = frozenset(limit for pattern in patterns for file in folder.glob(pattern) if (limit := limit_in(file)))
    return {id(one): LibraryReader(whole, one, said=said, asked=asked) for one in modules}
