"""Run as a script: what sentence-transformers itself makes of some texts with the built-in encoder's weights."""

import json
import sys
from pathlib import Path

TEXTS = (
    "A pilot light is the small flame that stays lit.",
    "Was kostet ein Liter Öl in Köln?",
    "ランプに火をつける。",
    "short",
    "🔥 flames, 火, and \t tabs",
    "An encoder turns a text into a vector, and vectors can be compared. " * 40,
    "",
)


def main(target: str) -> None:
    """Write texts, vectors and token ids, with and without special tokens, to the file `target`."""
    from sentence_transformers import SentenceTransformer

    from engine.adapters.sources import locate as references

    folder = references.locate("builtin:all-MiniLM-L6-v2").source
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    limit = model.max_seq_length
    with_special = [model.tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in TEXTS]
    without = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    found = {
        "texts": TEXTS,
        "vectors": model.encode(list(TEXTS)).tolist(),
        "ids": with_special,
        "bare_ids": without,
        "vocabulary": len(model.tokenizer),
        "weights": f"{folder}/model.safetensors",
    }
    Path(target).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
