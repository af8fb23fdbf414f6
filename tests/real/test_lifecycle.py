"""Start, the discovery file, ports, the second start and the ways to end."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import filelock
import httpx
import pytest
from running import ROOT, SETTINGS, Home, Running, wait_until

Start = Callable[..., Running]

CLOSE_SECONDS = 5.0


def test_the_discovery_file_says_where_it_is_to_its_user_alone(app: Running) -> None:
    assert set(app.endpoint) == {"url", "pid", "version", "token_path"}
    assert app.endpoint["pid"] == app.pid
    assert app.endpoint["version"] == app.http.get("/health").json()["version"]
    assert app.home.discovery.stat().st_mode & 0o777 == 0o600
    token = app.home.state / "token"
    assert app.endpoint["token_path"] == str(token)
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(app.token) >= 32


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start: Start, home: Home, number: signal.Signals) -> None:
    running = start()
    began = time.monotonic()
    assert running.signal(number) == 0
    assert time.monotonic() - began < CLOSE_SECONDS
    assert not home.discovery.exists()


def test_the_quit_route_ends_it_cleanly(start: Start, home: Home) -> None:
    running = start()
    assert running.control("quit").json() == {"result": "done"}
    assert running.process.wait(CLOSE_SECONDS) == 0
    assert not home.discovery.exists()


def test_pilotlight_quit_ends_it_cleanly(start: Start, home: Home) -> None:
    running = start()
    assert home.command("quit").returncode == 0
    assert running.process.wait(CLOSE_SECONDS) == 0
    assert not home.discovery.exists()


@pytest.mark.parametrize(("number", "into"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 1.5), (signal.SIGTERM, 4.0)])
def test_a_signal_during_a_load_ends_it_within_five_seconds(
    start: Start, home: Home, number: signal.Signals, into: float
) -> None:
    running = start()
    with ThreadPoolExecutor(3) as callers:
        answers = [callers.submit(running.embed, ["x"]) for _ in range(3)]
        running.wait_for("loading")
        time.sleep(into)
        began = time.monotonic()
        status = running.signal(number)
        took = time.monotonic() - began
    assert status == 0, running.printed
    assert took < CLOSE_SECONDS
    # Those who wait are told, the one whose load is under way included.
    assert [answer.result().status_code for answer in answers] == [503] * 3
    assert "Traceback" not in running.printed
    assert not home.discovery.exists()


def test_a_start_beside_one_that_closes_waits_for_its_lock_and_serves(start: Start, home: Home) -> None:
    home.discovery.parent.mkdir(parents=True, exist_ok=True)
    closing = filelock.FileLock(home.discovery.with_name("instance.lock"), thread_local=False)
    closing.acquire()
    soon = threading.Timer(1.5, closing.release)
    soon.start()
    assert start().embed([]).status_code == 200
    soon.join()


def test_a_discovery_file_left_by_a_killed_one_is_replaced(start: Start, home: Home) -> None:
    killed = start()
    killed.signal(signal.SIGKILL)
    assert home.discovery.exists()
    assert "not running" in home.command("status").stdout
    fresh = start()
    assert fresh.endpoint["pid"] == fresh.pid != killed.pid
    assert fresh.token == killed.token


def test_a_second_start_finds_the_first_and_exits_0(app: Running) -> None:
    for arguments in (("--headless",), ("run", "--headless", "--port", "0"), ()):
        second = app.home.command(*arguments)
        assert second.returncode == 0
        assert app.url in second.stdout
    assert app.http.get("/health").json()["pid"] == app.pid


def test_a_busy_port_gives_way_to_the_next_free_one_and_says_so(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        running = start("--port", str(port))
        assert port < running.port <= port + 9
        assert httpx.get(f"{running.url}/health", trust_env=False).json()["pid"] == running.pid
        assert f"port {port} is busy" in running.printed
        assert running.url in running.printed
        assert running.url in (running.home.state / "pilotlight.log").read_text(encoding="utf-8")


def test_ten_busy_ports_are_an_error_with_a_way_out(home: Home) -> None:
    with contextlib.ExitStack() as held:
        first = _ten_in_a_row(held)
        refused = home.command("run", "--headless", "--port", str(first))
    assert refused.returncode == 1
    assert "--port 0" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not home.discovery.exists()


def test_ipv6_loopback_is_served_beside_ipv4(app: Running) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    assert app.url.startswith("http://127.0.0.1:")
    six = httpx.get(f"http://[::1]:{app.port}/health", trust_env=False)
    assert six.json()["pid"] == app.pid
    named = httpx.get(f"http://localhost:{app.port}/health", trust_env=False)
    assert named.json()["pid"] == app.pid


def test_without_a_runtime_folder_the_discovery_file_is_in_the_state_folder(start: Start, home: Home) -> None:
    del home.environment["XDG_RUNTIME_DIR"]
    home.discovery = home.state / "endpoint.json"
    running = start()
    assert home.discovery.stat().st_mode & 0o777 == 0o600
    assert running.signal(signal.SIGTERM) == 0
    assert not home.discovery.exists()


def test_the_first_start_writes_the_commented_settings(start: Start, home: Home) -> None:
    home.settings = home.folder / "elsewhere" / "settings.toml"
    home.settings.parent.mkdir()
    start("--port", "0", "--config", str(home.settings.with_name("new.toml")))
    assert "# Seconds without use" in home.settings.with_name("new.toml").read_text(encoding="utf-8")


def test_a_broken_settings_file_at_start_gives_the_defaults_and_says_why(start: Start, home: Home) -> None:
    running = start(settings="[hardware]\nidle_timeout_seconds = -1\n")
    config = running.config()
    assert config["hardware"]["idle_timeout_seconds"] == 30
    assert f"{home.settings}, line 2" in config["problem"]
    assert "idle_timeout_seconds" in running.printed


def test_importing_the_engine_and_the_program_imports_no_model_library() -> None:
    code = (
        "import sys, engine, engine.service.service, engine.http.app, tray.app, tray.cli.main\n"
        "engine.Engine().dense().loaded\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'spacy', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


LAZY, EAGER = "lazy_encoders = true", "lazy_encoders = false"


def test_eager_encoders_load_at_start_and_when_switched_while_running(start: Start, home: Home) -> None:
    running = start(settings=SETTINGS.replace(LAZY, EAGER))
    assert running.wait_for("loading", seconds=5)["status"] == "loading"
    assert running.wait_for("on_device")["loads"] == 1

    running.configure(lazy_encoders=True)
    assert running.component()["state"] == "on_device", "true changes nothing until they idle"
    assert running.control("components/minilm/unload").json()["state"] == "unloaded"
    running.configure(idle_timeout_seconds=0)
    assert running.component()["state"] == "unloaded"

    text = home.settings.read_text(encoding="utf-8")
    assert "# The owner's comment." in text
    assert f"{LAZY}  # and another one" in text
    home.settings.write_text(text.replace(LAZY, EAGER), encoding="utf-8")
    assert running.wait_for("on_device", seconds=10)["loads"] == 2

    running.configure(lazy_encoders=True)
    running.control("unload").raise_for_status()
    running.configure(lazy_encoders=False)
    assert running.wait_for("on_device", seconds=10)["loads"] == 3
    assert f"{EAGER}  # and another one" in home.settings.read_text(encoding="utf-8")


def _ten_in_a_row(held: contextlib.ExitStack) -> int:
    """Occupy ten ports in a row, and return the first."""

    def attempt() -> int | None:
        with contextlib.ExitStack() as these:
            first: int = these.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            try:
                for port in range(first + 1, first + 10):
                    these.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):
                return None
            held.push(these.pop_all())
            return first

    found: int = wait_until(attempt, 10, "ten free ports in a row")
    return found
