"""One settings file with an encoder of every kind, on small models of the real architectures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import image_text_models
import multi_models
import pair_models
import picture_files
import plugin_packages
import sparse_models
import tag_models

LIBRARIES: Final = ("torch", "transformers", "sentence_transformers", "spacy", "open_clip", "tokenizers", "safetensors")
LABELS: Final = ("contradiction", "entailment", "neutral")
COMPONENTS: Final = (
    "minilm", "splade", "m3", "reranker", "nli", "photo.text", "photo.image", "tagger", "meaning", "shouter",
)  # fmt: skip


def settings(folder: Path) -> str:
    """Make the models in `folder`, with the plug-in's package in its `site`, and return the settings file's text."""
    sparse_models.splade(folder / "splade")
    multi_models.m3(folder / "m3")
    pair_models.cross_encoder(folder / "reranker")
    pair_models.deberta(folder / "nli", labels=LABELS)
    image_text_models.image_text_model(folder / "photo", "clip")
    tag_models.trained().to_disk(folder / "tagger")
    site = folder / "site"
    site.mkdir()
    plugin_packages.install(site, "shouting", plugin_packages.EXAMPLE, entry="shouter = shouting:Shouter")
    models = {
        "minilm": ("dense", "builtin:all-MiniLM-L6-v2"),
        "splade": ("sparse", folder / "splade"),
        "m3": ("multi", folder / "m3"),
        "reranker": ("rerank", folder / "reranker"),
        "nli": ("classify", folder / "nli"),
        "photo": ("image_text", folder / "photo"),
        "tagger": ("tag", folder / "tagger"),
        "shouter": ("plugin", "shouter"),
    }
    tables = [f'[encoders.{name}]\nkind = "{kind}"\nmodel = "{model}"\n' for name, (kind, model) in models.items()]
    tables.insert(-1, '[encoders.meaning]\nkind = "axes"\nbase = "minilm"\n')
    return '[hardware]\ndevice = "cpu"\nidle_timeout_seconds = 0\n\n' + "\n".join(tables)


def requests() -> dict[str, tuple[str, dict[str, Any]]]:
    """Component -> a path and a body that use it and, of those with weights, nothing but it and its base."""
    image = base64.b64encode(picture_files.written(picture_files.picture())).decode()
    return {
        "minilm": ("/encode/dense", {"texts": ["a small flame"], "task": "query"}),
        "splade": ("/encode/sparse", {"texts": ["a small flame"], "top_k": 5}),
        "m3": ("/encode/multi", {"texts": ["a small flame"], "return": ["dense", "sparse", "colbert"]}),
        "reranker": ("/encode/rerank", {"query": "fire", "texts": ["a small flame", "a fish"]}),
        "nli": ("/encode/classify", {"pairs": [["a small flame", "fire"]]}),
        "photo.text": ("/encode/image_text", {"texts": ["a small flame"]}),
        "photo.image": ("/encode/image", {"images": [image]}),
        "tagger": ("/encode/tag", {"texts": ["Anna lives in Paris ."]}),
        "meaning": ("/encode/axes", {"texts": ["a small flame"]}),
        "shouter": ("/encode/plugin", {"operation": "shout", "arguments": {"texts": ["hot"]}}),
    }
