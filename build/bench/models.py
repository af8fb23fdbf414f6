"""Models of real architecture and size with random weights, as sentence-transformers folders; no hub is asked.

Run as a script it makes all of them and prints their folders: python build/bench/models.py [FOLDER]
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT = "the pilot light keeps every encoder ready"
"""Eleven tokens with the two special ones, in the made-up vocabularies as in MiniLM's."""

FOLDER = Path(tempfile.gettempdir()) / "pilotlight-bench-models"
_REVISION = "1"  # part of each folder's name: a change to what stands in a folder needs another
_WORDS = ("the", "pilot", "light", "keeps", "every", "en", "ready")
_ENDINGS = ("code", "r")


def bert_base(cache: Path = FOLDER, *, dtype: str = "float32") -> Path:
    """Return the folder of a BERT-base (438 MB as float32) with a WordPiece vocabulary of 30,522 made-up pieces."""

    def build() -> tuple[Any, Any]:
        from transformers import BertConfig, BertModel, BertTokenizer

        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = itertools.chain(specials, _letters("", "##"), _WORDS, (f"##{e}" for e in _ENDINGS), _made_up("", "##"))
        vocabulary = {piece: index for index, piece in enumerate(itertools.islice(_distinct(pieces), 30_522))}
        return BertModel(BertConfig(vocab_size=len(vocabulary))), BertTokenizer(vocab=vocabulary, model_max_length=512)

    return _kept(cache, "bert-base", dtype, build)


def xlm_r_large(cache: Path = FOLDER, *, dtype: str = "float32") -> Path:
    """Return the folder of an XLM-RoBERTa-large (2.24 GB as float32) with 250,002 made-up Unigram pieces.

    The tokenizer is kept under its generic class, with which it is built in 1.6 s: under XLMRobertaTokenizer, as many
    folders name it, transformers reads its file twice and needs 3 s, and no comparison should gain by that.
    """

    def build() -> tuple[Any, Any]:
        from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

        size = 250_002
        words = (f"▁{word}" for word in _WORDS)
        pieces = itertools.chain(_letters("▁", ""), words, _ENDINGS, _made_up("▁", ""))
        scored = [(piece, -5.0 - 10.0 * i / size) for i, piece in enumerate(itertools.islice(_distinct(pieces), size))]
        specials = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
        vocabulary = [*specials, *scored[: size - 5], ("<mask>", 0.0)]
        config = XLMRobertaConfig(
            vocab_size=size,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        own = XLMRobertaTokenizer(vocab=vocabulary)
        names = {name: str(token) for name, token in own.special_tokens_map.items()}
        generic = PreTrainedTokenizerFast(tokenizer_object=own.backend_tokenizer, model_max_length=512, **names)
        return XLMRobertaModel(config), generic

    return _kept(cache, "xlm-r-large", dtype, build)


def settle(path: Path) -> None:
    """Bring a weights file into the page cache as it is there after a restart.

    The pages that a write leaves behind, or a fault here and there, lie in small folios: mapping them and giving them
    back takes many times longer (XLM-R-large: 22 ms instead of 1) than for the large ones that reading a file through
    brings. Pages that are mapped somewhere stay as they are.
    """
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.fsync(file.fileno())  # what is not yet written stays
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = bytearray(1 << 20)
        while file.readinto(buffer):
            pass


def _kept(cache: Path, name: str, dtype: str, build: Any) -> Path:
    """Return the model's folder in `cache`; makes it under another name first, so that one that is there is whole."""
    folder = cache / f"{name}-{dtype}-{_REVISION}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        try:
            _write(making, *_seeded(build), dtype)
            (making / "whole").rename(folder)
        finally:
            shutil.rmtree(making)
    return folder


def _seeded(build: Any) -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    return build()


def _write(folder: Path, model: PreTrainedModel, tokenizer: Any, dtype: str) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)  # that float16 is slow on a CPU is known
    bare, whole = folder / "bare", folder / "whole"  # a Transformer is made from a folder and maps its file
    model.to(getattr(torch, dtype)).save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    transformer = Transformer(str(bare), model_kwargs={"dtype": "auto"})
    chain = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(whole), create_model_card=False)


def _letters(first: str, inner: str) -> Iterator[str]:
    for letter in map(chr, range(33, 127)):
        yield from (first + letter, inner + letter)


def _made_up(first: str, inner: str) -> Iterator[str]:
    """Pieces of two to four syllables in three scripts, the first of a word and inner ones; never ends."""
    chance = random.Random(0)  # noqa: S311 - no secret
    scripts = (("bcdfghjklmnprstvwxz", "aeiouy"), ("бвгджзклмнпрстфхцчш", "аеиоуыэюя"), ("κλμνξπρστφχψ", "αεηιου"))
    while True:
        consonants, vowels = chance.choice(scripts)
        syllables = (chance.choice(consonants) + chance.choice(vowels) for _ in range(chance.randint(2, 4)))
        yield chance.choice((first, inner)) + "".join(syllables)


def _distinct(pieces: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for piece in pieces:
        if piece not in seen:
            seen.add(piece)
            yield piece


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for made in (bert_base(target), xlm_r_large(target), xlm_r_large(target, dtype="float16")):
        print(made)
