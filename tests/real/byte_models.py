"""Small models of causal and of encoder-decoder families, which read bytes and put no special tokens around a text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

_SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
}


def byte_tokenizer(*, pad: str | None = None, side: str = "right", longest: int | None = None) -> Any:
    """Return a tokenizer of single bytes with the token <|endoftext|>, as GPT-2's without its merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {piece: index for index, piece in enumerate(bytes_to_unicode().values())}
    for token in ("<|endoftext|>", "<pad>"):
        vocabulary[token] = len(vocabulary)
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    more = {} if pad is None else {"pad_token": pad}
    if longest is not None:
        more["model_max_length"] = longest  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", padding_side=side, **more)


def gpt2(folder: Path, tokenizer: Any, *, pooling: str = "mean") -> Path:
    """Write a GPT-2 with 64 absolute positions and a pooling into `folder` and return it."""
    from transformers import GPT2Config, GPT2Model

    _seed()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _sentence(folder, GPT2Model(config), tokenizer, pooling)


def qwen3(folder: Path, tokenizer: Any, *, pooling: str = "lasttoken") -> Path:
    """Write a Qwen3 with rotary positions and a pooling into `folder` and return it."""
    from transformers import Qwen3Config, Qwen3Model

    _seed()
    config = Qwen3Config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **_SIZES)
    return _sentence(folder, Qwen3Model(config), tokenizer, pooling)


def qwen3_pairs(folder: Path, tokenizer: Any, *, labels: int = 1, pad_in_config: bool = True) -> Path:
    """Write a Qwen3 with a head that reads the last token into `folder` and return it."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    _seed()
    known = tokenizer.pad_token_id if pad_in_config else None
    config = Qwen3Config(vocab_size=len(tokenizer), pad_token_id=known, num_labels=labels, **_SIZES)
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5(folder: Path, tokenizer: Any) -> Path:
    """Write a T5, whose positions are relative and end nowhere, with mean pooling into `folder` and return it."""
    from transformers import T5Config, T5EncoderModel

    _seed()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, initializer_factor=0.5
    )
    return _sentence(folder, T5EncoderModel(config), tokenizer, "mean")


def opt(folder: Path, tokenizer: Any) -> Path:
    """Write an OPT with mean pooling, whose 64 positions are the rows from the third on, into `folder`; return it."""
    from transformers import OPTConfig, OPTModel

    _seed()
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, init_std=0.3, pad_token_id=1,
    )  # fmt: skip
    return _sentence(folder, OPTModel(config), tokenizer, "mean")


def bart(folder: Path, tokenizer: Any) -> Path:
    """Write a BART with mean pooling, whose 64 positions are the rows from the third on, into `folder`; return it."""
    from transformers import BartConfig, BartModel

    _seed()
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.3,
    )  # fmt: skip
    return _sentence(folder, BartModel(config), tokenizer, "mean")


def mpnet(folder: Path, tokenizer: Any) -> Path:
    """Write an MPNet, which reads 62 tokens with 64 positions, with mean pooling into `folder` and return it."""
    from transformers import MPNetConfig, MPNetModel

    _seed()
    sizes = {key: _SIZES[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "initializer_range")}
    config = MPNetConfig(
        vocab_size=len(tokenizer), num_attention_heads=2, max_position_embeddings=64, pad_token_id=1, **sizes
    )
    return _sentence(folder, MPNetModel(config), tokenizer, "mean")


def mpt(folder: Path, tokenizer: Any) -> Path:
    """Write an MPT, which makes distances between 64 tokens, with mean pooling into `folder` and return it."""
    from transformers import MptConfig, MptModel

    _seed()
    sizes = {"d_model": 32, "n_heads": 2, "n_layers": 2, "max_seq_len": 64, "initializer_range": 0.3}
    return _sentence(folder, MptModel(MptConfig(vocab_size=len(tokenizer), **sizes)), tokenizer, "mean")


def _seed() -> None:
    import torch

    torch.manual_seed(0)


def _sentence(folder: Path, model: Any, tokenizer: Any, pooling: str) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    bare = folder / "bare"
    bare.mkdir(parents=True)
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    modules = [Transformer(str(bare)), Pooling(32, pooling_mode=pooling)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    shutil.rmtree(bare)
    return folder
