"""What a folder states about itself against every kind of encoder, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from engine.adapters.sources import fit
from engine.adapters.sources.declared import Declared
from engine.adapters.sources.modules import Module
from engine.adapters.sources.own_code import Code
from engine.errors import Unavailable
from engine.settings.config import EncoderConfig


def refusal(declared: Declared, kind: str = "dense", **settings: Any) -> str:
    """The whole error of a folder that is not served, which has a next step; "" for one that is."""
    try:
        fit.check(declared, EncoderConfig("one", kind, "/model", **settings))
    except Unavailable as error:
        return f"{error.message} Next: {error.next_step}"
    return ""


KINDS = ("dense", "sparse", "multi", "rerank", "classify", "image_text", "tag")
BOTH = frozenset(("sparse_linear", "colbert_linear"))


def modules(*names: str, **first: Any) -> tuple[Module, ...]:
    """Modules of sentence-transformers; keywords are of the first one. A name with a dot is a whole type."""
    types = [name if "." in name else f"sentence_transformers.models.{name}" for name in names]
    return (Module(types[0], **first), *map(Module, types[1:]))


def folder(architecture: str = "", **facts: Any) -> Declared:
    """A whole folder whose config.json names `architecture`."""
    known = {"configured": True, "vocabulary": True, "image_processor": False}
    return Declared(architectures=(architecture,) if architecture else (), **known | facts)


DENSE = modules("Transformer", "Pooling", "Normalize")
SPLADE = modules("MLMTransformer", "SpladePooling", task="fill-mask")
YES_NO = modules("Transformer", "LogitScore", task="text-generation")
SCORES = (*modules("Transformer", "Pooling"), Module("sentence_transformers.models.Dense", output="scores", width=1))
WIDE = (*modules("Transformer", "Pooling"), Module("sentence_transformers.models.Dense", output="scores", width=3))
PAIRS = modules("Transformer", task="sequence-classification", output="scores")
OWN_HEAD = (Code("config.json", "modeling.OwnForSequenceClassification"),)
TENSORS = {
    "classifier": frozenset(("bert.encoder", "classifier.weight")),
    "masked": frozenset(("roberta.encoder", "lm_head.dense", "lm_head.layer_norm")),
    "chat": frozenset(("model.embed_tokens", "model.layers", "lm_head.weight")),
    "bare": frozenset(("embeddings.word_embeddings", "encoder.layer")),
}

TABLE: dict[str, tuple[Declared, str]] = {
    "a body": (folder("BertModel"), "dense*"),
    "a causal body": (folder("Qwen3Model"), "dense*"),
    "a masked language model": (folder("BertForMaskedLM"), "dense*"),
    "a model before its fine-tuning": (folder("ElectraForPreTraining"), "dense*"),
    "an old masked language model": (folder("XLMWithLMHeadModel"), "dense*"),
    "a T5": (folder("T5ForConditionalGeneration", encoder_decoder=True), "dense*"),
    "a reranker": (folder("XLMRobertaForSequenceClassification", labels=("LABEL_0",)), "rerank classify"),
    "two labels": (folder("BertForSequenceClassification", labels=("no", "yes")), "classify rerank"),
    "two labels by default": (folder("BertForSequenceClassification"), "classify rerank"),
    "two independent labels": (
        folder("BertForSequenceClassification", labels=("a", "b"), problem_type="multi_label_classification"),
        "classify",
    ),
    "three labels": (folder("BertForSequenceClassification", labels=("a", "b", "c")), "classify"),
    "a chat model": (folder("LlamaForCausalLM"), ""),
    "an older chat model": (folder("GPT2LMHeadModel"), ""),
    "a chat model that sees": (
        folder("LlavaForConditionalGeneration", encoder_decoder=True, image_processor=True, vision=True),
        "",
    ),
    "names of tokens": (folder("BertForTokenClassification", labels=("O", "B-PER")), ""),
    "answers in a text": (folder("BertForQuestionAnswering"), ""),
    "late interaction, without modules": (folder("HF_ColBERT", model_type="bert"), ""),
    "late interaction of pictures": (folder("ColQwen2", model_type="qwen2_vl"), ""),
    "images and texts of a type that is not served": (folder("ChineseCLIPModel", vision=True), ""),
    "images alone": (folder("ViTModel", vocabulary=False, image_processor=True), ""),
    "sound": (folder("Wav2Vec2ForCTC", vocabulary=True, image_processor=True), ""),
    "a class of its own": (folder("OwnForRetrieval", code=(Code("config.json", "own.Model"),)), "dense*"),
    "a head of its own": (folder("OwnModel", code=OWN_HEAD), "dense* rerank* classify*"),
    "CLIP": (folder("CLIPModel", model_type="clip", vision=True, image_processor=True), "image_text"),
    "SigLIP": (folder("SiglipModel", model_type="siglip", vision=True, image_processor=True), "image_text"),
    "images with code of its own": (
        folder("OwnModel", model_type="own", vision=True, code=(Code("config.json", "own.Config"),)),
        "image_text*",
    ),
    "open_clip": (Declared(open_clip=True), "image_text"),
    "spaCy": (Declared(spacy=True), "tag"),
    "BGE-M3": (folder("XLMRobertaModel", modules=DENSE, heads=BOTH), "multi dense"),
    "BGE-M3 without modules.json": (folder("XLMRobertaModel", heads=BOTH), "multi"),
    "one head": (folder("XLMRobertaModel", modules=DENSE, heads=frozenset(("sparse_linear",))), "dense"),
    "dense": (folder("BertModel", modules=DENSE), "dense"),
    "dense by a newer version": (folder("BertModel", modules=DENSE, saved_as="SentenceTransformer"), "dense"),
    "dense over a causal model": (folder("Qwen3ForCausalLM", modules=DENSE), "dense"),
    "dense over a CLIP": (folder("CLIPModel", modules=modules("Transformer", output="sentence_embedding")), "dense"),
    "a table of vectors": (Declared(modules=modules("StaticEmbedding"), vocabulary=True), "dense"),
    "modules that pool nothing": (folder("BertModel", modules=modules("Transformer", "Normalize")), ""),
    "modules.json is lost": (folder("BertModel", had_modules=True), ""),
    "SPLADE": (folder("BertForMaskedLM", modules=SPLADE, saved_as="SparseEncoder"), "sparse"),
    "SPLADE that does not say so": (folder("BertForMaskedLM", modules=SPLADE), ""),
    "CSR": (
        folder("BertModel", modules=modules("Transformer", "Pooling", "SparseAutoEncoder"), saved_as="SparseEncoder"),
        "sparse",
    ),
    "a saved reranker": (
        folder("BertForSequenceClassification", labels=("x",), modules=PAIRS, saved_as="CrossEncoder"),
        "rerank classify",
    ),
    "a saved classifier": (
        folder("BertForSequenceClassification", labels=("a", "b", "c"), modules=PAIRS, saved_as="CrossEncoder"),
        "classify",
    ),
    "a reranker of a chat model": (folder("LlamaForCausalLM", modules=YES_NO, saved_as="CrossEncoder"), "rerank"),
    "the same, but it does not say so": (folder("LlamaForCausalLM", modules=YES_NO), ""),
    "a reranker with a Dense": (folder("BertModel", modules=SCORES, saved_as="CrossEncoder"), "rerank"),
    "a wide Dense": (folder("BertModel", modules=WIDE, saved_as="CrossEncoder"), ""),
    "ColBERT": (folder("BertModel", modules=modules("Transformer", "Dense"), saved_as="MultiVectorEncoder"), ""),
    "PyLate": (folder("BertModel", modules=modules("Transformer", "pylate.models.Dense.Dense")), ""),
    "a class of the future": (folder("BertModel", modules=DENSE, saved_as="GraphEncoder"), ""),
    "no architecture, the head of a classifier": (
        folder(labels=("a", "b", "c"), tensors=TENSORS["classifier"]),
        "classify*",
    ),
    "no architecture, a masked language model": (folder(tensors=TENSORS["masked"]), "dense*"),
    "no architecture, a chat model": (folder(tensors=TENSORS["chat"]), ""),
    "no architecture, a body": (folder(tensors=TENSORS["bare"]), "dense*"),
    "no architecture, pickled, with labels": (folder(labels=("a",)), "rerank* classify*"),
}
"""Facts of a folder -> the kinds that can serve it; with a star those that take an assumption."""


@pytest.mark.parametrize("case", TABLE)
def test_a_folder_serves_the_kinds_that_it_states_and_no_other(case: str) -> None:
    declared, wanted = TABLE[case]
    served = set()
    for kind in KINDS:
        part = "text" if kind == "image_text" else None
        if not (error := refusal(declared, kind, part=part)):
            served.add(kind + "*" * bool(fit.check(declared, EncoderConfig("one", kind, "/model", part=part))))
            continue
        assert "/model" in error
        assert "Next: None" not in error
        if kind != "multi":
            assert all(f'kind = "{other}"' in error for other in wanted.replace("*", "").split())
    assert served == {*wanted.split()}


@pytest.mark.parametrize(
    ("declared", "kind", "said"),
    [
        (folder("BertModel", adapter="org/base"), "dense", "adapter (LoRA) for org/base"),
        (folder("BertModel", adapter=""), "rerank", "adapter (LoRA) for another model"),
        (Declared(adapter="org/base"), "tag", "peft"),
        (folder("BertModel", unreadable="config.json"), "dense", "config.json cannot be read"),
        (folder("BertModel", modules=()), "dense", "names no module"),
        (folder("BertModel", modules=modules("Pooling", lacks="1_P/config.json")), "dense", "lacks 1_P/config.json"),
        (folder("BertModel", vocabulary=False), "dense", "tokenizer.json"),
        (folder("CLIPModel", model_type="clip", vocabulary=False), "image_text", "tokenizer.json"),
        (folder("BertModel"), "multi", "no sparse_linear.safetensors and no sparse_linear.pt"),
        (folder("BertForMaskedLM"), "sparse", "modules.json"),
        (folder("BertForMaskedLM", modules=SPLADE), "sparse", '"model_type" is "SparseEncoder"'),
    ],
)
def test_the_missing_file_is_named(declared: Declared, kind: str, said: str) -> None:
    assert said in refusal(declared, kind)


def test_a_folder_that_states_nothing_is_left_to_other_checks() -> None:
    assert [refusal(Declared(), kind) for kind in KINDS] == [""] * len(KINDS)


def test_each_part_needs_its_own_files() -> None:
    declared = folder("CLIPModel", model_type="clip", vocabulary=False, image_processor=False)
    assert "tokenizer.json" in refusal(declared, "image_text", part="text")
    assert "preprocessor_config.json" in refusal(declared, "image_text", part="image")


@pytest.mark.parametrize(
    "own",
    [
        modules("Transformer", "own.Thing"),
        (*DENSE, Module("sentence_transformers.models.Dense", activation="own.Act")),
    ],
)
def test_code_of_the_models_own_takes_trust_and_is_not_judged(own: tuple[Module, ...]) -> None:
    declared = folder("BertModel", modules=own)
    assert "trust_remote_code = true under [encoders.one]" in refusal(declared)
    assert refusal(declared, trust_remote_code=True) == ""


def test_code_that_the_library_puts_a_class_of_its_own_in_place_of_is_told() -> None:
    declared = folder("Qwen2Model", modules=DENSE, code=(Code("config.json", "modeling.TwoWays"),))
    [told] = fit.check(declared, EncoderConfig("one", "dense", "/model"))
    assert "modeling.TwoWays" in told
    assert "trust_remote_code" in told
    assert fit.check(declared, EncoderConfig("one", "dense", "/model", trust_remote_code=True)) == ()


def test_an_activation_of_torch_takes_no_trust() -> None:
    tanh = Module("sentence_transformers.models.Dense", activation="torch.nn.modules.activation.Tanh")
    assert refusal(folder("BertModel", modules=(*DENSE, tanh))) == ""


def test_open_clip_reads_its_own_weights_whatever_the_folder_states() -> None:
    config = EncoderConfig("one", "image_text", "open-clip:ViT-B-32/openai", part="text")
    assert fit.check(folder("BertModel"), config, open_clip=True) == ()
