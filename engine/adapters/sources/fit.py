"""The check that a model's folder holds a whole model of its encoder's kind, before anything is constructed of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.adapters.sources import foreign_code
from engine.adapters.sources.declared import Declared
from engine.adapters.sources.model_folder import AGAIN
from engine.adapters.sources.nature import Nature, nature_of
from engine.adapters.sources.own_code import Code
from engine.adapters.sources.weight_names import HEADS
from engine.errors import Unavailable
from engine.settings.config import EncoderConfig

_BY_MODULES: Final = ("dense", "sparse")


def check(declared: Declared, config: EncoderConfig, *, open_clip: bool = False) -> tuple[str, ...]:
    """Return the assumptions that it takes to serve this model as its encoder's kind, as sentences.

    `open_clip` says that this library reads it, whatever else the folder holds. A folder that states nothing passes,
    because its library names the missing config.json. Raises Unavailable for a model of another kind, and for one
    without a file that it needs.
    """
    if open_clip:
        return ()
    if declared.adapter is not None:
        raise _adapter(declared, config)
    _require_readable(declared, config)
    nature = nature_of(declared)
    if nature is None:
        return ()
    if config.kind not in nature.kinds:
        raise _other_kind(nature, declared, config)
    if config.kind != "tag":
        _require_files(declared, config)
    replaced = _replaced(declared) if declared.code and not config.trust_remote_code else None
    return tuple(sentence for sentence in (nature.kinds[config.kind], replaced) if sentence)


def untrusted(config: EncoderConfig, code: Sequence[Code]) -> Unavailable:
    """Return the error for a model whose `code`, its own or another model's, the settings do not trust."""
    # A part has no such key of its own.
    entry = config.name.removesuffix(f".{config.part}") if config.part else config.name
    entry = f'"{entry}"' if "." in entry else entry
    elsewhere = next((one for one in code if one.repository), None)
    where = f" from {elsewhere.repository}" if elsewhere else ""
    also = f" {foreign_code.remedy(elsewhere)}" if elsewhere else ""
    return Unavailable(
        f"{config.model} needs Python code of its own{where}, which is not run unless you say so.",
        next_step=f"If you trust it, set trust_remote_code = true under [encoders.{entry}] in the settings file.{also}",
    )


def _replaced(declared: Declared) -> str:
    """The assumption that takes another class for one of the model's own, as its library does without trust."""
    return (
        f"Its own Python code ({declared.code[0].reference}) does not run without trust_remote_code: the library's "
        "class for this type of model takes its place, whose results may be others."
    )


def _adapter(declared: Declared, config: EncoderConfig) -> Unavailable:
    base = declared.adapter or "another model"
    without = " To use the model without it, remove adapter_config.json." if declared.configured else ""
    return Unavailable(
        f"{config.model} has an adapter (LoRA) for {base}, and adapters are not applied here.",
        next_step=f"Merge it into its base model with peft (merge_and_unload), and set `model` to the result.{without}",
    )


def _require_readable(declared: Declared, config: EncoderConfig) -> None:
    if declared.unreadable:
        raise Unavailable(f"{config.model}: its {declared.unreadable} cannot be read.", next_step=AGAIN)
    if declared.modules == ():
        raise Unavailable(f"{config.model}: its modules.json names no module.", next_step=AGAIN)


def _other_kind(nature: Nature, declared: Declared, config: EncoderConfig) -> Unavailable:
    kinds = " or ".join(f'kind = "{kind}"' for kind in nature.kinds)
    steps = (f"Set {kinds} for it." if kinds else None, nature.remedy)
    wanted = f'Set `model` to one that was made for kind = "{config.kind}".'
    missing = next((head for head in HEADS if head not in declared.heads), None)
    if config.kind == "multi" and missing and "dense" in nature.kinds:
        return Unavailable(
            f"{config.model} has no {missing}.safetensors and no {missing}.pt: it is no model of kind multi.",
            next_step='Put the file there, if the model has one. For the vector alone, set kind = "dense".',
        )
    return Unavailable(
        f"{config.model} is {nature.noun}, which is no model of kind {config.kind}.",
        next_step=" ".join(filter(None, steps)) or wanted,
    )


def _require_files(declared: Declared, config: EncoderConfig) -> None:
    """Raise Unavailable if a file is missing, or code is not trusted, that this kind of encoder reads."""
    by_modules = config.kind in _BY_MODULES or declared.saved_as == "CrossEncoder"
    for module in (by_modules and declared.modules) or ():
        if module.lacks:
            raise Unavailable(f"{config.model} lacks {module.lacks}, which its modules.json asks for.", next_step=AGAIN)
        # An activation that is not trusted would be replaced by another one.
        own = module.is_own or not str(module.activation or "torch.").startswith("torch.")
        if own and not config.trust_remote_code:
            raise untrusted(config, declared.code)
    if config.part != "image" and declared.configured and not declared.vocabulary:
        # transformers would make a tokenizer without a vocabulary, for which all texts are alike.
        raise Unavailable(f"{config.model} lacks the files of its tokenizer (tokenizer.json).", next_step=AGAIN)
    if config.part == "image" and declared.configured and not declared.image_processor:
        raise Unavailable(f"{config.model} lacks its preprocessor_config.json.", next_step=AGAIN)
