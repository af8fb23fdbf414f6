"""Who may talk to the endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_fakes import Caller, FakeDense

from engine.engine import Engine
from engine.http.app import create_app
from engine.http.security import token

OPEN = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/fake"),
    ("POST", "/v1/embeddings"),
    ("POST", "/embeddings"),
    ("GET", "/admin/components"),
    ("GET", "/admin/memory"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing/here"),
]
CONTROL = [
    *(("POST", f"/admin/components/fake/{verb}") for verb in ("load", "offload", "unload", "pin", "unpin", "retry")),
    *(("POST", f"/admin/{verb}") for verb in ("load", "offload", "unload", "quit")),
    ("GET", "/admin/config"),
    ("PATCH", "/admin/config"),
]


@pytest.mark.parametrize(("method", "path"), OPEN + CONTROL)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:7458", "127.0.0.1.evil.example", "", "192.168.1.7"])
def test_a_foreign_host_is_refused_on_every_route(caller: Caller, method: str, path: str, host: str) -> None:
    answer = caller.send(method, path, host=host, authorized=True)
    assert answer.status_code == 403
    assert ("error" in answer.json()) == path.startswith(("/v1", "/embeddings"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:7458", "LOCALHOST", "[::1]:7458", "127.0.0.1:1"])
def test_names_of_this_computer_are_accepted(caller: Caller, host: str) -> None:
    assert caller.send("GET", "/health", host=host).status_code == 200


@pytest.mark.parametrize(("method", "path"), OPEN + CONTROL)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://", "%"])
def test_a_foreign_origin_is_refused_on_every_route(caller: Caller, method: str, path: str, origin: str) -> None:
    answer = caller.send(method, path, headers={"Origin": origin}, authorized=True)
    assert answer.status_code == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:7458"])
def test_a_page_of_this_computer_is_accepted(caller: Caller, origin: str) -> None:
    assert caller.send("GET", "/health", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize(("method", "path"), CONTROL)
@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer wrong", "Bearer the-token2", "Basic the-token", "the-token", "Bearer \xe9"]
)
def test_a_control_route_needs_the_token(caller: Caller, method: str, path: str, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    answer = caller.send(method, path, headers=headers)
    assert answer.status_code == 401
    assert set(answer.json()) == {"detail", "title", "next_step"}
    assert "the-token" not in answer.text


@pytest.mark.parametrize(("method", "path"), CONTROL[:-3] + CONTROL[-2:-1])
def test_the_token_opens_a_control_route(caller: Caller, method: str, path: str) -> None:
    assert caller.send(method, path, authorized=True).status_code == 200


@pytest.mark.parametrize(("method", "path"), OPEN[:8])
def test_an_open_route_needs_no_token(caller: Caller, method: str, path: str) -> None:
    body = {"json": {"input": "x"}} if method == "POST" else {}
    assert caller.send(method, path, **body).status_code == 200


def test_an_engine_for_the_network_answers_to_addresses_but_not_to_foreign_names() -> None:
    with Engine(adapter=FakeDense) as engine:
        caller = Caller(create_app(engine, host="0.0.0.0", token="t", version="1"), "t")
        assert caller.send("GET", "/health", host="192.168.1.7:7458").status_code == 200
        assert caller.send("GET", "/health", host="evil.example").status_code == 403


def test_the_token_is_made_once_and_readable_by_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    made = token(path)
    assert len(made) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert token(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("\n")
    assert token(path) not in ("", made)
