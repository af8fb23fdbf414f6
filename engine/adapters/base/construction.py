"""Checks around a library's construction of a model: no invented weights, no prompts, readable errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from engine.adapters.base.hopeless import unavailable
from engine.adapters.base.transformers_patches import patched
from engine.adapters.sources import declared
from engine.adapters.sources.fit import untrusted
from engine.adapters.sources.json_file import value_of
from engine.adapters.sources.model_folder import AGAIN, small_files
from engine.errors import EncoderError, LoadFailed, PilotlightError, Unavailable, first_line
from engine.settings.config import EncoderConfig

_UNUSED: Final = re.compile(r"(^|\.)pooler\.")
"""Weights that no result depends on in a model without a head, because all results come from the tokens' vectors."""
_OTHER_SHAPE: Final = re.compile(r"ignore_mismatched_sizes|size mismatch")
_NO_CONFIGURATION: Final = re.compile(r"Unrecognized model in|a file named config\.json")
_NO_READER: Final = re.compile(r"Unrecognized processing class")
_FEWEST_WORDS: Final = 8
"""A tokenizer without a vocabulary still has a token or two of its own, as SentencePiece's for a space."""
_COMPLETE: Final = "Put all of the model's files there, or mend `model` in the settings."


@contextmanager
def checked_construction(config: EncoderConfig, folder: Path, library: str = "") -> Iterator[None]:
    """Check the construction of the model in `folder`, which runs inside; raises at its end if weights were invented.

    Raises Unavailable if they are the head of another kind of model, if the tokenizer has no vocabulary, and for the
    errors that no later try can mend; LoadFailed if the files lack weights, and for other errors with a known next
    step. `library` names the library with its version. The caller must hold CONSTRUCTION, because this changes the
    behaviour of transformers in this thread.
    """
    made_up: list[EncoderError] = []

    def on_weights(model: Any, info: Mapping[str, Any]) -> None:
        if (problem := missing(config, model, info)) is not None:
            made_up.append(problem)

    def on_tokenizer(tokenizer: Any, has_vocabulary: bool) -> None:
        if has_vocabulary:
            return
        words = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
        if len(words) < _FEWEST_WORDS:
            names = " or ".join(sorted(tokenizer.vocab_files_names.values()))
            made_up.append(
                Unavailable(
                    f"{config.model} has no vocabulary, so its tokenizer would know no word: there is no {names}.",
                    next_step=_COMPLETE,
                )
            )

    with patched(on_weights, on_tokenizer) if "transformers" in sys.modules else nullcontext():
        try:
            yield
        except PilotlightError:
            raise
        except SystemExit as error:
            raise LoadFailed(
                f"{config.name} could not be loaded: its Python code ends the program that runs it.",
                next_step="Get other files of the model, or set `model` to another one.",
            ) from error
        except Exception as error:
            clearer = _clearer(config, folder, library, error)
            if clearer is None:
                raise
            raise clearer from error
    if made_up:
        raise made_up[0]


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
    return LoadFailed(f"The weights of {config.model} lack {what}.", next_step=AGAIN)


def _clearer(config: EncoderConfig, folder: Path, library: str, error: Exception) -> PilotlightError | None:
    """The error to show instead of a library's; None if there is no clearer one."""
    text = str(error)
    if "trust_remote_code" in text and not config.trust_remote_code:
        return untrusted(config, declared.read(folder).code)
    if _OTHER_SHAPE.search(text):
        lines = [line.strip() for line in text.splitlines() if "size mismatch" in line]
        detail = f": {lines[0].rstrip('.')}" if lines else ""
        return LoadFailed(
            f"{config.name} could not be loaded: weights have another shape than the configuration says{detail}.",
            next_step=f"Its files belong to different models. {AGAIN}",
        )
    if "Missing key(s)" in text:
        return LoadFailed(f"{config.name} could not be loaded: {_flat(text)}.", next_step=AGAIN)
    if type(error).__name__ == "SafetensorError":
        return LoadFailed(
            f"{config.name} could not be loaded: a weights file is damaged ({first_line(error)}).", next_step=AGAIN
        )
    if (torn := _torn(folder)) is not None:
        return LoadFailed(f"{config.name} could not be loaded: {torn} is damaged.", next_step=AGAIN)
    if _NO_READER.search(text):
        error = _reason_for_no_reader(config, folder) or error
    facts = declared.read(folder)
    code = facts.code if config.trust_remote_code else ()
    own = {one.reference.rpartition("--")[2].rpartition(".")[0] for one in code}
    final = unavailable(config.name, error, library=library.replace(", ", " and "), own_code=own or None)
    if _NO_CONFIGURATION.search(text) or (final is not None and not (facts.configured or facts.open_clip)):
        return Unavailable(
            f"{config.name} cannot be loaded: {folder} has no config.json that names a model.", next_step=_COMPLETE
        )
    return final


def _torn(folder: Path) -> str | None:
    """The first small file of a model that is no JSON although its name says so."""
    files = (file for file in small_files(folder) if file.suffix == ".json")
    return next((file.relative_to(folder).as_posix() for file in files if value_of(file) is None), None)


def _reason_for_no_reader(config: EncoderConfig, folder: Path) -> Exception | None:
    """The error of the tokenizer, which the library for models of many modalities does not show."""
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=config.trust_remote_code)
    except Exception as error:  # noqa: BLE001 - any error is the reason
        return error
    return None


def _flat(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300]
