"""The device memory that all encoders together may hold: the `max_vram` setting as a value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from engine.units import GIB

_MOST: Final = 65536.0
"""GiB; far above any device, so a larger number is a slip of the keyboard."""

_DEVICE: Final = re.compile(r"cpu|cuda(:(0|[1-9][0-9]{0,2}))?|mps")
# With two digits an exponent can neither overflow nor make 0 of a number that is not 0.
_NUMBER: Final = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,2})?")

CHOICES: Final = (
    'max_vram is in GiB: 0 = no limit, 6 = at most 6, -1 = all but 1 of what is free, or a list: "cuda:0=6,cuda:1=-1"'
)
"""The valid forms, for an error message."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory limits in GiB, of which 0 is none, N a cap and -N whatever is free less N.

    `str()` gives the text that `parse` takes.
    """

    each_gpu: float = 0.0
    """For every device but the CPU; 0 beside a list."""
    listed: tuple[tuple[str, float], ...] = ()
    """For single devices; `cuda` stands for every cuda:N that is not listed itself, others have no limit."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget that `text` spells: one number, or `DEVICE=NUMBER` several times with commas between.

        Raises ValueError, which says what is wrong, then the choices.
        """
        if "=" not in text:
            return cls(each_gpu=_gib(text))
        listed: dict[str, float] = {}
        for item in text.split(","):
            device, is_pair, number = (part.strip() for part in item.partition("="))
            if not is_pair or not _DEVICE.fullmatch(device):
                raise _refusal(f"{_shown(item)} is not DEVICE=NUMBER with the device cpu, cuda, cuda:N or mps")
            if device in listed:
                raise _refusal(f"{device} is listed twice")
            listed[device] = _gib(number)
            if device == "cpu" and listed[device] < 0:
                raise _refusal(f"{_shown(item)} is below 0, and the CPU takes a cap only")
        return cls(listed=tuple(listed.items()))

    def __bool__(self) -> bool:
        """Whether there is a limit on any device."""
        return any((self.each_gpu, *dict(self.listed).values()))

    def __str__(self) -> str:
        pairs = ",".join(f"{device}={_spelled(gib)}" for device, gib in self.listed)
        return pairs or _spelled(self.each_gpu)

    def allowance(self, device: str, free: int | None, ours: int) -> int | None:
        """Return the bytes that all encoders together may hold on `device` (torch's name, with its number) now.

        `free` are the device's free bytes at this instant, None where that is unknown; `ours` the bytes that the
        encoders hold there already. None means no limit, also where it depends on what is free and that is unknown.
        """
        gib = self._limit(device)
        if gib > 0:
            return round(gib * GIB)
        if gib == 0 or free is None:
            return None
        return max(0, free + ours + round(gib * GIB))

    def _limit(self, device: str) -> float:
        kind = device.partition(":")[0]
        listed = dict(self.listed)
        everywhere = 0.0 if kind == "cpu" else self.each_gpu
        return listed.get(device, listed.get(kind, everywhere))


def _gib(text: str) -> float:
    number = text.strip().lower()
    if not _NUMBER.fullmatch(number):
        raise _refusal(f"{_shown(text)} is not a number")
    gib = float(number)
    if abs(gib) > _MOST:
        raise _refusal(f"{_shown(text)} is too much, {_MOST:g} is the most")
    if 0 < abs(gib) < 1 / GIB:
        raise _refusal(f"{_shown(text)} is less than a byte")
    # -0 passes as 0: less nothing is no budget, and TOML reads an unquoted -0 as 0 too.
    return gib


def _spelled(gib: float) -> str:
    return repr(int(gib)) if gib.is_integer() else repr(gib)


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= 24 else f"{text[:21]}...", ensure_ascii=False)


def _refusal(why: str) -> ValueError:
    return ValueError(f"{why}. {CHOICES}")
