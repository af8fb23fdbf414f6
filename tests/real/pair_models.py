"""Small models that read pairs of texts: rerankers and classifiers of real architecture with random weights.

The weights are spread wider than a training would begin with, so that different inputs give clearly different scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from small_models import Dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NLI = ("entailment", "neutral", "contradiction")
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.3,
}
_LETTERS = [chr(code) for code in range(33, 127)]


def cross_encoder(
    folder: Path,
    *,
    labels: tuple[str, ...] = ("LABEL_0",),
    dtype: Dtype = "float32",
    longest: int | None = 128,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a BERT with a head of so many labels, as MiniLM rerankers are, into `folder` and return it.

    `longest` is what the tokenizer's file says; the model has 130 positions.
    """
    from transformers import BertConfig, BertForSequenceClassification

    _seed(seed)
    settings = BertConfig(vocab_size=len(_pieces()), max_position_embeddings=130, **_labels(labels), **_SIZES, **config)
    return _write(folder, BertForSequenceClassification(settings), _bert_tokenizer(longest), dtype)


def headless(folder: Path) -> Path:
    """Write a BERT without a head, as encoders of single texts are, into `folder` and return it."""
    from transformers import BertConfig, BertModel

    _seed(0)
    model = BertModel(BertConfig(vocab_size=len(_pieces()), max_position_embeddings=130, **_SIZES))
    return _write(folder, model, _bert_tokenizer(128), "float32")


def masked(folder: Path) -> Path:
    """Write a BERT with the head of a masked language model, as bert-base-uncased is, into `folder` and return it."""
    from transformers import BertConfig, BertForMaskedLM

    _seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(_pieces()), max_position_embeddings=130, **_SIZES))
    return _write(folder, model, _bert_tokenizer(128), "float32")


def roberta(folder: Path, *, labels: tuple[str, ...] = ("LABEL_0",)) -> Path:
    """Write an XLM-RoBERTa with a head, whose tokenizer's file names no limit, into `folder` and return it.

    It has 66 positions and counts from 2.
    """
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaTokenizer

    _seed(0)
    names = ("<s>", "<pad>", "</s>", "<unk>")
    vocabulary = [*((name, 0.0) for name in names), *_scored(), ("<mask>", 0.0)]
    settings = XLMRobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=66, type_vocab_size=1, **_labels(labels), **_SIZES
    )
    return _write(
        folder, XLMRobertaForSequenceClassification(settings), XLMRobertaTokenizer(vocab=vocabulary), "float32"
    )


def deberta(
    folder: Path,
    *,
    labels: tuple[str, ...] = NLI,
    dtype: Dtype = "float32",
    seed: int = 0,
    spread: float = _SIZES["initializer_range"],
) -> Path:
    """Write a DeBERTa-v3 with a Unigram vocabulary and a head into `folder` and return it.

    Its positions are relative, and its tokenizer's file names no limit, as those of the published ones.
    """
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, DebertaV2Tokenizer

    _seed(seed)
    names = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    vocabulary = [*((name, 0.0) for name in names), *_scored(), ("[MASK]", 0.0)]
    settings = DebertaV2Config(
        vocab_size=len(vocabulary),
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=32,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        **_labels(labels),
        **_SIZES | {"initializer_range": spread},
    )
    tokenizer = DebertaV2Tokenizer(vocab=vocabulary)
    return _write(folder, DebertaV2ForSequenceClassification(settings), tokenizer, dtype)


def _labels(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "num_labels": len(labels),
    }


def _pieces() -> list[str]:
    letters = dict.fromkeys([*_LETTERS, *("##" + letter for letter in _LETTERS)])
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]


def _bert_tokenizer(longest: int | None) -> Any:
    from transformers import BertTokenizer

    limit = {} if longest is None else {"model_max_length": longest}
    return BertTokenizer(vocab={piece: index for index, piece in enumerate(_pieces())}, **limit)


def _scored() -> list[tuple[str, float]]:
    pieces = dict.fromkeys(["▁", *("▁" + letter for letter in _LETTERS), *_LETTERS])
    return [(piece, -1.0 - index / len(pieces)) for index, piece in enumerate(pieces)]


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)


def _write(folder: Path, model: PreTrainedModel, tokenizer: Any, dtype: Dtype) -> Path:
    import torch

    folder.mkdir(parents=True)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def without_config(folder: Path) -> None:
    """Damage a model: its config.json is gone."""
    (folder / "config.json").unlink()


def with_a_shard_missing(folder: Path) -> None:
    """Damage a model: its weights are in several files, of which one is gone."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    max(folder.glob("model-0*.safetensors")).unlink()


def with_a_torn_header(folder: Path) -> None:
    """Damage a model: its weights begin with nonsense."""
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(8)
        file.write(b"\0" * 64)


def with_weights_of_another_shape(folder: Path) -> None:
    """Damage a model: its configuration says that it is wider than its weights."""
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8")
    assert '"hidden_size": 64' in text
    config.write_text(text.replace('"hidden_size": 64', '"hidden_size": 128'), encoding="utf-8")


DAMAGES = (without_config, with_a_shard_missing, with_a_torn_header, with_weights_of_another_shape)
