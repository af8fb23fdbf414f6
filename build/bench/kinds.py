"""The cost of Pilotlight over the library of each kind, and its savings: one tower of two, one text for three encoders.

In one process, in turns: the same inputs through Pilotlight's proxy and through the library called directly. Dense is
MiniLM, the others are of real architecture and about its size, with random weights. Prints per kind the medians over
the rounds and their ratio, a bundle beside its parts one after the other, and the bytes of each tower beside both.

    python3 build/dev.py bench kinds [-- --rounds 15 --texts 16]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests" / "real"))  # the small models' makers

import image_text_models
import pair_models
import picture_files
import sparse_models

SENTENCE = "a pilot light keeps every burner ready to light at once"
WIDTH = 384
LAYERS = {"hidden_size": WIDTH, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}

Call = Callable[[], Any]


def enlarge() -> None:
    """Let the makers of the tests' small models make them about as large as MiniLM."""
    pair_models._SIZES.update(LAYERS)
    sparse_models._SIZES.update(dim=WIDTH, n_layers=6, n_heads=12, hidden_dim=1536)


def build(folder: Path) -> Any:
    """Return an engine with an encoder of each kind that is timed, whose models are made in `folder`."""
    from engine import Engine, parse

    models = {
        "dense": "builtin:all-MiniLM-L6-v2",
        "sparse": sparse_models.splade(folder / "sparse"),
        "rerank": pair_models.cross_encoder(folder / "rerank"),
        "classify": pair_models.deberta(folder / "classify"),
        "image_text": image_text_models.image_text_model(folder / "image_text", "clip", width=WIDTH),
    }
    encoders = {kind: {"kind": kind, "model": str(model)} for kind, model in models.items()}
    encoders["axes"] = {"kind": "axes", "base": "dense"}
    return Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders}))


def by_library(folder: Path, texts: list[str], pictures: list[bytes]) -> dict[str, Call]:
    """Return for each kind the same question to its library, called as its documentation says."""
    import io

    import torch
    from PIL import Image
    from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, CLIPModel, CLIPProcessor

    from engine.adapters.sources.locate import locate

    dense = SentenceTransformer(locate("builtin:all-MiniLM-L6-v2").source, device="cpu")
    sparse = SparseEncoder(str(folder / "sparse"), device="cpu")
    rerank = CrossEncoder(str(folder / "rerank"), device="cpu")
    nli = AutoModelForSequenceClassification.from_pretrained(folder / "classify").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "classify")
    clip = CLIPModel.from_pretrained(folder / "image_text").eval()
    processor = CLIPProcessor.from_pretrained(folder / "image_text")

    def classified() -> Any:
        with torch.inference_mode():
            features = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            return nli(**features).logits.softmax(-1).numpy()

    def seen() -> Any:
        images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
        with torch.inference_mode():
            return clip.get_image_features(**processor(images=images, return_tensors="pt"))

    return {
        "dense": lambda: dense.encode(texts),
        "sparse": lambda: sparse.encode(texts),
        "rerank": lambda: rerank.predict([(SENTENCE, text) for text in texts]),
        "classify": classified,
        "images": seen,
    }


def by_pilotlight(engine: Any, texts: list[str], pictures: list[bytes]) -> dict[str, Call]:
    """Return for each kind the question to its proxy."""
    return {
        "dense": lambda: engine.dense().encode(texts),
        "sparse": lambda: engine.sparse().encode(texts),
        "rerank": lambda: engine.rerank().score(SENTENCE, texts),
        "classify": lambda: engine.classify().classify(texts),
        "images": lambda: engine.image_text().encode_images(pictures),
    }


def bundles(engine: Any) -> dict[str, tuple[Call, Call]]:
    """Return for each bundle the bundled call and its parts, called one after the other."""

    def two() -> Any:
        return engine.dense().encode([SENTENCE], task="query"), engine.sparse().encode([SENTENCE], task="query")

    def three() -> Any:
        return *two(), engine.axes().encode([SENTENCE], task="query")

    return {"dense, sparse and axes": (lambda: engine.bundle(SENTENCE), three)}


def medians(ours: Call, theirs: Call, rounds: int) -> tuple[float, float]:
    """Return the median seconds of both, called in turns after two rounds of warm-up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        calls = (ours, theirs) if number % 2 else (theirs, ours)
        for call in calls:
            began = time.perf_counter()
            call()
            if number >= 2:
                taken[call is theirs].append(time.perf_counter() - began)
    return statistics.median(taken[0]), statistics.median(taken[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=16)
    options = parser.parse_args()
    texts = [SENTENCE + " and again" * (index % 4) for index in range(options.texts)]
    pictures = [picture_files.written(picture_files.picture(seed=seed)) for seed in range(options.texts)]
    enlarge()
    with tempfile.TemporaryDirectory() as made:
        engine = build(Path(made))
        library = by_library(Path(made), texts, pictures)
        pairs = {kind: (ours, library[kind]) for kind, ours in by_pilotlight(engine, texts, pictures).items()}
        print(f"{options.texts} inputs, medians of {options.rounds} rounds in turns")
        for what, (ours, theirs) in {**pairs, **bundles(engine)}.items():
            mine, other = medians(ours, theirs, options.rounds)
            against = "its parts" if what not in pairs else "its library"
            print(f"{what}: {mine * 1000:.1f} ms, {against} {other * 1000:.1f} ms, ratio {mine / other:.2f}")
        engine.image_text().encode_texts([SENTENCE])
        both = (Path(made) / "image_text" / "model.safetensors").stat().st_size
        towers = {view.name: view.bytes_total or 0 for view in engine.views() if view.kind == "image_text"}
        for name, size in towers.items():
            print(f"{name}: {size / 2**20:.1f} MiB of the file's {both / 2**20:.1f}, ratio {size / both:.2f}")
        engine.close()


if __name__ == "__main__":
    main()
