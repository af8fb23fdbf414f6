"""Checks around a library's construction of a model: no invented weights, no prompts, readable errors."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from engine.adapters.kinds.fit import untrusted
from engine.errors import EncoderError, LoadFailed, PilotlightError, Unavailable, first_line
from engine.settings.config import EncoderConfig

_log = logging.getLogger(__name__)

_UNUSED: Final = re.compile(r"(^|\.)pooler\.")
"""Weights that no result depends on in a model without a head, because all results come from the tokens' vectors."""
_OTHER_SHAPE: Final = re.compile(r"ignore_mismatched_sizes|size mismatch")
_NO_CONFIGURATION: Final = re.compile(r"Unrecognized model in|a file named config\.json")
_AGAIN: Final = "Download or copy the model again."


@contextmanager
def checked_construction(config: EncoderConfig, folder: Path) -> Iterator[None]:
    """Check the construction of the model in `folder`, which runs inside; raises at its end if weights were invented.

    Raises Unavailable if they are the head of another kind of model, and LoadFailed if the files lack some. Other
    errors of the libraries become one of these if there is a known next step. The caller must hold CONSTRUCTION,
    because this changes the behaviour of transformers in this thread.
    """
    made_up: list[EncoderError] = []
    with ExitStack() as stack:
        if "transformers" in sys.modules:
            stack.enter_context(_watched(config, made_up))
            stack.enter_context(_never_asking())
        try:
            yield
        except PilotlightError:
            raise
        except Exception as error:
            clearer = _clearer(config, folder, error)
            if clearer is None:
                raise
            raise clearer from error
    if made_up:
        raise made_up[0]


@contextmanager
def _watched(config: EncoderConfig, made_up: list[EncoderError]) -> Iterator[None]:
    """Note the weights that `from_pretrained` reports as missing, unless its caller asks for the report."""
    from transformers import PreTrainedModel

    original = PreTrainedModel.__dict__["from_pretrained"]
    thread = threading.get_ident()

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        call = original.__get__(None, cls)
        if threading.get_ident() != thread or kwargs.get("output_loading_info"):
            return call(*args, **kwargs)
        model, info = call(*args, **{**kwargs, "output_loading_info": True})
        problem = missing(config, model, info)
        if problem is not None:
            made_up.append(problem)
        return model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = original


@contextmanager
def _never_asking() -> Iterator[None]:
    """Let transformers raise where it would prompt on the terminal whether to run a model's own code."""
    from transformers import dynamic_module_utils

    patience = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience


def missing(config: EncoderConfig, model: Any, info: Mapping[str, Any]) -> EncoderError | None:
    """Return the error for a model of transformers with this loading info; None if no weights were invented."""
    base = model.base_model is model
    keys = sorted(key for key in info["missing_keys"] if not (base and _UNUSED.search(key)))
    if not keys:
        return None
    prefix = model.base_model_prefix
    what = f"{keys[0]}{f' and {len(keys) - 1} more' if len(keys) > 1 else ''}"
    if not base and prefix and not any(key.startswith(f"{prefix}.") for key in keys):
        # No later try can help, because the folder holds another kind of model.
        return Unavailable(
            f"{config.model} has no weights for the head of a {type(model).__name__} ({what}).",
            next_step=f'Set `model` to one that was made for kind = "{config.kind}", or mend `kind` in the settings.',
        )
    return LoadFailed(f"The weights of {config.model} lack {what}.", next_step=_AGAIN)


def _clearer(config: EncoderConfig, folder: Path, error: Exception) -> PilotlightError | None:
    """The error to show instead of a library's; None if there is no clearer one."""
    text = str(error)
    if "trust_remote_code" in text and not config.trust_remote_code:
        return untrusted(config)
    if _OTHER_SHAPE.search(text):
        lines = [line.strip() for line in text.splitlines() if "size mismatch" in line]
        detail = f": {lines[0].rstrip('.')}" if lines else ""
        return LoadFailed(
            f"{config.name} could not be loaded: weights have another shape than the configuration says{detail}.",
            next_step=f"Its files belong to different models. {_AGAIN}",
        )
    if "Missing key(s)" in text:
        return LoadFailed(f"{config.name} could not be loaded: {_flat(text)}.", next_step=_AGAIN)
    if type(error).__name__ == "SafetensorError":
        return LoadFailed(
            f"{config.name} could not be loaded: a weights file is damaged ({first_line(error)}).", next_step=_AGAIN
        )
    if _NO_CONFIGURATION.search(text):
        return Unavailable(
            f"{config.name} could not be loaded: {folder} has no config.json that names a model known here.",
            next_step="Put all of the model's files there, or mend `model` in the settings.",
        )
    return None


def _flat(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300]
