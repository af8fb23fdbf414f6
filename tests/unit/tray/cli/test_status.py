"""`pilotlight status`: the memory of GPUs that this computer may not have."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from tray_fakes import GIB, MIB, a_gpu

from engine import DeviceReading
from tray.cli import status


def lines(*devices: DeviceReading, problem: str | None = None) -> list[str]:
    memory: dict[str, Any] = {"process": {"rss": 412 * MIB}, "devices": [asdict(device) for device in devices]}
    found = {"version": "1.2.3", "pid": 7, "memory": memory, "components": [], "settings_problem": problem}
    return list(status.lines(found, "http://127.0.0.1:7458"))


def test_without_a_gpu_there_is_no_line_for_one() -> None:
    assert lines() == ["Pilotlight 1.2.3 at http://127.0.0.1:7458 (process 7)", "RSS 412 MiB"]


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("s.toml, line 2: a: b.", "The settings file is not in force: s.toml, line 2: a: b."),
        (
            "s.toml, line 2: a.\nline 3: b.\nline 4: c.",
            "The settings file is not in force: s.toml, line 2: a. (and 2 more)",
        ),
    ],
)
def test_settings_that_are_not_in_force_are_told_in_one_line(problem: str, line: str) -> None:
    assert lines(problem=problem)[1] == line


def test_each_gpu_has_a_line_with_what_is_ours_the_contexts_others_and_free() -> None:
    told = replace(a_gpu(0, 3 * GIB), vram_free=5 * GIB, allocated_vram=900 * MIB, context_bytes=310 * MIB)
    assert lines(replace(told, others_vram=2 * GIB), a_gpu(1, GIB))[2:] == [
        "VRAM of GPU 0: 3.0 GiB of 8.0 GiB, ours 900 MiB, context 310 MiB, others 2.0 GiB, free 5.0 GiB",
        "VRAM of GPU 1: 1.0 GiB of 8.0 GiB, ours unknown, context unknown, others unknown, free unknown",
    ]


def test_two_gpus_of_one_name_are_told_apart() -> None:
    twins = (replace(a_gpu(index), name="NVIDIA GeForce RTX 4060") for index in (0, 1))
    assert [line.partition(":")[0] for line in lines(*twins)[2:]] == [
        "VRAM of GPU 0 (NVIDIA GeForce RTX 4060)",
        "VRAM of GPU 1 (NVIDIA GeForce RTX 4060)",
    ]


def test_a_gpu_that_shares_the_systems_memory_says_so() -> None:
    [line] = lines(replace(a_gpu(0, None, None), name="Apple GPU", allocated_vram=70 * MIB, shares_ram=True))[2:]
    assert line.startswith(
        "VRAM of GPU 0 (Apple GPU): the GPU shares the system's memory, ours 70 MiB, context unknown"
    )
