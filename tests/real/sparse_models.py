"""Small sparse encoders with random weights and real architecture, written as sentence-transformers writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from small_models import Dtype

WORDS = ("a", "pilot", "light", "is", "the", "small", "flame", "that", "stays", "lit", "short", "gas", "fire", "query")
LONGEST = 64  # tokens
_SIZES: dict[str, int] = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": LONGEST}


def splade(folder: Path, *, dtype: Dtype = "float32", prompts: dict[str, str] | None = None, seed: int = 0) -> Path:
    """Write a SPLADE over a DistilBERT with a masked-language-model head into `folder` and return it."""
    from sentence_transformers import SparseEncoder

    modules = _modules(folder, dtype, seed)
    SparseEncoder(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(folder), create_model_card=False)
    return _tidied(folder)


def two_ways(folder: Path, *, seed: int = 0) -> Path:
    """Write a model that reads passages as `splade` does and looks queries up in a table of weights."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import Router, SparseStaticEmbedding

    modules = _modules(folder, "float32", seed)
    tokenizer = modules[0].tokenizer
    table = SparseStaticEmbedding(tokenizer, weight=torch.rand(len(tokenizer)) + 0.1)
    router = Router.for_query_document(query_modules=[table], document_modules=modules)
    SparseEncoder(modules=[router], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return _tidied(folder)


def latents(folder: Path, dense: Path) -> Path:
    """Write a CSR model, an autoencoder with 8 active latents over the dense model in `dense`; returns its folder."""
    import torch
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    torch.manual_seed(0)
    body = SentenceTransformer(str(dense), device="cpu", local_files_only=True)
    modules = [*body, SparseAutoEncoder(input_dim=body.get_embedding_dimension() or 0, hidden_dim=256, k=8)]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def with_prompts(folder: Path, prompts: dict[str, str], *, include: bool = True, default: str | None = None) -> Path:
    """Give the model in `folder` prompts, which its pooling leaves out unless `include`, and return `folder`."""
    settings = folder / "config_sentence_transformers.json"
    said = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**said, "prompts": prompts, "default_prompt_name": default}), encoding="utf-8")
    pooling = folder / "1_Pooling" / "config.json"
    said = json.loads(pooling.read_text(encoding="utf-8"))
    pooling.write_text(json.dumps({**said, "include_prompt": include}), encoding="utf-8")
    return folder


def _modules(folder: Path, dtype: Dtype, seed: int) -> list[Any]:
    import torch
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    from transformers import BertTokenizer, DistilBertConfig, DistilBertForMaskedLM

    torch.manual_seed(seed)
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters), *WORDS]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=LONGEST)
    # Two rows more than tokens, as models have whose vocabulary was rounded up.
    config = DistilBertConfig(vocab_size=len(vocabulary) + 2, initializer_range=0.1, **_SIZES)
    bare = folder / "bare"
    bare.mkdir(parents=True)
    DistilBertForMaskedLM(config).to(getattr(torch, dtype)).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    body = Transformer(str(bare), transformer_task="fill-mask", model_kwargs={"dtype": "auto"})
    return [body, SpladePooling(pooling_strategy="max")]


def _tidied(folder: Path) -> Path:
    shutil.rmtree(folder / "bare")
    return folder
