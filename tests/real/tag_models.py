"""Small spaCy pipelines: a tagger and an entity recognizer, trained on a few sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_WIDTH: Final = 24
_ROUNDS: Final = 20
_TAGGED: Final = [
    ("Anna lives in Paris .", ["NNP", "VBZ", "IN", "NNP", "."], [(0, 4, "PERSON"), (14, 19, "PLACE")]),
    ("Ben likes green tea .", ["NNP", "VBZ", "JJ", "NN", "."], [(0, 3, "PERSON")]),
    ("Clara went to Rome .", ["NNP", "VBD", "IN", "NNP", "."], [(0, 5, "PERSON"), (14, 18, "PLACE")]),
    ("The old lamp burns .", ["DT", "JJ", "NN", "VBZ", "."], []),
]


def trained() -> Any:
    """An English pipeline that knows the words of its four sentences; 0.2 MB of weights."""
    import spacy
    from spacy.training import Example
    from spacy.util import fix_random_seed

    fix_random_seed(0)
    nlp = spacy.blank("en")
    small = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "pretrained_vectors": None,
        "width": _WIDTH,
        "depth": 1,
        "embed_size": 200,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
    }
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": small}})
    parser = {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner", "hidden_width": _WIDTH}
    parser |= {"extra_state_tokens": False, "maxout_pieces": 2, "use_upper": True}
    nlp.add_pipe("ner", config={"model": {**parser, "tok2vec": small}})
    examples = [
        Example.from_dict(nlp.make_doc(text), {"tags": tags, "entities": entities}) for text, tags, entities in _TAGGED
    ]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 0.02
    for _ in range(_ROUNDS):
        nlp.update(examples, sgd=optimizer)
    nlp.add_pipe("attribute_ruler").add([[{"TAG": "NNP"}]], {"POS": "PROPN", "LEMMA": "name"})
    return nlp


def change_meta(folder: Path, **fields: Any) -> None:
    """Write other fields into a pipeline's `meta.json`."""
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def as_a_package(nlp: Any, site: Path, name: str, version: str) -> Path:
    """Lay a pipeline out in `site` as `spacy package` and pip do; returns the package's folder."""
    package = site / name
    lang, _, short = name.partition("_")
    data = package / f"{name}-{version}"
    package.mkdir()
    nlp.to_disk(data)
    for folder in (package, data):
        (folder / "meta.json").write_text((data / "meta.json").read_text())
        change_meta(folder, lang=lang, name=short, version=version)
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from spacy.util import load_model_from_init_py\n"
        "def load(**overrides):\n"
        "    return load_model_from_init_py(__file__, **overrides)\n"
    )
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return package
