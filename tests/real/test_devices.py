"""Which device is taken where the one that was asked for is missing or does not work; this torch has a CPU alone."""

from __future__ import annotations

import pytest
import torch

from engine import devices
from engine.devices import Choice, DeviceMemory, allocator, choice as choice_module, choose

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or torch.mps.is_available(), reason="a computer with a device has other answers"
)


@pytest.mark.parametrize("wanted", ["cpu", "auto"])
def test_the_cpu_needs_no_reason_where_it_is_asked_for_or_all_there_is(wanted: str) -> None:
    assert choose(wanted) == Choice("cpu", None)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", "cuda:1", "mps", "xpu", "tpu", "meta", "nonsense"])
def test_a_device_that_is_not_there_gives_the_cpu_and_says_which_was_missed(wanted: str) -> None:
    reason = f"It computes on the CPU, because torch {torch.__version__} finds no {wanted} here."
    assert choose(wanted) == Choice("cpu", reason)


def test_a_device_on_which_nothing_computes_gives_the_cpu_and_the_first_line_of_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # torch without CUDA refuses to compute there by itself.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for wanted in ("cuda", "cuda:0", "auto"):
        choice = choose(wanted)
        assert choice.device == "cpu"
        assert choice.reason is not None
        assert choice.reason.startswith("It computes on the CPU, because cuda:0 does not compute: ")
        assert "\n" not in choice.reason
    assert choose("cuda:1").reason == f"It computes on the CPU, because torch {torch.__version__} finds no cuda:1 here."


def test_every_device_that_failed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(choice_module, "free_without_context", lambda module, number: number)
    monkeypatch.setattr(choice_module, "probe", lambda device: f"{device} fell off the bus")
    assert choose("auto").reason == (
        "It computes on the CPU, because cuda:1 does not compute: cuda:1 fell off the bus; "
        "cuda:0 does not compute: cuda:0 fell off the bus."
    )


def test_a_device_that_works_is_taken_after_one_that_does_not_and_needs_no_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(choice_module, "free_without_context", lambda module, number: number)
    monkeypatch.setattr(choice_module, "probe", lambda device: "lost" if device == "cuda:1" else None)
    assert choose("auto") == Choice("cuda:0", None)


def test_emptying_the_cache_of_a_cpu_asks_torch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(allocator, "has_context", lambda device: asked.append(device) or True)
    monkeypatch.setattr(allocator, "module_for", asked.append)
    devices.empty_cache("cpu")
    assert asked == []


def test_looking_at_a_device_that_this_torch_does_not_have_starts_nothing() -> None:
    for device in ("cuda", "cuda:0", "xpu:1"):
        assert devices.memory(device) == DeviceMemory(device, None, None, 0)
        assert devices.limit(device, None), "there is none to lift"
    assert devices.memory("cpu") is None
    assert not [held for held in devices.allocated() if held.memory.device.startswith(("cuda", "xpu"))]
    assert not torch.cuda.is_initialized()


def test_a_limit_that_cannot_be_set_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    assert not devices.limit("cuda:0", 1000)
    assert "the memory of cuda:0 could not be limited" in caplog.text
