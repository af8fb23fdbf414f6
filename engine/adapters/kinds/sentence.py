"""The base of dense and sparse encoders: texts or token ids into the modules of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from engine.adapters.base.torch_module import TorchAdapter
from engine.adapters.text.ids import checked_ids, frame_of, framed_ids, plain_ids, text_ids
from engine.adapters.text.lengths import in_order_of_length, known_limit
from engine.adapters.text.texts import tokenizer_digest, truncate_text
from engine.errors import InvalidInput
from engine.operations.inputs import ITEMS

_TASKS: Final[Mapping[str | None, dict[str, Any]]] = {
    None: {},
    "query": {"task": "query"},
    "passage": {"task": "document"},
}
"""Our tasks by the library's names."""
_PROMPTS: Final = {"query": ("query",), "passage": ("document", "passage", "corpus")}
"""Names that models give to the prompt of each task, in the order in which the library looks for them."""

T = TypeVar("T")
Features = dict[str, Any]


class SentenceAdapter(TorchAdapter):
    """A model of sentence-transformers that makes one result of each text."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "sentence_transformers")

    _key: tuple[Any, str | None] | None = None
    """A tokenizer and the digest of it."""

    def _import_library(self) -> str:
        import sentence_transformers

        return f"sentence-transformers {sentence_transformers.__version__}, {super()._import_library()}"

    def _metadata(self) -> dict[str, Any]:
        # The library's property returns a choice of its own if the model names none.
        similarity = self._module._similarity_fn_name
        known = {"dimension": self._dimension, "max_tokens": self.max_tokens, "similarity": similarity}
        return {key: value for key, value in known.items() if value is not None}

    @property
    def _dimension(self) -> int | None:
        dimension: int | None = self._module.get_embedding_dimension()
        return dimension

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of one text; the rest is cut off."""
        return _limit(self._module)

    @property
    def tokenizer_key(self) -> str | None:
        """A digest; adapters with equal ones give equal ids in `tokenize` without a prompt. None = unknown."""
        tokenizer = self._module.tokenizer
        if self._key is None or self._key[0] is not tokenizer:
            first = self._module[0]
            readers = [route[0] for route in first.sub_modules.values()] if hasattr(first, "sub_modules") else [first]
            # With a chat template a reader adds text, so the ids of the bare text are not its own.
            bare = all("message" not in getattr(reader, "modalities", ()) for reader in readers)
            keys = {tokenizer_digest(reader.tokenizer) for reader in readers}
            self._key = (tokenizer, keys.pop() if bare and len(keys) == 1 else None)
        return self._key[1]

    def prompt(self, task: str | None = None) -> str:
        """Return the prompt that the model's configuration puts before every text of a task; "" for none.

        Source: sentence-transformers' `encode_query` and `encode_document`, except for empty prompts: the library gives
        every model an empty `document` prompt, which must not hide the model's own `passage` prompt.
        """
        prompts: dict[str, str | None] = self._module.prompts
        if task is None:
            return prompts.get(self._module.default_prompt_name) or ""
        return next((prompts[name] or "" for name in _PROMPTS[task] if prompts.get(name)), "")

    def tokenize(self, text: str, task: str | None = None) -> list[int]:
        """Return the ids of `text` after the prompt of `task`, without special tokens and uncut, for `encode`.

        A very long text gives only somewhat more ids than the model reads; one that must be sent as text gives none, as
        in `plain_ids`. Raises InvalidInput.
        """
        reader = self._reader(task)
        _tokenizer_of(reader)
        return plain_ids(self.prompt(task) + text, reader.tokenizer, _limit(reader))

    def _each(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        task: str | None,
        compute: Callable[[Features], Sequence[T]],
    ) -> tuple[list[T], int]:
        """Return the result of `compute` for each input, and the number of tokens that were read.

        `compute` gets a batch on the device, as features for the module, and runs in inference mode.
        """
        import torch

        reader = self._reader(task)
        rows: list[Any]
        prepare: Callable[[list[Any]], Features]
        if inputs and not isinstance(inputs[0], str):
            rows, prepare = self._rows_of_ids(inputs, reader, task)
        else:
            limit = _limit(reader)
            rows = [text if limit is None else truncate_text(str(text), reader.tokenizer, limit) for text in inputs]
            prepare = partial(self._module.preprocess, prompt=self.prompt(task) or None, **self._task(task))
        lengths = [len(row) for row in rows]

        def run(size: int) -> tuple[list[T], int]:
            found: dict[int, T] = {}
            tokens = 0
            for batch in in_order_of_length(lengths, size):
                features = prepare([rows[index] for index in batch])
                tokens += _tokens(features)
                with torch.inference_mode():
                    results = compute({key: self._there(value) for key, value in features.items()})
                found.update(zip(batch, results, strict=True))
            return [found[index] for index in range(len(rows))], tokens

        return self._in_batches(run, len(rows))

    @staticmethod
    def _task(task: str | None) -> dict[str, Any]:
        """Arguments of the library's calls for a task."""
        return _TASKS[task]

    def _there(self, value: Any) -> Any:
        return value.to(self._device) if hasattr(value, "to") else value

    def _reader(self, task: str | None) -> Any:
        """The module that reads texts: the first one, or the one that a router chooses for the task."""
        first = self._module[0]
        if not hasattr(first, "sub_modules"):
            return first
        try:
            route = first._resolve_route(modality="text", **self._task(task))
        except ValueError as error:
            raise InvalidInput(
                f"{self._config.name} has no way for {task or 'texts without a task'}.",
                param="task",
                next_step=f"It has: {', '.join(first.sub_modules)}.",
            ) from error
        return first.sub_modules[route][0]

    def _rows_of_ids(
        self, inputs: Sequence[Any], reader: Any, task: str | None
    ) -> tuple[list[list[int]], Callable[[list[Any]], Features]]:
        """Lists of ids as the model reads them, and a function that makes features of a batch of them."""
        tokenizer, limit = _tokenizer_of(reader), _limit(reader)
        # By the module itself, because some modules ask the tokenizer for no special tokens.
        whole = reader.preprocess(["a"], **self._task(task))["input_ids"][0].tolist()
        begin, end = frame_of(whole, text_ids("a", tokenizer, None))
        own = [checked_ids(ids, index, len(tokenizer)) for index, ids in enumerate(inputs)]
        at_the_left = tokenizer.truncation_side == "left"
        rows = [framed_ids(ids, begin, end, limit, at_the_left=at_the_left) for ids in own]
        prompt = self.prompt(task) if task else ""
        # Some models leave their prompt out of the pooling.
        more = {"prompt_length": reader.preprocess([""], prompt=prompt).get("prompt_length")} if prompt else {}

        def features(batch: list[list[int]]) -> Features:
            padded = tokenizer.pad({"input_ids": batch}, return_tensors="pt")
            return {**padded, **{key: value for key, value in more.items() if value is not None}}

        return rows, features


def _limit(reader: Any) -> int | None:
    return known_limit(getattr(reader, "max_seq_length", None))


def _tokenizer_of(reader: Any) -> Any:
    """The reader's tokenizer, if it is one of transformers'."""
    if not hasattr(reader.tokenizer, "pad"):
        raise InvalidInput("This encoder reads texts and no token ids.", param=ITEMS, next_step="Send text.")
    return reader.tokenizer


def _tokens(features: Features) -> int:
    mask = features.get("attention_mask")
    return int(features["input_ids"].numel() if mask is None else mask.sum())
