"""What only a real socket shows: bodies that are too large, raw heads, and an end that leaves the server well."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from running import Running

LIMIT = 32 * 1024 * 1024


@pytest.fixture(autouse=True)
def _serves_afterwards(app: Running) -> Iterator[None]:
    loads = app.component()["loads"]
    yield
    assert app.http.get("/health").json()["status"] == "ok"
    assert app.component()["loads"] == loads, "no bad request loads anything"
    assert "Traceback" not in app.printed


def test_a_declared_body_over_32_mib_is_413_before_it_is_sent(app: Running) -> None:
    head = _head(app, "POST /v1/embeddings", f"Content-Length: {LIMIT + 1}", "Content-Type: application/json")
    status, body = _raw(app, head)
    assert status == 413
    assert "32 MiB" in json.loads(body)["error"]["message"]


def test_a_chunked_body_over_32_mib_is_413(app: Running) -> None:
    head = _head(app, "POST /v1/embeddings", "Transfer-Encoding: chunked", "Content-Type: application/json")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    status, body = _raw(app, head, *[chunk] * 33)
    assert status == 413
    assert "32 MiB" in json.loads(body)["error"]["message"]


def test_a_body_just_under_the_limit_is_read(app: Running) -> None:
    body = b'{"input": []' + b" " * (LIMIT - 13) + b"}"
    answer = app.http.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["data"] == []


def test_2049_items_are_422_and_an_empty_list_is_empty_data(app: Running) -> None:
    answer = app.embed(["x"] * 2049)
    assert answer.status_code == 422
    assert "2048" in answer.json()["error"]["message"]
    assert app.embed([]).json()["data"] == []


@pytest.mark.parametrize(
    "body", [b"{", b"", b"[1]", b'{"input": ["secret", 7]}', b'{"input": [[1], "secret"]}', b'{"input": {"secret": 1}}']
)
def test_a_bad_body_is_400_and_not_echoed(app: Running, body: bytes) -> None:
    answer = app.http.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "secret" not in answer.text


def test_a_wrong_content_type_is_400(app: Running) -> None:
    answer = app.http.post("/v1/embeddings", content=b'{"input": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/admin/components", "/admin/config", "/nothing"])
def test_a_foreign_or_missing_or_double_host_is_refused(app: Running, path: str) -> None:
    assert app.http.get(path, headers={"Host": "evil.example"}).status_code == 403
    ours = f"Host: 127.0.0.1:{app.port}"
    double = f"GET {path} HTTP/1.1\r\n{ours}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert _raw(app, double.encode())[0] in (400, 403)
    assert _raw(app, f"GET {path} HTTP/1.0\r\n\r\n".encode())[0] in (400, 403)


def test_a_foreign_origin_is_refused(app: Running) -> None:
    assert app.http.get("/health", headers={"Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "path", ["load", "offload", "unload", "quit", "components/minilm/load", "components/minilm/unload"]
)
def test_control_needs_the_token(app: Running, path: str) -> None:
    assert app.http.post(f"/admin/{path}").status_code == 401
    wrong = app.http.post(f"/admin/{path}", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401
    assert app.token not in wrong.text


def test_the_settings_need_the_token(app: Running) -> None:
    assert app.http.get("/admin/config").status_code == 401
    assert app.http.patch("/admin/config", json={"hardware": {"device": "cpu"}}).status_code == 401
    assert app.config()["hardware"]["device"] == "cpu"


def _head(app: Running, line: str, *fields: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: 127.0.0.1:{app.port}", *fields, "", ""]).encode()


def _raw(app: Running, *parts: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; returns the status and the body of the answer."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=30) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered and closed before the last byte
        answer = b""
        while b"\r\n\r\n" not in answer or len(_body(answer)) < _length(answer):
            received = connection.recv(65536)
            if not received:
                break
            answer += received
    return int(answer.split(b" ", 2)[1]), _body(answer)


def _body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def _length(answer: bytes) -> int:
    head = answer.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length:")[2].split()[0]) if b"content-length:" in head else 0
