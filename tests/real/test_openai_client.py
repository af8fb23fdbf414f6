"""The official client against the real encoder, held to what sentence-transformers says."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from expected import Reference
from running import Running


@pytest.fixture(scope="module")
def client(app: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def test_the_openai_client_gets_the_vectors_of_sentence_transformers(
    client: openai.OpenAI, reference: Reference
) -> None:
    answer = client.embeddings.create(model="minilm", input=reference.texts)
    assert reference.agrees([item.embedding for item in answer.data])
    assert [item.index for item in answer.data] == list(range(len(reference.texts)))
    assert answer.model == "minilm"


def test_the_float_format_gives_the_same_numbers_as_base64(app: Running, reference: Reference) -> None:
    floats = app.embed(reference.texts, encoding_format="float").json()["data"]
    coded = app.embed(reference.texts, encoding_format="base64").json()["data"]
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in coded]
    assert np.array_equal(np.asarray([item["embedding"] for item in floats], dtype=np.float32), decoded)
    assert reference.agrees(decoded)


def test_one_text_is_a_list_of_one(client: openai.OpenAI, reference: Reference) -> None:
    answer = client.embeddings.create(model="minilm", input=reference.texts[0])
    assert reference.agrees([item.embedding for item in answer.data], reference.texts[:1])


def test_an_alias_serves_and_the_answer_repeats_the_name_that_was_asked_for(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="all-minilm", input="x").model == "all-minilm"


def test_dimensions_truncates_and_normalises_again(client: openai.OpenAI, reference: Reference) -> None:
    answer = client.embeddings.create(model="minilm", input=reference.texts, dimensions=64)
    kept = reference.vectors[:, :64]
    wanted = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    assert np.allclose([item.embedding for item in answer.data], wanted, atol=1e-5)


def test_usage_counts_the_tokens_that_the_model_reads(client: openai.OpenAI, reference: Reference) -> None:
    usage = client.embeddings.create(model="minilm", input=reference.texts).usage
    assert usage.prompt_tokens == usage.total_tokens == sum(map(len, reference.ids))


def test_an_unknown_model_is_a_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="minilm"):
        client.embeddings.create(model="text-embedding-3-small", input="x")


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["minilm"]
    assert client.models.retrieve("all-minilm").owned_by == "pilotlight"


@pytest.mark.parametrize("dimensions", [0, -1, 385, 2**70])
def test_dimensions_out_of_range_are_a_bad_request(client: openai.OpenAI, dimensions: int) -> None:
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="minilm", input="x", dimensions=dimensions)


def test_lone_surrogates_are_a_bad_request(app: Running) -> None:
    for body in (rb'{"model":"minilm","input":"\ud800"}', rb'{"model":"minilm","input":["a","\udfff x"]}'):
        answer = app.http.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_very_long_text_has_the_vector_of_what_the_model_reads_of_it(app: Running, reference: Reference) -> None:
    text = max(reference.texts, key=len)
    answer = app.embed([text * 1000], encoding_format="float").json()
    assert reference.agrees([answer["data"][0]["embedding"]], [text])
    assert answer["usage"]["prompt_tokens"] == 256


def test_a_very_long_text_is_read_past_a_gap(app: Running, reference: Reference) -> None:
    """A beginning with few tokens must not make the rest go unread."""
    text = reference.texts[0]
    answer = app.embed([text.replace(" ", " " * 20_000, 1)], encoding_format="float").json()
    assert reference.agrees([answer["data"][0]["embedding"]], [text])
