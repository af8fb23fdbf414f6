"""The base of dense and sparse encoders: texts or token ids into the modules of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from engine.adapters.base.text_adapter import TextAdapter
from engine.adapters.text.ids import plain_ids, rows_of_ids, text_ids
from engine.adapters.text.library_reader import LibraryReader, readers_of
from engine.adapters.text.rows import Features, Limit, Rows
from engine.adapters.text.texts import tokenizer_digest
from engine.errors import InvalidInput
from engine.operations.cut import Cut
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


class SentenceAdapter(TextAdapter):
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

    def _ready(self, module: Any, folder: Path) -> Any:
        """Return a model that was just made, ready for use."""
        # In the module, so that `unload` drops it with everything else.
        module.readers = readers_of(module, folder, self._config.max_tokens)
        return module.eval()

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of one text, the least of its ways; the rest is cut off."""
        return min((one.limit for one in self._module.readers.values() if one.limit), default=None)

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
        reader = self._library_reader(task)
        return plain_ids(self.prompt(task) + text, _tokenizer_of(reader), reader.limit)

    def _each(
        self,
        inputs: Sequence[str] | Sequence[Sequence[int]],
        task: str | None,
        forward: Callable[[Features], Any],
        finish: Callable[[Any], Sequence[T]],
        *,
        nothing: T,
        truncate: bool,
        tokens: int | None = None,
    ) -> tuple[list[T], int, Cut]:
        """Return the result of each input, the number of tokens that were read, and the cut.

        `forward`, `nothing` and `tokens` are as in `_compute`; `finish` makes the results of a batch of its tensor.
        """
        reader, asked = self._library_reader(task), self._task(task)
        limit = Limit(self._config.name, reader.limit_for(**asked), truncate, reader.vocabulary)
        prompt = self.prompt(task) or None
        if inputs and not isinstance(inputs[0], str):
            rows = self._rows_of_ids(inputs, reader, prompt if task else None, limit, asked)
        else:
            rows = reader.rows([str(text) for text in inputs], limit, prompt=prompt, **asked)
        found = self._compute(
            rows,
            reader.company,
            forward,
            lambda results, *_: finish(results),
            nothing=nothing,
            least=1 + self._left_out(rows),
            tokens=tokens,
        )
        return found, rows.tokens, rows.cut

    def _left_out(self, rows: Rows) -> int:
        """The tokens of a prompt that the pooling leaves out."""
        pooled = all(getattr(part, "include_prompt", True) for part in self._module.modules())
        return 0 if pooled else int(rows.common.get("prompt_length") or 0)

    @staticmethod
    def _task(task: str | None) -> dict[str, Any]:
        """Arguments of the library's calls for a task."""
        return _TASKS[task]

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

    def _library_reader(self, task: str | None) -> LibraryReader:
        found: LibraryReader = self._module.readers[id(self._reader(task))]
        return found

    def _rows_of_ids(
        self, inputs: Sequence[Any], reader: LibraryReader, prompt: str | None, limit: Limit, asked: dict[str, Any]
    ) -> Rows:
        """Lists of ids as the model reads them."""
        tokenizer = _tokenizer_of(reader)
        # By the module itself, because some modules ask the tokenizer for no special tokens.
        frame = reader.rows(["a"], Limit("", None), **asked)
        rows = rows_of_ids(inputs, frame, text_ids("a", tokenizer, None), tokenizer, limit)
        if prompt:
            # Some models leave their prompt out of the pooling.
            length = reader.rows(["a"], Limit("", None), prompt=prompt, **asked).common.get("prompt_length")
            rows.common = {**rows.common, **({} if length is None else {"prompt_length": length})}
        return rows


def _tokenizer_of(reader: LibraryReader) -> Any:
    """The reader's tokenizer, if it is one of transformers'."""
    if reader.tokenizer is None:
        raise InvalidInput("This encoder reads texts and no token ids.", param=ITEMS, next_step="Send text.")
    return reader.tokenizer
