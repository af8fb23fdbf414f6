"""Taggers with a real spaCy pipeline, small and trained here, through the real path."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tag_models import as_a_package, change_meta, trained

from engine import Engine, InvalidInput, LoadFailed, State, Unavailable, parse
from engine.operations.tag import Tag, Tagged

TEXTS = ["Anna lives in Paris .", "Ben went to Rome . Clara likes tea .", "", " \n ", "nul\0 , é and 🔥 burn in Paris"]


@pytest.fixture(scope="module")
def nlp() -> Any:
    return trained()


@pytest.fixture
def folder(nlp: Any, tmp_path: Path) -> Path:
    nlp.to_disk(tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with over(folder) as engine:
        yield engine


def over(model: object, **more: Any) -> Engine:
    return Engine(parse({"encoders": {"words": {"kind": "tag", "model": str(model)}}, **more}))


def directly(nlp: Any, text: str) -> Any:
    """What spaCy says itself, in the shape that `plain` gives."""
    document = nlp(text)
    tokens = [(t.text, t.idx, t.pos_, t.tag_, t.lemma_ or None) for t in document]
    return tokens, [(e.text, e.label_, e.start_char, e.end_char) for e in document.ents]


def plain(tagged: Tagged) -> Any:
    tokens = [(t.text, t.start, t.pos, t.tag, t.lemma) for t in tagged.tokens]
    return tokens, [(e.text, e.label, e.start, e.end) for e in tagged.entities]


def test_tokens_and_entities_are_spacys_own(engine: Engine, nlp: Any) -> None:
    found = engine.tag().tag(TEXTS)
    assert [plain(one) for one in found] == [directly(nlp, text) for text in TEXTS]
    assert [(one.text, one.label) for one in found[0].entities] == [("Anna", "PERSON"), ("Paris", "PLACE")]
    assert {token.pos for token in found[0].tokens} == {"PROPN", ""}
    assert {token.lemma for token in found[0].tokens} == {"name", None}
    assert found[2].tokens == ()


def test_offsets_count_characters_of_the_text(engine: Engine) -> None:
    text = "🔥 é Anna lives in Paris ."
    (found,) = engine.tag("words").tag([text])
    assert found.tokens
    for piece in (*found.tokens, *found.entities):
        assert text[piece.start : piece.end] == piece.text


def test_the_view_says_what_it_is_and_that_it_is_only_unloaded(engine: Engine, nlp: Any) -> None:
    engine.tag().warm()
    view = engine.view("words")
    assert view.metadata == {
        "language": "en",
        "parts": ["tagger", "ner", "attribute_ruler"],
        "max_characters": nlp.max_length,
    }
    assert 50_000 < (view.bytes_on_device or 0) < 5_000_000
    assert view.bytes_in_ram == 0
    assert "unloaded" in (view.note or "")
    outcome = engine.offload("words")
    assert (outcome.result, engine.view("words").state) == ("done", State.UNLOADED)
    assert engine.view("words").bytes_on_device == 0


def test_after_a_step_down_it_says_the_same(engine: Engine) -> None:
    before = engine.tag().tag(TEXTS)
    engine.offload("words")
    assert engine.tag().tag(TEXTS) == before
    assert engine.view("words").loads == 2


def test_eight_threads_that_race_load_once(engine: Engine) -> None:
    barrier, found = threading.Barrier(8), []

    def use() -> None:
        barrier.wait()
        found.append(engine.tag().tag(TEXTS[:1]))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert all(one == found[0] for one in found)
    assert engine.view("words").loads == 1


def test_a_text_that_is_too_long_is_refused_and_the_others_go_on(engine: Engine) -> None:
    with pytest.raises(InvalidInput, match=r"texts\[1\] has 1048576 characters; words reads 1000000 at most") as raised:
        engine.tag().tag(["short", "a" * (1 << 20)])
    assert raised.value.param == "texts"
    assert engine.tag().tag(["short"])[0].tokens


def test_no_texts_load_nothing(engine: Engine) -> None:
    assert engine.tag().tag([]) == ()
    assert engine.view("words").state is State.UNLOADED


def test_the_content_of_a_folder_is_its_revision(engine: Engine, folder: Path) -> None:
    engine.tag().warm()
    first = engine.view("words").revision
    assert first
    assert first.startswith("en_pipeline-0.0.0+")
    change_meta(folder, description="another")
    engine.tag().tag(TEXTS[:1])
    assert engine.view("words").revision not in (None, first)
    assert engine.view("words").loads == 2


def test_an_installed_pipeline_is_known_by_its_name(nlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_a_package(nlp, tmp_path, "en_pilot_sm", "1.2.3")
    monkeypatch.syspath_prepend(tmp_path)
    with over("en_pilot_sm") as engine:
        assert [plain(one) for one in engine.tag().tag(TEXTS)] == [directly(nlp, text) for text in TEXTS]
        assert engine.view("words").revision == "en_pilot_sm-1.2.3"
    sys.modules.pop("en_pilot_sm")


@pytest.mark.parametrize("offline", [False, True])
def test_a_missing_pipeline_is_named_with_its_download(offline: bool) -> None:
    with over("en_core_web_nope", hub={"offline": offline}) as engine:
        with pytest.raises(Unavailable, match="en_core_web_nope is not installed") as raised:
            engine.tag().tag(["a"])
        assert f"{sys.executable} -m spacy download en_core_web_nope" in (raised.value.next_step or "")
        assert ("offline" in (raised.value.next_step or "")) == offline
        assert engine.view("words").state is State.UNAVAILABLE


def test_a_packaged_app_names_a_folder_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with over("en_core_web_nope") as engine, pytest.raises(Unavailable) as raised:
        engine.tag().tag(["a"])
    assert "folder" in (raised.value.next_step or "")
    assert "-m" not in (raised.value.next_step or "")


def test_a_pipeline_for_another_spacy_is_told_apart(nlp: Any, folder: Path, tmp_path: Path) -> None:
    change_meta(folder, spacy_version=">=3.1.0,<3.2.0")
    with over(folder) as engine:
        with pytest.raises(
            Unavailable, match=r"pipeline 0.0.0 is for spaCy >=3.1.0,<3.2.0; installed is 3.8"
        ) as raised:
            engine.tag().tag(["a"])
        assert '-m pip install "spacy>=3.1.0,<3.2.0"' in (raised.value.next_step or "")
        change_meta(folder, spacy_version=">=3.8.0,<3.9.0")
        assert engine.tag().tag(["a"])


def test_an_installed_pipeline_for_another_spacy_names_the_download(
    nlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_meta(as_a_package(nlp, tmp_path, "en_old_sm", "2.3.0"), spacy_version=">=2.3.0,<2.4.0")
    monkeypatch.syspath_prepend(tmp_path)
    with over("en_old_sm") as engine, pytest.raises(Unavailable, match=r"en_old_sm 2\.3\.0 is for spaCy") as raised:
        engine.tag().tag(["a"])
    assert "-m spacy download en_old_sm" in (raised.value.next_step or "")
    assert "en_old_sm" not in sys.modules


@pytest.mark.parametrize("missing", ["meta.json", "config.cfg"])
def test_a_folder_that_is_no_pipeline_is_unavailable(engine: Engine, folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(Unavailable, match=missing) as raised:
        engine.tag().tag(["a"])
    assert raised.value.next_step


def test_a_package_that_is_no_pipeline_is_told(tmp_path: Path) -> None:
    with over("numpy") as engine, pytest.raises(Unavailable, match="numpy is no spaCy pipeline"):
        engine.tag().tag(["a"])


@pytest.mark.parametrize("broken", ["tagger/model", "config.cfg", "vocab/strings.json"])
def test_a_broken_pipeline_fails_and_harms_nothing(engine: Engine, folder: Path, nlp: Any, broken: str) -> None:
    (folder / broken).write_bytes(b"\x00not this")
    with pytest.raises(LoadFailed) as raised:
        engine.tag().tag(["a"])
    assert raised.value.next_step
    assert engine.view("words").state is State.FAILED
    shutil.rmtree(folder)
    nlp.to_disk(folder)
    engine.retry("words")
    assert engine.tag().tag(["a"])


@pytest.mark.parametrize(
    ("old", "new", "says", "installs"),
    [
        ('factory = "tagger"', 'factory = "transformer"', "component 'transformer'", "spacy-transformers"),
        ("spacy.HashEmbedCNN.v2", "spacy-curated-transformers.X.v1", "of the architectures", "spacy-curated-trans"),
        ('factory = "tagger"', 'factory = "mine"', "component 'mine', which no installed package has", "Install the"),
        ('lang = "en"', 'lang = "qq"', "no module spacy.lang.qq", "pip install"),
    ],
)
def test_what_a_pipeline_lacks_is_named(
    engine: Engine, folder: Path, old: str, new: str, says: str, installs: str
) -> None:
    config = folder / "config.cfg"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(Unavailable, match=says) as raised:
        engine.tag().tag(["a"])
    assert installs in (raised.value.next_step or "")


@pytest.mark.parametrize("lacks", ["tagger/model", "vocab/strings.json"])
def test_a_pipeline_without_one_of_its_files_is_unavailable(engine: Engine, folder: Path, lacks: str) -> None:
    (folder / lacks).unlink()
    with pytest.raises(Unavailable, match=lacks):
        engine.tag().tag(["a"])


def test_loading_and_unloading_gives_the_memory_back(engine: Engine) -> None:
    process, sizes = psutil.Process(), []
    for _ in range(8):
        engine.tag().tag(TEXTS)
        assert engine.unload("words").result == "done"
        sizes.append(process.memory_info().rss)
    print([f"{size / 2**20:.1f}" for size in sizes])
    assert sizes[-1] - sizes[2] < 4 * 2**20


def test_an_answer_keeps_no_pipeline(engine: Engine) -> None:
    kept = engine.call("words", Tag(TEXTS))
    assert engine.unload("words").result == "done"
    assert kept


def test_texts_of_numpy_are_texts(engine: Engine) -> None:
    import numpy as np

    assert engine.tag().tag(list(np.array(TEXTS[:1]))) == engine.tag().tag(TEXTS[:1])
