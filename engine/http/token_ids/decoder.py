"""The decoder of cl100k_base: lists of token ids into texts, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from engine.adapters.packages import require
from engine.errors import InvalidInput, Unavailable
from engine.http.token_ids.ranks import NoRanks, RanksFile
from engine.settings.config import OWN_IDS, TAKE_IDS, EncoderConfig

PATIENCE_SECONDS: Final = 10.0
"""Longest wait of a request for the ranks; fetching them goes on without it."""

_ANY_TEXT: Final = r"\s+|\S+"
"""A pattern that splits texts into words; nothing is encoded here."""

_CUT_BYTES: Final = 3
"""Most bytes of a character that was cut, because one has four at most."""

Decode = Callable[[Sequence[int]], bytes]
"""Token ids -> bytes; raises KeyError or OverflowError for an id that no token has."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The reason why nothing can be decoded here, as a clause, and the step that mends it."""

    reason: str
    next_step: str | None = None


class Decoder:
    """Decodes ids once tiktoken and the ranks are there; its first use loads both, on a thread of its own."""

    def __init__(self, ranks: RanksFile | None = None) -> None:
        self._ranks = ranks or RanksFile()
        self._lock = threading.Lock()
        self._loading: Future[Decode | Missing] | None = None

    async def texts(
        self, lists: Sequence[Sequence[int]], encoder: EncoderConfig, field: str, *, offline: bool
    ) -> list[str]:
        """Return the text of each list of ids, for `encoder`; with `offline` no network is asked for the ranks.

        A character that was cut at either end of a list is left out: clients cut long texts between ids. Raises
        InvalidInput for ids of no text, naming the item of `field`, and where nothing can be decoded.
        """
        loading = self._begin(offline=offline)
        if not loading.done():
            await asyncio.wait({asyncio.wrap_future(loading)}, timeout=PATIENCE_SECONDS)
        decode = loading.result() if loading.done() else Missing("its ranks are still being fetched")
        if isinstance(decode, Missing):
            raise _no_decoder(decode, encoder, field)
        return await asyncio.to_thread(
            lambda: [_text(ids, decode, f"{field}[{i}]", field) for i, ids in enumerate(lists)]
        )

    def _begin(self, *, offline: bool) -> Future[Decode | Missing]:
        """Return the load that runs or went well; begin another one after none or a failed one."""
        with self._lock:
            last = self._loading
            if last is not None and not (last.done() and (last.exception() or isinstance(last.result(), Missing))):
                return last
            loading: Future[Decode | Missing] = Future()
            self._loading = loading
        threading.Thread(target=self._load, args=(loading, offline), name="engine-token-ids", daemon=True).start()
        return loading

    def _load(self, loading: Future[Decode | Missing], offline: bool) -> None:
        try:
            loading.set_result(self._loaded(offline=offline))
        except BaseException as error:  # noqa: BLE001 - the future carries it to its callers
            loading.set_exception(error)

    def _loaded(self, *, offline: bool) -> Decode | Missing:
        try:
            require("tiktoken")
            import tiktoken

            ranks = self._ranks.read(offline=offline)
        except Unavailable as error:
            return Missing("the package tiktoken is not installed", error.next_step)
        except ImportError as error:
            return Missing(f"tiktoken cannot be imported ({error})")
        except NoRanks as error:
            return Missing(str(error))
        # Without the special tokens, which no text has.
        encoding: Any = tiktoken.Encoding("cl100k_base", pat_str=_ANY_TEXT, mergeable_ranks=ranks, special_tokens={})
        decode: Decode = encoding.decode_bytes
        return decode


def _no_decoder(missing: Missing, encoder: EncoderConfig, field: str) -> InvalidInput:
    steps = [
        missing.next_step and missing.next_step.rstrip("."),
        "send texts (langchain: check_embedding_ctx_length=False)",
    ]
    if encoder.kind in TAKE_IDS:
        steps.append(f'for ids of the model\'s own tokenizer set token_ids = "{OWN_IDS}" in [encoders.{encoder.name}]')
    steps_in_words = "; or ".join(filter(None, steps))
    return InvalidInput(
        f"{field} holds token ids, which are read here as OpenAI's embedding models read them (cl100k_base), "
        f"and {missing.reason}.",
        param=field,
        next_step=f"{steps_in_words[0].upper()}{steps_in_words[1:]}.",
    )


def _text(ids: Sequence[int], decode: Decode, item: str, field: str) -> str:
    try:
        text = _without_cut_characters(decode(ids)).decode()
    except (KeyError, OverflowError, UnicodeDecodeError):
        text = ""
    if not text:
        raise InvalidInput(
            f"{item} holds token ids that are no text in cl100k_base, which OpenAI's embedding models read.",
            param=field,
            next_step="Send texts (langchain: check_embedding_ctx_length=False).",
        )
    return text


def _without_cut_characters(content: bytes) -> bytes:
    """Leave out the last bytes of a character at the beginning, and the first ones of another at the end."""
    begin = 0
    while begin < min(_CUT_BYTES, len(content)) and content[begin] & 0xC0 == 0x80:
        begin += 1
    content = content[begin:]
    try:
        content.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return content[: error.start]
    return content
