"""Models of real architecture and size with random weights, as sentence-transformers folders; no hub is asked.

Run as a script it makes all of them and prints their folders: python build/bench/models.py [FOLDER]

Weights repeat one block of normal numbers, so that 2.24 GB are made in the time of writing them. The block's length is
prime, so no two rows of an embedding table are equal.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import struct
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
_REVISION = "2"  # part of each folder's name: another content of the folders needs another
_VOCABULARY = 250_002  # pieces of XLM-RoBERTa
_BLOCK = 6_700_417  # numbers
_SAFETENSORS_TYPES = {"torch.float32": "F32", "torch.float16": "F16"}
_WORDS = ("the", "pilot", "light", "keeps", "every", "en", "ready")
_ENDINGS = ("code", "r")


def bert_base(cache: Path = FOLDER, *, dtype: str = "float32") -> Path:
    """Return the folder of a BERT-base (438 MB as float32) with a WordPiece vocabulary of 30,522 made-up pieces."""

    def build() -> tuple[Any, Any]:
        import torch
        from transformers import BertConfig, BertModel, BertTokenizer

        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = itertools.chain(specials, _letters("", "##"), _WORDS, (f"##{e}" for e in _ENDINGS), _made_up("", "##"))
        vocabulary = {piece: index for index, piece in enumerate(itertools.islice(_distinct(pieces), 30_522))}
        config = BertConfig(vocab_size=len(vocabulary))
        with torch.device("meta"):
            model = BertModel(config)
        return model, BertTokenizer(vocab=vocabulary, model_max_length=512)

    return _kept(cache, "bert-base", dtype, build)


def xlm_r_large(cache: Path = FOLDER, *, dtype: str = "float32", pieces: int = _VOCABULARY) -> Path:
    """Return the folder of an XLM-RoBERTa-large (2.24 GB as float32) with made-up Unigram pieces.

    With fewer `pieces` than the real 250,002 the weights are as large and the tokenizer is read sooner.

    The tokenizer is kept under its generic class, with which it is built in 1.6 s. Under XLMRobertaTokenizer, which
    many folders name, transformers reads its file twice and needs 3 s; a comparison must not gain by that.
    """
    name = "xlm-r-large" if pieces == _VOCABULARY else f"xlm-r-large-{pieces}-pieces"

    def build() -> tuple[Any, Any]:
        import torch
        from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

        words = (f"▁{word}" for word in _WORDS)
        found = itertools.islice(
            _distinct(itertools.chain(_letters("▁", ""), words, _ENDINGS, _made_up("▁", ""))), pieces - 5
        )
        scored = [(piece, -5.0 - 10.0 * i / pieces) for i, piece in enumerate(found)]
        specials = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        vocabulary = [*specials, *scored, ("<mask>", 0.0)]
        config = XLMRobertaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        )
        own = XLMRobertaTokenizer(vocab=vocabulary)
        names = {role: str(token) for role, token in own.special_tokens_map.items()}
        generic = PreTrainedTokenizerFast(tokenizer_object=own.backend_tokenizer, model_max_length=512, **names)
        with torch.device("meta"):
            model = XLMRobertaModel(config)
        return model, generic

    return _kept(cache, name, dtype, build)


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
            whole, (model, tokenizer) = making / "whole", build()
            _write(whole, model, tokenizer, dtype)
            whole.rename(folder)
        finally:
            shutil.rmtree(making)
    return folder


def _write(folder: Path, model: PreTrainedModel, tokenizer: Any, dtype: str) -> None:
    """Write a model, which is on the meta device, with mean pooling and normalisation."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    model.to(getattr(torch, dtype)).config.save_pretrained(folder)
    _write_weights(folder / "model.safetensors", model)
    tokenizer.save_pretrained(folder)
    modules = {"": Transformer, "1_Pooling": Pooling, "2_Normalize": Normalize}
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": f"{module.__module__}.{module.__name__}"}
        for index, (path, module) in enumerate(modules.items())
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    for path, module in {"1_Pooling": Pooling(model.config.hidden_size, "mean"), "2_Normalize": Normalize()}.items():
        (folder / path).mkdir()
        module.save(str(folder / path))


def _write_weights(file: Path, model: PreTrainedModel) -> None:
    """Write the values of a new model: scales 1, biases 0, all others normal with deviation 0.02.

    The bytes go straight to the file: to build the tensors first takes as long as to write them.
    Layout: https://huggingface.co/docs/safetensors/index#format
    """
    import torch

    block = (0.02 * torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0))).to(model.dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in model.state_dict().items():
        begin, end = end, end + tensor.nbytes
        kind = _SAFETENSORS_TYPES[str(tensor.dtype)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    at = 0
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for name, tensor in model.state_dict().items():
            left = tensor.numel()
            if tensor.dim() == 1:
                out.write(torch.full((left,), 0.0 if name.endswith("bias") else 1.0, dtype=model.dtype).numpy().data)
                continue
            while left:
                part = block[at : at + left]
                out.write(part.numpy().data)
                at, left = (at + len(part)) % _BLOCK, left - len(part)


def _letters(first: str, inner: str) -> Iterator[str]:
    for letter in map(chr, range(33, 127)):
        yield from (first + letter, inner + letter)


def _made_up(first: str, inner: str) -> Iterator[str]:
    """Yield pieces of two to four syllables in three scripts, the first of a word and inner ones, without an end."""
    chance = random.Random(0)  # noqa: S311 - no secret
    letters = (("bcdfghjklmnprstvwxz", "aeiouy"), ("бвгджзклмнпрстфхцчш", "аеиоуыэюя"), ("κλμνξπρστφχψ", "αεηιου"))
    scripts = [[consonant + vowel for consonant in each[0] for vowel in each[1]] for each in letters]
    while True:
        syllables = chance.choices(chance.choice(scripts), k=chance.randint(2, 4))
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
