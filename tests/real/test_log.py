"""The log of the real program under odd requests: a line or two for each, in little space, and no text of a request."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import plugin_packages
import pytest
from running import Home, Running

pytestmark = pytest.mark.slow

MARK = "xylophone"
"""A word of the requests that must not be in the log."""

FAILING = """\
import logging
import warnings

class Failing:
    def load(self):
        pass

    def fail(self, texts):
        def deep(left):
            return deep(left - 1) if left else {}[texts[0]]
        return deep(300)

    def warn(self, texts):
        for number, text in enumerate(texts):
            warnings.warn(f"text {number} is odd", stacklevel=1)
        return len(texts)

    def shout(self, texts):
        logging.getLogger("library").warning("loud " * 100_000)
        return len(texts)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("log")
    site, broken = folder / "site", folder / "broken"
    site.mkdir()
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (broken / "model.safetensors").write_bytes(b"\xff" * 100)
    plugin_packages.install(site, "failing", FAILING, entry="failing = failing:Failing")
    home = Home(folder / "home")
    home.environment["PYTHONPATH"] += f"{':' if sys.platform != 'win32' else ';'}{site}"
    home.settings.write_text(
        f'[encoders.broken]\nkind = "dense"\nmodel = {json.dumps(str(broken))}\n'
        '[encoders.failing]\nkind = "plugin"\nmodel = "failing"\n',
        encoding="utf-8",
    )
    running = Running(home)
    yield running
    running.end()


def lines(app: Running) -> list[str]:
    """The lines in the file so far."""
    return (app.home.state / "pilotlight.log").read_text(encoding="utf-8").splitlines()


def raw(app: Running, sent: bytes) -> None:
    """Send bytes, read what comes, and go."""
    with socket.create_connection(("127.0.0.1", app.port), timeout=10) as connection:
        connection.settimeout(0.1)
        try:
            connection.sendall(sent)
            connection.recv(1 << 16)
        except OSError:  # refused half-way, or no answer to half a request
            pass


def post(app: Running, path: str, content: bytes, **headers: str) -> None:
    app.http.post(path, content=content, headers={"Content-Type": "application/json"} | headers)


def plugin(app: Running, operation: str, texts: list[str]) -> int:
    body = {"model": "failing", "operation": operation, "arguments": {"texts": texts}}
    return app.http.post("/encode/plugin", json=body).status_code


ODD: dict[str, Callable[[Running], None]] = {
    "no JSON": lambda app: post(app, "/v1/embeddings", b"{" + MARK.encode() * 10_000),
    "no UTF-8": lambda app: post(app, "/v1/embeddings", b'{"input": "\xff\xfe xylophone"}'),
    "half a surrogate pair": lambda app: post(app, "/encode/dense", rb'{"texts": ["\ud800 xylophone"]}'),
    "nested deep": lambda app: post(app, "/v1/embeddings", b"[" * 200_000),
    "too large": lambda app: post(app, "/v1/embeddings", b"[" + b" " * (33 << 20)),
    "a long name": lambda app: post(
        app, "/v1/embeddings", json.dumps({"model": MARK * 100_000, "input": "a"}).encode()
    ),
    "a name with lines": lambda app: post(
        app,
        "/v1/embeddings",
        json.dumps({"model": f"a\n2026-01-01 00:00:00 ERROR {MARK}\x1b[2J", "input": "a"}).encode(),
    ),
    "many bad items": lambda app: post(app, "/v1/embeddings", json.dumps({"input": [{"x": MARK}] * 2048}).encode()),
    "a path with lines": lambda app: raw(app, b"GET /%0a%0dforged%1b[2J HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a long path": lambda app: raw(app, b"GET /" + MARK.encode() * 7_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a long user agent": lambda app: raw(
        app, b"GET /health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: " + MARK.encode() * 6_000 + b"\r\n\r\n"
    ),
    "odd bytes in a header": lambda app: raw(
        app, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: \xff\x00\x01\r\n\r\n"
    ),
    "no HTTP": lambda app: raw(app, bytes(range(256)) * 50 + b"\r\n\r\n"),
    "a pipeline with garbage": lambda app: raw(
        app, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5 + b"xylophone\r\n\r\n" * 50
    ),
    "half a body": lambda app: raw(
        app, b'POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{"input": "xylophone'
    ),
}
TIMES = 8


@pytest.mark.parametrize("name", list(ODD))
def test_an_odd_request_writes_a_line_or_two(app: Running, name: str) -> None:
    before = len(lines(app))
    for _ in range(TIMES):
        ODD[name](app)
    written = lines(app)[before:]
    assert len(written) <= 2 * TIMES
    assert MARK not in "\n".join(written)
    assert sum(map(len, written)) <= TIMES * 500
    assert all(line.isprintable() for line in written)


def test_an_encoder_that_fails_at_each_request_writes_its_traceback_once_and_no_text(app: Running) -> None:
    assert plugin(app, "fail", [MARK]) == 500
    before = len(lines(app))
    assert 1 < before < 120
    for _ in range(TIMES):
        assert plugin(app, "fail", [MARK]) == 500
    assert len(lines(app)) - before <= 2 * TIMES
    told = "\n".join(lines(app))
    assert "KeyError" in told
    assert MARK not in told
    assert MARK not in app.printed


def test_a_broken_model_asked_many_times_writes_few_lines(app: Running) -> None:
    before = len(lines(app))
    for _ in range(300):
        assert app.http.post("/encode/dense", json={"model": "broken", "texts": [MARK]}).status_code == 503
    assert len(lines(app)) - before < 20
    assert MARK not in "\n".join(lines(app))


def test_warnings_of_a_library_for_each_text_are_five(app: Running) -> None:
    assert plugin(app, "warn", ["a"] * 500) == 200
    assert 1 <= sum("UserWarning: text" in line for line in lines(app)) <= 5
    assert app.printed.count("UserWarning: text") <= 5


def test_a_long_message_of_a_library_is_one_line_of_limited_length(app: Running) -> None:
    assert plugin(app, "shout", ["a"]) == 200
    (line,) = (line for line in lines(app) if "loud" in line)
    assert len(line) < 3_000


def test_the_log_is_small_after_all_that(app: Running) -> None:
    files: list[Path] = sorted(app.home.state.glob("pilotlight.log*"))
    assert 0 < sum(file.stat().st_size for file in files) < 150_000
    assert len(app.printed) < 150_000
