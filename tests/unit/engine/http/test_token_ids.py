"""Token ids of OpenAI's models: the file of ranks, the texts of ids, and answers where they cannot be had."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from http_fakes import Caller, FakeDense, caller_of

from engine import Engine, InvalidInput, parse
from engine.adapters import packages
from engine.http.token_ids import decoder as decoding, ranks as files
from engine.http.token_ids.decoder import Decoder
from engine.http.token_ids.ranks import FILE, NoRanks, RanksFile, ranks_of
from engine.settings.config import EncoderConfig

WORDS = EncoderConfig("words", "dense", "./words")
PICTURES = EncoderConfig("pictures", "image_text", "./pictures")


@pytest.fixture(scope="session")
def content() -> bytes:
    return Path(sys.prefix, "litellm/litellm/litellm_core_utils/tokenizers", FILE).read_bytes()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The folders that may hold a copy, all of them empty."""
    found = {name: tmp_path / name for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "own", "swept")}
    for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        monkeypatch.setenv(name, str(found[name]))
    monkeypatch.setattr(files, "cache_folder", lambda: found["own"])
    monkeypatch.setattr(tempfile, "tempdir", str(found["swept"]))
    return found


def put(folders: dict[str, Path], name: str, content: bytes) -> Path:
    below = {"own": "tiktoken", "swept": "data-gym-cache"}
    path = folders[name] / below.get(name, "") / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Network:
    """Answers in turn with what it has, or fails with it; counts the questions."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = [*answers]
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


# The file


@pytest.mark.parametrize("place", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", "own", "swept"])
def test_a_copy_is_found_where_tiktoken_or_we_keep_one_and_no_network_is_asked(
    folders: dict[str, Path], content: bytes, place: str
) -> None:
    put(folders, place, content)
    ranks = RanksFile(network := Network()).read(offline=False)
    assert (ranks[b"hello"], len(ranks), network.asked) == (15339, 100256, 0)


def test_a_copy_in_a_folder_that_is_swept_is_kept_in_ours(folders: dict[str, Path], content: bytes) -> None:
    swept = put(folders, "swept", content)
    RanksFile(Network()).read(offline=True)
    swept.unlink()
    assert RanksFile(Network()).read(offline=True)[b"hello"] == 15339


def test_a_copy_that_is_not_the_known_file_is_passed_over_and_left(folders: dict[str, Path], content: bytes) -> None:
    wrong = put(folders, "TIKTOKEN_CACHE_DIR", content[:-3] + b"99\n")
    put(folders, "own", b"")
    put(folders, "swept", content)
    assert max(RanksFile(Network()).read(offline=True).values()) == 100255
    assert wrong.stat().st_size == len(content)


def test_without_a_copy_it_is_fetched_once_and_kept(folders: dict[str, Path], content: bytes) -> None:
    network = Network(content)
    assert RanksFile(network).read(offline=False)[b"hello"] == 15339
    assert RanksFile(network).read(offline=True)[b"hello"] == 15339
    assert network.asked == 1
    kept = folders["own"] / "tiktoken" / FILE
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == files.DIGEST


def test_offline_no_network_is_asked() -> None:
    with pytest.raises(NoRanks, match=r"not on this computer, and `\[hub\] offline` forbids"):
        RanksFile(network := Network()).read(offline=True)
    assert not network.asked


@pytest.mark.parametrize("answer", [OSError("no route"), ValueError("no proxy"), b"<html>"], ids=str)
def test_a_failed_fetch_is_tried_again_after_a_minute_and_not_by_each_request(
    content: bytes, answer: bytes | Exception
) -> None:
    now = [0.0]
    file = RanksFile(network := Network(answer, content), lambda: now[0])
    for _ in range(5):
        with pytest.raises(NoRanks, match="could not be fetched from https://openaipublic"):
            file.read(offline=False)
    assert network.asked == 1
    now[0] = 61.0
    assert file.read(offline=False)[b"hello"] == 15339


def test_a_cache_that_cannot_be_written_costs_a_fetch_and_no_answer(folders: dict[str, Path], content: bytes) -> None:
    folders["own"].write_text("a file in place of the folder")
    assert RanksFile(Network(content)).read(offline=False)[b"hello"] == 15339


# The texts


class InMemory(RanksFile):
    """Has the ranks at hand."""

    def __init__(self, content: bytes) -> None:
        self.ranks = ranks_of(content)

    def read(self, *, offline: bool) -> dict[bytes, int]:
        return self.ranks


@pytest.fixture(scope="module")
def ready(content: bytes) -> Decoder:
    return Decoder(InMemory(content))


def texts(decoder: Decoder, *lists: list[int], encoder: EncoderConfig = WORDS, offline: bool = True) -> list[str]:
    return asyncio.run(decoder.texts(lists, encoder, "input", offline=offline))


TEXTS = [
    "hello world",
    "  two\nlines\t",
    "naïve — “quotes”",
    "日本語のテキスト",
    "😀🏳️‍🌈",
    "\x00",
    "<|endoftext|>",
    "e\u0301",
]


def test_ids_are_the_text_that_they_were_made_of(ready: Decoder, folders: dict[str, Path], content: bytes) -> None:
    put(folders, "TIKTOKEN_CACHE_DIR", content)
    encoding = tiktoken.get_encoding("cl100k_base")
    lists = [encoding.encode(text, disallowed_special=()) for text in TEXTS]
    assert texts(ready, *lists) == TEXTS
    assert texts(ready, lists[0]) == ["hello world"]
    assert texts(ready, [15339, 1917]) == ["hello world"]


GRINNING = [76460, 222]
"""The ids of one character."""


def test_a_character_that_a_client_cut_is_left_out_at_either_end(ready: Decoder) -> None:
    first, second = GRINNING
    assert texts(ready, [15339, first], [second, 1917], [15339, *GRINNING]) == ["hello", " world", "hello😀"]


@pytest.mark.parametrize(
    "ids",
    [[], [100256], [100257], [100276], [100277], [-1], [2**31], [2**70], [15339, 100257], GRINNING[:1], GRINNING[1:],
     [15339, GRINNING[0], 1917], [15339, GRINNING[1], 1917], [15339, GRINNING[1]], GRINNING[1:] * 4 + [15339]],
    ids=str,
)  # fmt: skip
def test_ids_that_are_no_text_are_refused_by_their_item(ready: Decoder, ids: list[int]) -> None:
    with pytest.raises(InvalidInput, match=r"^input\[1\] holds token ids that are no text in cl100k_base") as refused:
        texts(ready, [15339], ids)
    assert refused.value.param == "input"


# Where nothing can be decoded


def test_without_tiktoken_the_error_says_how_to_install_it_and_the_ways_around(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Decoder(InMemory(content))
    monkeypatch.setattr(packages, "_is_there", lambda name: False)
    with pytest.raises(InvalidInput) as refused:
        texts(ready, [15339])
    assert "the package tiktoken is not installed" in refused.value.message
    said = str(refused.value)
    assert packages.command("pip", "install", "tiktoken") in said
    assert "check_embedding_ctx_length=False" in said
    assert 'token_ids = "own" in [encoders.words]' in said
    with pytest.raises(InvalidInput) as refused:
        texts(ready, [15339], encoder=PICTURES)
    assert "token_ids" not in str(refused.value), "a tower takes no ids"


def test_what_is_missing_is_looked_for_again_by_the_next_request(folders: dict[str, Path], content: bytes) -> None:
    decoder = Decoder(RanksFile(Network()))
    with pytest.raises(InvalidInput, match=r"offline` forbids.*Send texts"):
        texts(decoder, [15339])
    put(folders, "own", content)
    assert texts(decoder, [15339]) == ["hello"]


def test_a_slow_network_holds_no_request_for_longer_than_its_patience_and_no_other_one(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def fetch() -> bytes:
        assert go.wait(30)
        return content

    monkeypatch.setattr(decoding, "PATIENCE_SECONDS", 0.05)
    decoder = Decoder(RanksFile(fetch))

    async def ask_often() -> list[Any]:
        asked = [decoder.texts([[15339]], WORDS, "input", offline=False) for _ in range(50)]
        return await asyncio.gather(*asked, return_exceptions=True)

    began = time.monotonic()
    answers = asyncio.run(ask_often())
    assert time.monotonic() - began < 4, "they wait together, and not for long"
    for refused in answers:
        assert isinstance(refused, InvalidInput)
        assert "its ranks are still being fetched" in refused.message
    go.set()
    monkeypatch.setattr(decoding, "PATIENCE_SECONDS", 30.0)
    assert texts(decoder, [15339]) == ["hello"]


# On the route


class FakeReader(FakeDense):
    """Keeps what it was given."""

    given: list[Any]

    def encode(self, inputs: Any, **options: Any) -> Any:
        FakeReader.given = [*inputs]
        return super().encode(inputs, **options)


SETTINGS = {
    "openai": {"kind": "dense", "model": "./openai"},
    "said": {"kind": "dense", "model": "./said", "token_ids": "openai"},
    "own": {"kind": "dense", "model": "./own", "token_ids": "own"},
    "multi": {"kind": "multi", "model": "./multi"},
    "own-multi": {"kind": "multi", "model": "./own-multi", "token_ids": "own"},
    "pictures": {"kind": "image_text", "model": "./pictures"},
}


@pytest.fixture
def engine(folders: dict[str, Path], content: bytes) -> Iterator[Engine]:
    put(folders, "TIKTOKEN_CACHE_DIR", content)
    with Engine(parse({"encoders": SETTINGS}), adapter=FakeReader) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


@pytest.mark.parametrize(
    ("name", "given"),
    [(None, "hello"), ("said", "hello"), ("multi", "hello"), ("pictures", "hello"), ("pictures.text", "hello"),
     ("own", [15339]), ("own-multi", [15339])],
)  # fmt: skip
def test_ids_are_text_unless_the_encoder_takes_its_own(caller: Caller, name: str | None, given: object) -> None:
    for content in ([15339], [[15339]]):
        assert caller.embed(content, model=name).status_code == 200
        assert FakeReader.given == [given]


def test_token_ids_take_effect_at_once_and_keep_the_weights(engine: Engine, caller: Caller) -> None:
    caller.embed([15339], model="openai")
    changed = {**SETTINGS, "openai": {**SETTINGS["openai"], "token_ids": "own"}}
    engine.apply(parse({"encoders": changed}))
    assert caller.embed([15339], model="openai").status_code == 200
    assert FakeReader.given == [[15339]]
    assert engine.view("openai").loads == 1


def test_ids_of_no_text_load_nothing(engine: Engine, caller: Caller) -> None:
    answer = caller.embed([[15339], [100257]])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    assert answer.json()["error"]["message"].startswith("input[1] holds token ids that are no text")
    assert not any(view.loads for view in engine.views())
