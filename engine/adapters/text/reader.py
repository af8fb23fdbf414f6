"""A tokenizer of transformers as a model reads with it: its limit, its padding, and its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from engine.adapters.text.company import Company
from engine.adapters.text.limits import library_limit, reading_limit, vocabulary_rows
from engine.adapters.text.rows import IDS, Item, Limit, Rows, read_rows

_TYPES: Final = "token_type_ids"


@dataclass(frozen=True, slots=True)
class Reader:
    """A tokenizer, the limit of its model, the ids that the model knows, and how its inputs come together."""

    tokenizer: Any
    limit: int
    vocabulary: int | None
    company: Company

    def rows(self, items: Sequence[Item], limit: Limit) -> Rows:
        """Return texts, or pairs of them, as rows; raises InvalidInput, as `read_rows` does."""
        return read_rows(items, partial(columns_of, self.tokenizer), self.tokenizer, limit)


def reader_of(model: Any, tokenizer: Any, *, asked: int | None, said: int | None = None) -> Reader:
    """Return the reader for a model of transformers, or a module with one; limits are as in `reading_limit`."""
    library = library_limit(tokenizer, _text_config(model))
    limit = reading_limit(model, said=said, library=library, asked=asked)
    company = company_of(model, tokenizer)
    with_padding_token(tokenizer)
    economical(model)
    return Reader(tokenizer, limit, vocabulary_rows(model), company)


def company_of(model: Any, tokenizer: Any) -> Company:
    """Return the first way in which inputs come together for `model`, a model of transformers or a module with one."""
    return Company(
        at_the_left=getattr(tokenizer, "padding_side", "right") == "left",
        fills={IDS: padding_token(model, tokenizer), _TYPES: getattr(tokenizer, "pad_token_type_id", 0)},
    )


def padding_token(model: Any, tokenizer: Any) -> int:
    """Return a token that pads: the one that the model itself knows, else the tokenizer's, else any.

    Heads find the last token, and some models their positions, by the one that the model knows.
    """
    rows = vocabulary_rows(model)
    known = (_padding_id(model), *(getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "eos", "unk")))
    return next((one for one in known if type(one) is int and 0 <= one < (rows or one + 1)), 0)


def tell_padding(model: Any, tokenizer: Any) -> None:
    """Let a head that looks for the last token know the tokenizer's padding token, where no configuration names it.

    Without one it takes inputs one by one. A token that also ends texts would hide their last token.
    """
    config = _text_config(model)
    known = getattr(tokenizer, "pad_token_id", None)
    ends = {getattr(tokenizer, f"{name}_token_id", None) for name in ("eos", "sep", "bos", "cls", "unk")}
    if config is not None and getattr(config, "pad_token_id", None) is None and known not in {None, *ends}:
        config.pad_token_id = known


def with_padding_token(tokenizer: Any) -> None:
    """Give a tokenizer without a padding token another of its tokens for it, because libraries refuse to go without.

    No model sees it: inputs are padded here, under a mask.
    """
    if tokenizer.pad_token is None:
        known = (getattr(tokenizer, f"{name}_token") for name in ("eos", "unk", "bos", "cls", "sep", "mask"))
        tokenizer.pad_token = next((one for one in known if one), None) or tokenizer.convert_ids_to_tokens(0)


def columns_of(tokenizer: Any, items: Sequence[Item], limit: int | None, **options: Any) -> Mapping[str, Any]:
    """Return a tokenizer's columns for texts or for pairs of them, cut to `limit` tokens, without padding."""
    texts = list(zip(*items, strict=True)) if items and not isinstance(items[0], str) else [items]
    cut = {"truncation": limit is not None, "max_length": limit}
    found: Mapping[str, Any] = tokenizer(*map(list, texts), padding=False, verbose=False, **cut, **options)
    return found


def economical(model: Any) -> None:
    """Let the models of transformers within `model` attend without a matrix of all pairs of tokens, where they can.

    A folder may ask for the attention that makes one ("eager"): 8,000 tokens take gigabytes that way, for the same
    numbers. Classes whose numbers would differ do not offer another one.
    """
    for part in model.modules():
        config: Any = getattr(part, "config", None)
        ours = type(part).__module__.startswith("transformers.") and getattr(part, "_supports_sdpa", False)
        if ours and getattr(config, "_attn_implementation", None) == "eager" and not config.output_attentions:
            part.set_attn_implementation("sdpa")


def _padding_id(model: Any) -> int | None:
    return getattr(_text_config(model), "pad_token_id", None)


def _text_config(model: Any) -> Any:
    config: Any = next(
        (part.config for part in model.modules() if hasattr(getattr(part, "config", None), "to_dict")), None
    )
    return config.get_text_config() if hasattr(config, "get_text_config") else config
