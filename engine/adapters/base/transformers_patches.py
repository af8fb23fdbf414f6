"""The behaviour of transformers and the hub's library in the thread that constructs a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

_OWN_CODE: Final = "transformers_modules"
"""The package in which transformers keeps the Python code of models."""


@contextmanager
def patched(
    on_weights: Callable[[Any, Mapping[str, Any]], None], on_tokenizer: Callable[[Any, bool], None]
) -> Iterator[None]:
    """Construct inside without prompts and without a network, and a model's own code for real.

    `on_weights` gets each model that is read with its report of missing weights; `on_tokenizer` each tokenizer, with
    whether the file of its vocabulary is there. The caller must hold CONSTRUCTION, because this replaces functions of
    the libraries; for other threads they do as always.
    """
    with ExitStack() as stack:
        for patch in (_reporting_weights(on_weights), _reporting_tokenizers(on_tokenizer), _never_asking()):
            stack.enter_context(patch)
        stack.enter_context(_without_a_hub())
        stack.enter_context(_own_code_for_real())
        yield


@contextmanager
def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Put `make(original)` in the place of an attribute meanwhile; it is called in the thread that constructs only."""
    original = vars(owner)[name]
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def _reporting_weights(report: Callable[[Any, Mapping[str, Any]], None]) -> Iterator[None]:
    """Have the weights reported that `from_pretrained` lacks, unless its caller asks for the report itself."""
    from transformers import PreTrainedModel

    thread = threading.get_ident()

    def make(original: Any) -> Any:
        def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
            call = original.__get__(None, cls)
            if threading.get_ident() != thread or kwargs.get("output_loading_info"):
                return call(*args, **kwargs)
            model, info = call(*args, **{**kwargs, "output_loading_info": True})
            report(model, info)
            return model

        return classmethod(from_pretrained)

    with _replaced(PreTrainedModel, "from_pretrained", make):
        yield


@contextmanager
def _reporting_tokenizers(report: Callable[[Any, bool], None]) -> Iterator[None]:
    """Have the tokenizers reported: without the file of its vocabulary one is made that knows no word."""
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    thread = threading.get_ident()

    def make(original: Any) -> Any:
        def from_pretrained(cls: Any, files: Mapping[str, str | None], *args: Any, **kwargs: Any) -> Any:
            known = not cls.vocab_files_names or any(files.get(key) for key in cls.vocab_files_names)
            tokenizer = original.__get__(None, cls)(files, *args, **kwargs)
            if threading.get_ident() == thread:
                report(tokenizer, known or is_own(cls))
            return tokenizer

        return classmethod(from_pretrained)

    with _replaced(PreTrainedTokenizerBase, "_from_pretrained", make):
        yield


@contextmanager
def _never_asking() -> Iterator[None]:
    """Let transformers raise where it would prompt on the terminal whether to run a model's own code."""
    from transformers import dynamic_module_utils

    with _replaced(dynamic_module_utils, "TIME_OUT_REMOTE_CODE", lambda patience: 0):
        yield


@contextmanager
def _without_a_hub() -> Iterator[None]:
    """Let every request to a hub raise at once, whatever the model's files ask for; downloads go on meanwhile."""
    from huggingface_hub import constants

    thread = threading.get_ident()
    with _replaced(
        constants, "is_offline_mode", lambda original: lambda: threading.get_ident() == thread or original()
    ):
        yield


@contextmanager
def _own_code_for_real() -> Iterator[None]:
    """Let a model's own code compute what it keeps: on the meta device only the weights of its files become real.

    The classes of transformers compute their buffers once more at the end; others know nothing of that.
    """
    import torch
    from transformers import PreTrainedModel

    def contexts(original: Any) -> Any:
        def get_init_context(cls: Any, *args: Any, **kwargs: Any) -> list[Any]:
            found = original.__get__(None, cls)(*args, **kwargs)
            return [one for one in found if not (is_own(cls) and isinstance(one, torch.device))]

        return classmethod(get_init_context)

    def materialise(original: Any) -> Any:
        def move(self: Any, *args: Any, **kwargs: Any) -> None:
            if not is_own(type(self)):
                original(self, *args, **kwargs)

        return move

    with (
        _replaced(PreTrainedModel, "get_init_context", contexts),
        _replaced(PreTrainedModel, "_move_missing_keys_from_meta_to_device", materialise),
    ):
        yield


def is_own(found: type) -> bool:
    """Return whether a class is code of a model's own, or derives from one that is."""
    return any(base.__module__.partition(".")[0] == _OWN_CODE for base in found.__mro__)
