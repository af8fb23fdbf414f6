"""The nature of a model by the facts of its folder: a name for messages, and the kinds of encoder that can serve it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.adapters.sources.declared import Declared
from engine.adapters.sources.modules import Module
from engine.adapters.sources.weight_names import HEADS

_MEAN: Final = "It has no modules.json, so each vector is the mean of its tokens' vectors, and is not normalised."
_M3: Final = "a model with the heads of BGE-M3"
_COLBERT: Final = "a model of late interaction (ColBERT)"
_IMAGE_TEXT: Final = ("clip", "siglip", "siglip2")
"""Model types of transformers."""
_CLASSIFIER: Final = "ForSequenceClassification"
_WRITES: Final = re.compile(r"ForCausalLM$|(?<!With)LMHeadModel$|ForConditionalGeneration$")
_HEAD: Final = re.compile(r"For([A-Z]\w*)$")
_ON_BARE_TEXT: Final = ("MaskedLM", "PreTraining")
"""Heads that are for training alone, so that a text encoder leaves them out."""
_LATE: Final = re.compile(r"(?:^|_)Col[A-Z]")
"""Models of late interaction, as HF_ColBERT and ColQwen2."""
_OTHER_TASKS: Final = ("TokenClassification", "QuestionAnswering", "MultipleChoice", "NextSentencePrediction")
_SPARSE: Final = frozenset(("SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"))
_PLAIN: Final = frozenset(("Transformer", "MLMTransformer", "Dense", "Normalize", "Dropout", "LayerNorm"))
"""Modules that do not make one vector of many."""
_PAIR_TASKS: Final = frozenset(("sequence-classification", "text-generation"))
_HEADS_BY_TENSORS: Final = (
    (_CLASSIFIER, ("classifier.", "score.", "classification_head.", "logits_proj.")),
    ("ForMaskedLM", ("cls.", "vocab_", "lm_head.dense", "lm_head.layer_norm", "predictions.", "head.dense")),
    ("ForCausalLM", ("lm_head.", "model.layers", "transformer.h", "gpt_neox.")),
)
"""End of a class's name, and beginnings of the names of its own weights."""


@dataclass(frozen=True, slots=True)
class Nature:
    """A sort of model."""

    noun: str
    kinds: Mapping[str, str | None] = field(default_factory=dict)
    """The kinds of encoder that can serve it, the best first -> the assumption that this takes, as a sentence."""
    remedy: str | None = None
    """The file that would make more of it, as a sentence."""


_RERANKER: Final = Nature("a reranker", {"rerank": None, "classify": None})


def nature_of(declared: Declared) -> Nature | None:
    """Return the nature of the model; None if its folder states nothing that tells."""
    if declared.spacy:
        return Nature("a spaCy pipeline", {"tag": None})
    if declared.modules:
        return _of_modules(declared, declared.modules)
    if declared.configured:
        return _of_configuration(declared)
    return Nature("a model in open_clip's layout", {"image_text": None}) if declared.open_clip else None


def _of_modules(declared: Declared, modules: tuple[Module, ...]) -> Nature:
    """The nature by modules.json and by the class that saved the model."""
    saved_as, names = declared.saved_as, {module.name for module in modules if not module.is_own}
    outputs, tasks = {module.output for module in modules}, {module.task for module in modules}
    of_pylate = any(module.type.startswith("pylate.") for module in modules)
    if saved_as == "MultiVectorEncoder" or "MultiVectorMask" in names or "retrieval" in tasks or of_pylate:
        return Nature(_COLBERT)
    if saved_as == "SparseEncoder" or names & _SPARSE:
        return _if_saved_as("SparseEncoder", declared, Nature("a sparse encoder", {"sparse": None}))
    at_root = all(not module.path for module in modules if module.is_reader)
    is_classifier = at_root and declared.architecture.endswith(_CLASSIFIER)
    if blank := next((module.path for module in modules if module.is_blank and not module.lacks), None):
        return Nature(f"a reranker with the same token for both answers ({blank}), for which all documents are alike")
    if saved_as == "CrossEncoder" or "LogitScore" in names or "scores" in outputs or tasks & _PAIR_TASKS:
        if is_classifier and len(modules) == 1:
            return _of_classifier(declared)
        widths = [module.width for module in modules if module.output == "scores"]
        wide = "LogitScore" not in names and (next(reversed(widths), None) or 1) > 2
        noun = "a classifier through sentence-transformers" if wide else "a reranker"
        return _if_saved_as("CrossEncoder", declared, Nature(noun, {} if wide else {"rerank": None}))
    if saved_as not in (None, "SentenceTransformer"):
        return Nature(f"a {saved_as} of sentence-transformers")
    own = any(module.is_own for module in modules)
    if names <= _PLAIN and not own and "sentence_embedding" not in {one.output for one in modules if one.is_reader}:
        return Nature("a chain of modules without a pooling", remedy="Put a modules.json with its pooling there.")
    found = _of_classifier(declared) if is_classifier else Nature("a dense encoder")
    kinds = {"dense": None, **found.kinds}
    if at_root and declared.heads.issuperset(HEADS):
        return Nature(_M3, {"multi": None, **kinds})
    if at_root and declared.model_type in _IMAGE_TEXT:
        kinds["image_text"] = None
    return Nature(found.noun, kinds)


def _if_saved_as(needed: str, declared: Declared, found: Nature) -> Nature:
    """`found`, if the folder says which class saved it; otherwise the library adds modules with random weights."""
    if declared.saved_as == needed:
        return found
    step = f'Put its config_sentence_transformers.json there, in which "model_type" is "{needed}".'
    return Nature(f"{found.noun} without a file that says so", remedy=step)


def _of_configuration(declared: Declared) -> Nature:
    """The nature by config.json alone; without an architecture in it by the names of the weights."""
    if declared.heads.issuperset(HEADS):
        # Its vector is that of the first token, and no mean.
        return Nature(f"{_M3} and no modules.json", {"multi": None})
    if declared.architecture:
        return _known(declared, _of_architecture(declared, declared.architecture))
    ending = next((end for end, starts in _HEADS_BY_TENSORS if _begin(declared.tensors, starts)), "")
    if not declared.tensors and declared.labels is not None:
        ending = _CLASSIFIER
    found = _known(declared, _of_architecture(declared, ending))
    assumed = f"Its config.json names no architecture, so it is taken for {found.noun}."
    kinds = {kind: f"{assumed} {sentence}" if sentence else assumed for kind, sentence in found.kinds.items()}
    return Nature(found.noun, kinds, found.remedy)


def _known(declared: Declared, found: Nature) -> Nature:
    """`found` without the kinds that need the list of modules which other files in the folder come with."""
    if not declared.had_modules or "dense" not in found.kinds:
        return found
    kinds = {kind: sentence for kind, sentence in found.kinds.items() if kind != "dense"}
    step = "Put its modules.json there, with the folders that it names: it says how vectors are made of tokens."
    return Nature(f"{found.noun} without its modules.json", kinds, step)


def _begin(names: frozenset[str], starts: tuple[str, ...]) -> bool:
    return any(name.startswith(starts) for name in names)


def _of_architecture(declared: Declared, architecture: str) -> Nature:
    own_heads = {code.reference for code in declared.code if code.reference.endswith(_CLASSIFIER)}
    in_brackets = f" ({declared.architecture})" if declared.architecture else ""
    if _LATE.search(architecture):
        return Nature(_COLBERT)
    if architecture.endswith(_CLASSIFIER):
        return _of_classifier(declared)
    if _WRITES.search(architecture):
        if declared.encoder_decoder and not declared.image_processor:
            return Nature(f"a model that rewrites text{in_brackets}", {"dense": _MEAN})
        step = "Set `model` to an encoder. A reranker or an embedder that was made of a chat model has a modules.json."
        return Nature(f"a chat model or another one that writes text{in_brackets}", remedy=step)
    head = _HEAD.search(architecture)
    if head and head[1] in _ON_BARE_TEXT:
        step = "If it is a SPLADE model, put its modules.json and config_sentence_transformers.json there."
        return Nature(f"a masked language model{in_brackets}", {"dense": _MEAN}, step)
    if head and (head[1] in _OTHER_TASKS or not declared.code):
        return Nature(f"a model for another task{in_brackets}")
    if declared.vision and (declared.model_type in _IMAGE_TEXT or declared.code):
        # A configuration of the model's own may derive from one that is known; only its code can tell.
        return Nature(f"a model of images and texts{in_brackets}", {"image_text": None})
    if declared.model_type in _IMAGE_TEXT:
        return Nature(f"a model of images and texts{in_brackets}", {"image_text": None})
    if not declared.code and (declared.vision or (declared.image_processor and not declared.vocabulary)):
        return Nature(f"a model of images or sound{in_brackets}")
    kinds = {"dense": _MEAN}
    if own_heads:
        kinds |= dict.fromkeys(("rerank", "classify"), f"It is read by code of its own, {min(own_heads)}.")
    return Nature(f"a text encoder{in_brackets}", kinds)


def _of_classifier(declared: Declared) -> Nature:
    """The nature of a model with a head for whole texts; transformers gives it two labels where none are named."""
    count = 2 if declared.labels is None else len(declared.labels)
    if count == 1:
        return _RERANKER
    exclusive = declared.problem_type in (None, "single_label_classification")
    kinds = {"classify": None, "rerank": None} if count == 2 and exclusive else {"classify": None}
    regression = declared.problem_type == "regression"
    return Nature(f"a regression of {count} numbers" if regression else f"a classifier of {count} labels", kinds)
