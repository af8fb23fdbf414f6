"""Whatever a client sends, the answer is the client's fault, short, and silent about what was sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from http_fakes import Caller

from engine.engine import Engine
from engine.http.security import MAX_BODY_BYTES
from engine.state import State

MARK = "XYZZY-secret"

BODIES = {
    "no JSON": b"{not json " + MARK.encode(),
    "nothing": b"",
    "cut off": b'{"input": "' + MARK.encode(),
    "not UTF-8": b'{"input": "\xff\xfe"}',
    "deeply nested": b"[" * 100_000,
    "a deeply nested input": b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "more digits than Python reads": b'{"input": [' + b"9" * 5000 + b"]}",
    "a list": json.dumps([MARK]).encode(),
    "a text": json.dumps(MARK).encode(),
    "null": b"null",
    "NaN": b"NaN",
    "no input": json.dumps({"user": MARK}).encode(),
    "a null input": b'{"input": null}',
    "an object for input": json.dumps({"input": {MARK: 1}}).encode(),
    "a number for input": b'{"input": 3}',
    "a mixed list": json.dumps({"input": [MARK, 3]}).encode(),
    "a mixed list, number first": json.dumps({"input": [3, MARK]}).encode(),
    "texts and id lists": json.dumps({"input": [[1], MARK]}).encode(),
    "texts in lists": json.dumps({"input": [[MARK]]}).encode(),
    "booleans": b'{"input": [true, false]}',
    "fractions": b'{"input": [1.5]}',
    "nulls": b'{"input": [null]}',
    "NaN ids": b'{"input": [NaN]}',
    "a number for model": b'{"input": "x", "model": 3}',
    "a surrogate for model": b'{"input": "x", "model": "\\ud800"}',
    "an unknown format": json.dumps({"input": "x", "encoding_format": MARK}).encode(),
    "dimensions in words": json.dumps({"input": "x", "dimensions": MARK}).encode(),
    "no dimensions": b'{"input": "x", "dimensions": 0}',
    "dimensions of NaN": b'{"input": "x", "dimensions": NaN}',
    "a boolean for dimensions": b'{"input": "x", "dimensions": true}',
    "keep_alive in words": json.dumps({"input": "x", "keep_alive": MARK}).encode(),
    "keep_alive of NaN": b'{"input": "x", "keep_alive": NaN}',
    "keep_alive of more digits than Python reads": b'{"input": "x", "keep_alive": ' + b"9" * 5000 + b"}",
    "a very long keep_alive": json.dumps({"input": "x", "keep_alive": "9" * 100_000 + "s"}).encode(),
    "an object for keep_alive": json.dumps({"input": "x", "keep_alive": {MARK: 1}}).encode(),
    "surrogates for keep_alive": b'{"input": "x", "keep_alive": "\\ud800"}',
    "ttl in words": json.dumps({"input": "x", "ttl": MARK}).encode(),
    "an object for user": json.dumps({"input": "x", "user": {MARK: 1}}).encode(),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_bad_body_is_refused_in_openais_shape_and_never_echoed(caller: Caller, engine: Engine, what: str) -> None:
    answer = caller.raw(BODIES[what])
    assert answer.status_code in ((404,) if what == "a surrogate for model" else (400,))
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert MARK not in answer.text
    assert len(answer.text) < 500
    assert engine.view("fake").state is State.UNLOADED


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_wrong_content_type_is_named(caller: Caller, kind: str) -> None:
    answer = caller.raw(json.dumps({"input": MARK}).encode(), Content_Type=kind)
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]
    assert MARK not in answer.text


def test_a_declared_body_over_32_mib_is_413(caller: Caller) -> None:
    answer = caller.raw(b"{}", Content_Length=str(MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert "32 MiB" in answer.json()["error"]["message"]


def test_a_chunked_body_over_32_mib_is_413_without_being_read_whole(caller: Caller) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 3 * MAX_BODY_BYTES:
            sent += 2**20
            yield b" " * 2**20

    answer = caller.raw(endless())
    assert answer.status_code == 413
    assert "32 MiB" in answer.json()["error"]["message"]


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "1e3"])
def test_a_nonsense_content_length_is_400(caller: Caller, length: str) -> None:
    assert caller.raw(b"{}", Content_Length=length).status_code == 400


PATCHES = {
    "malformed": (b"{", 400),
    "a list": (b"[]", 422),
    "an unknown section": (b'{"hardwear": {}}', 403),
    "the server": (b'{"server": {"port": 1}}', 403),
    "a section of surrogates": (b'{"\\ud800": {}}', 422),
    "a section that is no object": (b'{"hardware": 3}', 422),
    "an unknown key": (b'{"hardware": {"lazy": true}}', 422),
    "a key of surrogates": (b'{"hardware": {"\\ud800": 1}}', 422),
    "an empty key": (b'{"hardware": {"": 1}}', 422),
    "a negative timeout": (b'{"hardware": {"idle_timeout_seconds": -1}}', 422),
    "NaN": (b'{"hardware": {"idle_timeout_seconds": NaN}}', 422),
    "infinity": (b'{"hardware": {"unload_timeout_seconds": Infinity}}', 422),
    "a huge number": (b'{"hardware": {"idle_timeout_seconds": ' + b"9" * 400 + b"}}", 422),
    "a text for a number": (b'{"hardware": {"idle_timeout_seconds": "3"}}', 422),
    "a boolean for a number": (b'{"hardware": {"idle_timeout_seconds": true}}', 422),
    "a list with null": (b'{"hardware": {"device": [null]}}', 422),
    "an object": (b'{"hardware": {"device": {"a": {"b": null}}}}', 422),
    "surrogates for a device": (b'{"hardware": {"device": "\\ud800"}}', 422),
    "an unknown encoder": (b'{"encoders": {"nobody": {"pin": true}}}', 404),
    "an encoder of surrogates": (b'{"encoders": {"\\ud800": {"pin": true}}}', 422),
    "an encoder that is no object": (b'{"encoders": {"fake": 1}}', 422),
    "encoders that are no object": (b'{"encoders": []}', 422),
    "a model": (b'{"encoders": {"fake": {"model": "/etc"}}}', 403),
    "a key of surrogates in an encoder": (b'{"encoders": {"fake": {"\\ud800": 1}}}', 422),
    "a negative bound of keep_alive": (b'{"hardware": {"max_keep_alive_seconds": -1}}', 422),
    "a wrong eagerness": (b'{"hardware": {"eager_load": 1}}', 422),
    "a wrong eagerness of an encoder": (b'{"encoders": {"fake": {"lazy_encoders": "no"}}}', 422),
    "a wrong pin": (b'{"encoders": {"fake": {"pin": "yes"}}}', 422),
}


@pytest.mark.parametrize("what", PATCHES)
def test_a_bad_change_of_settings_is_refused_and_changes_nothing(caller: Caller, engine: Engine, what: str) -> None:
    body, status = PATCHES[what]
    config = engine.config
    before = caller.send("GET", "/admin/config", authorized=True).json()
    answer = caller.send(
        "PATCH", "/admin/config", content=body, headers={"Content-Type": "application/json"}, authorized=True
    )
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail", "title", "next_step"}
    assert len(answer.text) < 600
    assert engine.config is config
    assert caller.send("GET", "/admin/config", authorized=True).json() == before


def test_a_refused_value_is_answered_with_the_valid_choices(caller: Caller) -> None:
    answer = caller.send("PATCH", "/admin/config", json={"hardware": {"device": "gpu"}}, authorized=True)
    assert "auto, cpu, cuda, cuda:N, mps" in answer.json()["detail"]
    assert "hardware.device" in answer.json()["detail"]
