"""The memory of a tagger over many texts: bounded, whatever they are, and its answers stay the same."""

from __future__ import annotations

import random
import string
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tag_models import trained

from engine import Engine, parse
from engine.adapters.kinds import spacy_memory

MIB = 2**20

# spaCy's rules for lemmas warn of words without a part of speech; the adapter ignores it too.
pytestmark = pytest.mark.filterwarnings(r"ignore:\[W108\]")


@pytest.fixture(scope="module")
def nlp() -> Any:
    """A pipeline with each part of spaCy's that adds strings or keeps a table of words."""
    nlp = trained()
    nlp.add_pipe("entity_ruler", before="ner").add_patterns([{"label": "DRINK", "pattern": "tea", "id": "hot"}])
    nlp.add_pipe("sentencizer", first=True)
    lemmatizer = nlp.add_pipe("lemmatizer", config={"mode": "rule", "overwrite": True})
    lemmatizer.lookups.add_table("lemma_rules", {"propn": [["is", "i"]]})
    lemmatizer.lookups.add_table("lemma_index", {"propn": []})
    lemmatizer.lookups.add_table("lemma_exc", {"propn": {}})
    lemmatizer._validated = True
    return nlp


@pytest.fixture
def engine(nlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A tagger that keeps a hundred new strings instead of thousands."""
    monkeypatch.setattr(spacy_memory, "KEPT_STRINGS", 100)
    monkeypatch.setattr(spacy_memory, "_MOST_LEMMAS", 100)
    nlp.to_disk(tmp_path / "pipeline")
    with over(tmp_path / "pipeline") as engine:
        yield engine


def over(model: Path) -> Engine:
    return Engine(parse({"encoders": {"words": {"kind": "tag", "model": str(model)}}}))


def unique(count: int, seed: int = 0) -> list[str]:
    """Texts of four names that occur in no other text."""
    letters = random.Random(seed)  # noqa: S311
    name = lambda: "".join(letters.choices(string.ascii_lowercase, k=9)).title()  # noqa: E731
    return [f"{name()} {name()} lives in {name()} {name()} ." for _ in range(count)]


def held(engine: Engine) -> Any:
    """The loaded pipeline."""
    return engine.call("words", lambda adapter: adapter._held)


def test_new_words_are_forgotten_and_the_answers_stay_spacys_own(engine: Engine, nlp: Any) -> None:
    texts = ["Anna lives in Paris .", "Clara likes green tea .", *unique(60)]
    expected = [
        ([(t.text, t.pos_, t.tag_, t.lemma_ or None) for t in doc], [(e.text, e.label_) for e in doc.ents])
        for doc in map(nlp, texts)
    ]
    for number in range(4):
        for one in unique(60, seed=number + 1):
            engine.tag().tag([one])
        found = engine.tag().tag(texts)
        plain = [
            ([(t.text, t.pos, t.tag, t.lemma) for t in one.tokens], [(e.text, e.label) for e in one.entities])
            for one in found
        ]
        assert plain == expected
    pipeline = held(engine)
    kept = len(pipeline.vocab.strings)
    engine.tag().tag(unique(200, seed=9))
    assert len(pipeline.vocab.strings) == kept
    assert len(pipeline.get_pipe("lemmatizer").cache) <= 100
    assert engine.view("words").loads == 1


def test_one_large_request_leaves_no_words_behind(nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    with over(tmp_path / "pipeline") as engine:
        engine.tag().tag(["Anna lives in Paris ."])
        kept = len(held(engine).vocab.strings)
        engine.tag().tag([" ".join(unique(3000))])
        assert len(held(engine).vocab.strings) == kept


def test_words_of_a_text_that_fails_are_forgotten_too(engine: Engine) -> None:
    pipeline = held(engine)
    kept = len(pipeline.vocab.strings)

    def fails(adapter: Any) -> None:
        with adapter._memory.bounded(pipeline, 1000):
            list(pipeline.pipe(unique(60, seed=1)))
            assert len(pipeline.vocab.strings) > kept
            raise LookupError

    with pytest.raises(LookupError):
        engine.call("words", fails)
    assert len(pipeline.vocab.strings) == kept
    assert engine.tag().tag(["Anna lives in Paris ."])[0].tokens


def test_callers_at_once_on_one_pipeline_free_no_words_of_each_other(engine: Engine, tmp_path: Path) -> None:
    model = str(tmp_path / "pipeline")
    table = {"kind": "tag", "model": model}
    with Engine(parse({"encoders": {"one": table, "two": table}})) as both:
        both.tag("one").tag(unique(60))
        wrong: list[str] = []

        def use(name: str, seed: int) -> None:
            for number in range(20):
                texts = unique(20, seed=seed + number)
                found = both.tag(name).tag(texts)
                wrong.extend(text for text, one in zip(texts, found, strict=True) if one.tokens[0].text not in text)

        threads = [threading.Thread(target=use, args=("one", 100)), threading.Thread(target=use, args=("two", 200))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []


def test_a_pipeline_with_a_part_that_is_not_spacys_is_loaded_again_when_it_has_grown(
    nlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import spacy
    from spacy import Language

    kept: list[Any] = []

    @Language.component("keeps_its_documents")
    def keep(doc: Any) -> Any:
        kept.append(doc)
        return doc

    nlp.to_disk(tmp_path / "own")
    own = spacy.load(tmp_path / "own")
    own.add_pipe("keeps_its_documents")
    own.to_disk(tmp_path / "own")
    monkeypatch.setattr(spacy_memory, "KEPT_STRINGS", 10)
    monkeypatch.setattr(spacy_memory, "MOST_STRINGS", 300)
    with over(tmp_path / "own") as engine:
        for number in range(4):
            engine.tag().tag(unique(60, seed=50 + number))
        assert engine.view("words").loads == 4
        assert [doc.text for doc in kept[:60]] == unique(60, seed=50)  # of a pipeline that is gone


@pytest.mark.soak("growth")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident bytes of this process")
def test_many_texts_of_new_words_take_no_more_memory(nlp: Any, tmp_path: Path, soak: bool) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    warm, count = (50_000, 200_000) if soak else (12_000, 12_000)
    process = psutil.Process()
    with over(tmp_path / "pipeline") as engine:
        for number in range(warm // 1000):
            engine.tag().tag(unique(1000, seed=number))
        before, strings = process.memory_info().rss, len(held(engine).vocab.strings)
        for number in range(count // 1000):
            engine.tag().tag(unique(1000, seed=1000 + number))
        grown = process.memory_info().rss - before
        assert len(held(engine).vocab.strings) == strings
    print(f"{count} texts: {grown / MIB:.1f} MiB")
    assert grown < 8 * MIB
