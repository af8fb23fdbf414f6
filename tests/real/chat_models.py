"""A small language model that writes text, as chat models are, and an adapter (LoRA) without its base model."""

from __future__ import annotations

import json
from pathlib import Path

_LETTERS = [chr(code) for code in range(33, 127)]
_WORDS = ("yes", "no", "pilot", "light", "flame", "query")


def chat_model(folder: Path, *, bare: bool = False) -> Path:
    """Write a Llama with two layers, and "yes" and "no" among its tokens, into `folder`; `bare` leaves the head out."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    pieces = dict.fromkeys(("<pad>", "<unk>", "</s>", *_LETTERS, *_WORDS))
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    words = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=128
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, initializer_range=0.3, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    (LlamaModel if bare else LlamaForCausalLM)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def as_reranker(folder: Path, chat: Path) -> Path:
    """Write a reranker by the tokens "yes" and "no" of a chat model, as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(chat), device="cpu", local_files_only=True).save_pretrained(str(folder))
    return folder


def adapter(folder: Path, base: str = "BAAI/bge-small-en") -> Path:
    """Write an adapter (LoRA) alone into `folder`, as peft saves it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    said = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 8, "lora_alpha": 16, "target_modules": ["query"]}
    (folder / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
    save_file({name: torch.zeros(8, 64)}, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder
