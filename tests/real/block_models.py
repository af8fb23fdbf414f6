"""Small models of every shape of stack that is streamed, with random weights and one input each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch

WORDS: Final = 400
_SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "vocab_size": WORDS,
}


@dataclass(frozen=True)
class Stacked:
    """A module, and what it makes of its input where `device` is."""

    module: Any
    run: Callable[[str], torch.Tensor]
    lists: tuple[int, ...]
    """How many blocks each of its lists has."""


def bert() -> Stacked:
    from transformers import BertConfig, BertModel

    return _of_text(BertModel(BertConfig(**_SIZES)))


def xlm_roberta() -> Stacked:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    return _of_text(XLMRobertaModel(XLMRobertaConfig(**_SIZES)))


def deberta() -> Stacked:
    from transformers import DebertaV2Config, DebertaV2Model

    relative = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}
    return _of_text(
        DebertaV2Model(DebertaV2Config(**_SIZES, **relative, norm_rel_ebd="layer_norm", share_att_key=True))
    )


def modern_bert() -> Stacked:
    from transformers import ModernBertConfig, ModernBertModel

    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    return _of_text(ModernBertModel(ModernBertConfig(**_SIZES, **special)))


def decoder() -> Stacked:
    """As Qwen3 is; its padding id is the last word's."""
    from transformers import Qwen3Config, Qwen3Model

    shape = {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": WORDS - 1, "use_cache": False}
    return _of_text(Qwen3Model(Qwen3Config(**_SIZES, **shape)))


def clip() -> Stacked:
    """Two towers."""
    from transformers import CLIPConfig, CLIPModel

    text = {**_SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
    vision = {key: _SIZES[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}
    vision |= {"num_hidden_layers": 3, "image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    ids, pixels = _ids(), torch.rand(2, 3, 16, 16)

    def run(device: str) -> torch.Tensor:
        found = module(input_ids=ids.to(device), pixel_values=pixels.to(device))
        return torch.cat([found.text_embeds, found.image_embeds]).cpu()

    return Stacked(module, run, (6, 3))


ALL: Final = (bert, xlm_roberta, deberta, modern_bert, decoder, clip)


def albert() -> Any:
    """One layer that runs six times: no list with two entries."""
    from transformers import AlbertConfig, AlbertModel

    return AlbertModel(AlbertConfig(**_SIZES, embedding_size=16)).eval()


def _of_text(module: Any) -> Stacked:
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    module.eval()
    ids = _ids()
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0

    def run(device: str) -> torch.Tensor:
        return module(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state.cpu()

    return Stacked(module, run, (6,))


def _ids() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, WORDS, (3, 11), generator=generator)
    ids[:, 5] = ids[:, 2]
    ids[:, -1] = 2
    return ids
