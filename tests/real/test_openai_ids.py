"""Token ids over the real endpoint: langchain's own client, which sends those of OpenAI's models unless told not to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from expected import Reference
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr
from running import Home, Running

SETTINGS = """\
[hardware]
device = "cpu"
idle_timeout_seconds = 0

[hub]
offline = true

[encoders.minilm]
kind = "dense"
model = "builtin:all-MiniLM-L6-v2"

[encoders.own]
kind = "dense"
model = "builtin:all-MiniLM-L6-v2"
token_ids = "own"
"""


@contextmanager
def langchain(running: Running, **options: Any) -> Iterator[OpenAIEmbeddings]:
    with httpx.Client() as http:
        where = {"base_url": f"{running.url}/v1", "http_client": http}
        yield OpenAIEmbeddings(**where, api_key=SecretStr("x"), model="minilm", max_retries=0, **options)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(Home(tmp_path_factory.mktemp("ids"), SETTINGS))
    yield running
    running.end()


def embedded(running: Running, texts: list[str]) -> Any:
    return np.asarray([one["embedding"] for one in running.embed(texts).json()["data"]])


def test_langchains_defaults_give_the_vectors_of_the_texts(served: Running, reference: Reference) -> None:
    texts = [text for text in reference.texts if text]
    with langchain(served) as client:
        found = np.asarray(client.embed_documents(texts))
        assert np.allclose(client.embed_query(texts[0]), found[0], atol=1e-5)
    assert (found * embedded(served, texts)).sum(axis=1).min() > 0.9999


def test_langchain_may_cut_a_long_text_within_a_character(served: Running) -> None:
    text = "😀" * 9  # two ids each
    with langchain(served, embedding_ctx_length=5) as client:
        vector = np.asarray(client.embed_query(text))
    assert vector @ embedded(served, [text])[0] > 0.5


def test_without_the_check_langchain_sends_texts(served: Running) -> None:
    with langchain(served, check_embedding_ctx_length=False) as client:
        found = client.embed_query("a small flame")
    assert np.allclose(found, embedded(served, ["a small flame"])[0], atol=1e-6)


@pytest.mark.parametrize("which", ["ids", "bare_ids"])
def test_an_encoder_may_take_its_models_own_ids_with_and_without_special_tokens(
    served: Running, reference: Reference, which: str
) -> None:
    ids = getattr(reference, which)
    texts = [text for text, tokens in zip(reference.texts, ids, strict=True) if tokens]
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0) as client:
        answer = client.embeddings.create(model="own", input=[tokens for tokens in ids if tokens])
        assert reference.agrees([item.embedding for item in answer.data], texts)
        read = [whole for whole, tokens in zip(reference.ids, ids, strict=True) if tokens]
        assert answer.usage.prompt_tokens == sum(map(len, read))
        for wrong in ([reference.vocabulary], [-1], [[101, 100_256]], [2**70]):
            with pytest.raises(openai.BadRequestError, match="of another tokenizer"):
                client.embeddings.create(model="own", input=wrong)


def test_without_the_ranks_ids_are_refused_with_both_remedies_and_no_host_is_asked(
    start: Callable[..., Running], home: Home, tmp_path: Path
) -> None:
    home.environment.pop("TIKTOKEN_CACHE_DIR")
    home.environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path))
    running = start(settings=SETTINGS)
    remedy = pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False")
    with langchain(running) as client, remedy as refused:
        client.embed_query("a small flame")
    assert "its ranks are not on this computer, and `[hub] offline` forbids to fetch them" in refused.value.message
    assert 'token_ids = "own" in [encoders.minilm]' in refused.value.message
    assert home.contacted() <= {"127.0.0.1", "::1"}


def test_without_tiktoken_ids_are_refused_with_the_command_that_installs_it(
    start: Callable[..., Running], home: Home, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'tiktoken' else find(name, package)\n"
    )
    home.environment["PYTHONPATH"] = str(hidden)
    running = start(settings=SETTINGS)
    remedy = pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False")
    with langchain(running) as client, remedy as refused:
        client.embed_query("a small flame")
    assert "the package tiktoken is not installed" in refused.value.message
    assert "pip install tiktoken" in refused.value.message
