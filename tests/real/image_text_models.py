"""Small CLIP, SigLIP and SigLIP 2 with random weights and their own tokenizers and image processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

Family = Literal["clip", "siglip", "siglip2"]
FAMILIES: tuple[Family, ...] = ("clip", "siglip", "siglip2")
IMAGE_SIZE = 32
DIMENSIONS = {"clip": 24, "siglip": 32, "siglip2": 32}
SCALE, BIAS = 4.7, -12.9  # about SigLIP's own


def _layers(width: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}


def image_text_model(folder: Path, family: Family, *, dtype: str = "float32", width: int = 32) -> Path:
    """Write a model with two layers a tower into `folder` as transformers writes it, and return the folder.

    Its vectors are as long as `DIMENSIONS` says, a SigLIP's as `width`.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config, model, tokenizer, processor = _clip(width) if family == "clip" else _siglip(family, width)
    made = getattr(transformers, model)(config)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)  # as the library begins, every input would come out alike
            elif name == "logit_scale":
                weight.fill_(SCALE)
            elif name == "logit_bias":
                weight.fill_(BIAS)
    made.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    if family == "siglip":
        _as_published(folder / "tokenizer_config.json")
    return folder


def _clip(width: int) -> tuple[Any, str, Any, Any]:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPTokenizer

    letters = sorted({*_byte_letters()})
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>"]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=77)
    first, last = len(pieces) - 2, len(pieces) - 1
    text = {"vocab_size": len(pieces), "bos_token_id": first, "eos_token_id": last, "pad_token_id": last}
    config = CLIPConfig(
        text_config=_layers(width) | text, vision_config=_layers(width) | _vision(), projection_dim=DIMENSIONS["clip"]
    )
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return config, "CLIPModel", tokenizer, CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=size)


def _siglip(family: Family, width: int) -> tuple[Any, str, Any, Any]:
    from transformers import (
        GemmaTokenizer,
        Siglip2Config,
        Siglip2ImageProcessorPil,
        Siglip2Tokenizer,
        SiglipConfig,
        SiglipImageProcessorPil,
    )

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *(chr(code) for code in range(97, 123)), "ca", "cat"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    options = {"model_max_length": 64, "padding_side": "right", "model_input_names": ["input_ids"]}
    kind = GemmaTokenizer if family == "siglip" else Siglip2Tokenizer
    tokenizer = kind(vocab=vocabulary, merges=[("c", "a"), ("ca", "t")], **options)
    text = {"vocab_size": len(pieces), "max_position_embeddings": 64, "projection_size": width}
    text |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    if family == "siglip2":
        patches = {"patch_size": 8, "num_patches": 16}
        config: Any = Siglip2Config(text_config=_layers(width) | text, vision_config=_layers(width) | patches)
        return config, "Siglip2Model", tokenizer, Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    config = SiglipConfig(text_config=_layers(width) | text, vision_config=_layers(width) | _vision())
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return config, "SiglipModel", tokenizer, SiglipImageProcessorPil(size=size)


def _vision() -> dict[str, int]:
    return {"image_size": IMAGE_SIZE, "patch_size": 8}


def _as_published(file: Path) -> None:
    """As SigLIP 2's repositories have it: Gemma's class by name, and no attention mask."""
    told = json.loads(file.read_text(encoding="utf-8"))
    assert told["tokenizer_class"] == "GemmaTokenizer"
    assert told["model_input_names"] == ["input_ids"]


def _byte_letters() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())
