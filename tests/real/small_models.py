"""Small models with random weights and real architecture, written as sentence-transformers writes them.

Each loads in milliseconds and is some hundred KB: for what the engine does with files, not for what a model says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DIMENSION = 64
_SIZES: dict[str, int] = {
    "hidden_size": DIMENSION,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 4 * DIMENSION,
    "max_position_embeddings": 130,
}
_LONGEST = 128  # tokens; XLM-RoBERTa counts its positions from 2
_SHARD = "150KB"  # four or five shards

Dtype = Literal["float32", "float16", "bfloat16"]
Layout = Literal["safetensors", "sharded", "bin"]
"""One model.safetensors; several of them with their index; or a pytorch_model.bin and no safetensors at all."""


def bert(
    folder: Path, *, dtype: Dtype = "float32", layout: Layout = "safetensors", dense: bool = False, seed: int = 0
) -> Path:
    """Write a BERT with two layers and a WordPiece vocabulary into `folder` and return it.

    With `dense` a Dense layer, whose weights lie in a safetensors file of their own, halves the dimension.
    """
    from transformers import BertConfig, BertModel, BertTokenizer

    _seed(seed)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_characters("", "##")]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, model_max_length=_LONGEST)
    model = BertModel(BertConfig(vocab_size=len(pieces), **_SIZES))
    return _write(folder, model, tokenizer, dtype, layout, dense)


def xlm_roberta(
    folder: Path, *, dtype: Dtype = "float32", layout: Layout = "safetensors", dense: bool = False, seed: int = 0
) -> Path:
    """Write an XLM-RoBERTa with two layers and a Unigram vocabulary into `folder` and return it; as `bert`."""
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

    _seed(seed)
    pieces = ["▁", *_characters("▁", "")]
    scored = [(piece, -1.0 - index / len(pieces)) for index, piece in enumerate(pieces)]
    vocabulary = [*((name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")), *scored, ("<mask>", 0.0)]
    tokenizer = XLMRobertaTokenizer(vocab=vocabulary, model_max_length=_LONGEST)
    model = XLMRobertaModel(XLMRobertaConfig(vocab_size=len(vocabulary), type_vocab_size=1, **_SIZES))
    return _write(folder, model, tokenizer, dtype, layout, dense)


def as_in_a_hub_cache(model: Path, cache: Path) -> Path:
    """Lay out a copy of the folder `model` in `cache` as huggingface_hub does, and return its snapshot folder.

    Every file there is a relative link into blobs/, where files are named for their SHA-256.
    """
    repository = cache / "models--pilotlight--small"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)


def _characters(first: str, inner: str) -> Iterable[str]:
    letters = [chr(code) for code in range(33, 127)]
    return dict.fromkeys([*(first + letter for letter in letters), *(inner + letter for letter in letters)])


def _write(folder: Path, model: PreTrainedModel, tokenizer: Any, dtype: Dtype, layout: Layout, dense: bool) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    folder.mkdir(parents=True)
    model = model.to(getattr(torch, dtype))
    bare = folder / "bare"  # a Transformer is made from a folder
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    chain: list[Any] = [Transformer(str(bare), model_kwargs={"dtype": "auto"}), Pooling(DIMENSION, pooling_mode="mean")]
    if dense:
        chain.append(Dense(DIMENSION, DIMENSION // 2))
    chain.append(Normalize())
    SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(folder), create_model_card=False)
    shutil.rmtree(bare)
    if layout == "safetensors":
        return folder
    (folder / "model.safetensors").unlink()
    if layout == "sharded":
        model.save_pretrained(folder, max_shard_size=_SHARD)
    else:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder
