"""The number of tokens that a model reads of one input, special ones included."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.json_file import object_of

BOUND: Final = 8192
"""Tokens that are read where neither a table of positions nor the files of the encoder set a limit."""

_ABSURD: Final = 10**9
"""Tokens from which on a limit stands for a missing one; transformers writes 1e30, others infinity."""

_POSITIONS: Final = re.compile(r"position|(^|_)pos(_|$)|^w?pe$")
_OTHER_POSITIONS: Final = re.compile(r"(^|_)(rel|relative|distance|entity|visual|image|box|row|col|query|[xyhw])_|bias")
"""Names of tables of other things than the places of tokens: of distances, of pixels, of boxes on a page."""
_NO_POSITIONS: Final = re.compile(r"tok|word|wte|shared|vocab|type|segment|lang|rel|dist|entity|label")
_NO_TEXT: Final = re.compile(r"vision|visual|image|patch|pixel|audio|speech")
"""Parts of a model that read no text."""
_BARE_TABLE: Final = re.compile(r"(position(al)?|pos)_?emb(ed(ding)?s?)?|w?pe")
_SIZES: Final = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_positions",
    "max_seq_len",
    "max_sequence_length",
)
"""Keys of a configuration that give the number of positions."""


def known_limit(limit: float | None) -> int | None:
    """Return a library's limit, None if the value stands for a missing one."""
    return None if limit is None or not 0 < limit < _ABSURD else int(limit)


def limit_in(file: Path) -> int | None:
    """Return the limit in a file of sentence-transformers' settings; None if it sets none."""
    limit = (object_of(file) or {}).get("max_seq_length")
    return limit if type(limit) is int and limit > 0 else None


def truncation_of(tokenizer: Any) -> int | None:
    """Return the length to which tokenizer.json cuts; None if it does not, or if there is no such file."""
    truncation = getattr(getattr(tokenizer, "backend_tokenizer", None), "truncation", None) or {}
    return known_limit(truncation.get("max_length"))


def library_limit(tokenizer: Any, config: Any) -> int | None:
    """Return the tokens that transformers reads of one input, by a model's tokenizer, else by its configuration.

    That is 512 for DeBERTa-v2, whose relative positions would not end there.
    """
    found = known_limit(getattr(tokenizer, "model_max_length", None)) or truncation_of(tokenizer)
    return found or known_limit(getattr(config, "max_position_embeddings", None))


def reading_limit(model: Any, *, said: int | None = None, library: int | None = None, asked: int | None = None) -> int:
    """Return the tokens of one input that `model` reads.

    `asked` is the limit of the user's settings, `said` the one that the encoder's own files give, `library` the one
    that its library reads without them; the first that is there counts, the last at most as far as `BOUND` if there is
    no table of positions. None is more than the least table of positions has rows for.
    """
    tables = list(position_rows(model))
    own = asked or said or (library if library and tables else min(library or BOUND, BOUND))
    return max(1, min((own, *tables)))


def position_rows(model: Any) -> Iterator[int]:
    """Yield for each table of absolute positions in `model` the number of tokens that it has rows for.

    Tables are found by their names, and by as many rows as the configuration has positions.
    """
    sizes = {one for config in _configs(model) for key in _SIZES if (one := getattr(config, key, None))}
    words = _input_table(model)
    for path, part in model.named_modules():
        if _NO_TEXT.search(path):
            continue
        if hasattr(part, "build_mpt_alibi_tensor"):
            # MPT makes a table of distances per batch, for that many tokens.
            yield int(part.config.max_seq_len)
        for name, child in part.named_children():
            rows = _rows(child)
            named = _POSITIONS.search(name) and not _OTHER_POSITIONS.search(name)
            alike = any(rows - size in (0, 1, 2) for size in sizes) and not _NO_POSITIONS.search(name)
            if rows and child is not words and not _NO_TEXT.search(name) and (named or alike):
                yield rows - _start(part, child)
        for name, table in part.named_parameters(recurse=False):
            if _BARE_TABLE.fullmatch(name) and (table.dim() == 2 or (table.dim() == 3 and table.shape[0] == 1)):
                yield int(table.shape[-2])


def vocabulary_rows(model: Any) -> int | None:
    """Return the number of token ids that `model` has vectors for; None = unknown."""
    words = _input_table(model)
    return None if words is None else _rows(words) or None


def _configs(model: Any) -> Iterable[Any]:
    return {id(config): config for part in model.modules() if (config := getattr(part, "config", None))}.values()


def _input_table(model: Any) -> Any:
    """The table of the tokens' vectors, of the first part of `model` that names one."""
    for part in model.modules():
        if hasattr(part, "get_input_embeddings"):
            try:
                return part.get_input_embeddings()
            except (NotImplementedError, AttributeError):
                continue
    return None


def _rows(table: Any) -> int:
    """The rows of a table of vectors; 0 for any other module."""
    weight: Any = getattr(table, "weight", None)
    is_table = hasattr(table, "num_embeddings") or "Embedding" in type(table).__name__
    return int(weight.shape[0]) if is_table and getattr(weight, "ndim", 0) == 2 else 0


def _start(parent: Any, table: Any) -> int:
    """The row of the first token."""
    if getattr(table, "padding_idx", None) is not None:
        # RoBERTa and its variants count from the row after that of the padding.
        return int(table.padding_idx) + 1
    if type(offset := getattr(table, "offset", None)) is int:
        return offset
    ids: Any = getattr(parent, "position_ids", None)
    return int(ids.min()) if getattr(ids, "numel", int)() and not ids.is_meta else 0
