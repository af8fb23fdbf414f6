"""The base of kinds that read texts: their rows in batches through a module, each with the result that it has alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from engine.adapters.base.batches import LARGEST
from engine.adapters.base.torch_module import TorchAdapter
from engine.adapters.text.company import Company, Way, agree, own_part
from engine.adapters.text.lengths import batches_by_length
from engine.adapters.text.rows import Features, Rows
from engine.errors import InvalidInput
from engine.operations.inputs import ITEMS

_log = logging.getLogger(__name__)

_LOOKED_AT: Final = 3
"""Inputs of a batch without a finite result that are computed alone: padding would spoil all that are padded."""

T = TypeVar("T")


class _Parted(Exception):
    """The inputs of a batch must come together in another way; all is computed again."""


class TextAdapter(TorchAdapter):
    """One module that computes on rows of token ids."""

    def _compute(
        self,
        rows: Rows,
        company: Company,
        forward: Callable[[Features], Any],
        finish: Callable[[Any, list[int], Features], Sequence[T]],
        *,
        nothing: T | None = None,
        least: int = 1,
        tokens: int | None = None,
    ) -> list[T]:
        """Return a result for each of `rows`, the same as alone, in batches that `company` allows.

        `forward` gets a batch on the device and returns a tensor with one row per input, `finish` makes the results of
        it, of the indices, and of the features; both run in inference mode. `nothing` is the result of an input of
        fewer than `least` tokens; without it that raises InvalidInput. `tokens` is a bound of the tokens per forward.
        """
        import torch

        lengths = rows.lengths
        full = [index for index, length in enumerate(lengths) if length >= least]
        if len(full) < len(lengths) and nothing is None:
            raise _empty(next(index for index, length in enumerate(lengths) if length < least), self._config.name)
        share = min(self._batches.tokens, tokens or math.inf) / LARGEST
        batch: list[int] = []
        if not rows.masked and company.way in (Way.AS_TOLD, Way.OTHER_SIDE):
            # No mask would tell the padding from the tokens.
            company.next_way(at_once=Way.EQUAL)

        def one(batch: list[int], place: int) -> Any:
            features = rows.features([batch[place]], company)
            return forward({key: self._there(value) for key, value in features.items()})[0]

        def run(size: int) -> dict[int, T]:
            nonlocal batch
            found: dict[int, T] = {}
            most = 1 if company.way is Way.ALONE else size
            equal = company.way is Way.EQUAL
            for batch in batches_by_length(lengths, most, int(size * share), equal=equal, of=full):
                features = rows.features(batch, company)
                sent = {key: self._there(value) for key, value in features.items()}
                results = self._forward(
                    sent,
                    [lengths[index] for index in batch],
                    company,
                    forward,
                    partial(one, batch),
                    once=None if rows.paddable else Way.ALONE,
                )
                found.update(zip(batch, finish(results, batch, sent), strict=True))
            return found

        count = max(len(full), math.ceil(len(full) * max(lengths, default=0) / share))
        while full:
            try:
                with torch.inference_mode():
                    found = self._in_batches(run, count, alone=lambda: len(batch) == 1)
            except _Parted:
                continue
            return [found.get(index, nothing) for index in range(len(lengths))]  # type: ignore[misc]
        return [nothing for _ in lengths]  # type: ignore[misc]

    def _forward(
        self,
        sent: Features,
        lengths: list[int],
        company: Company,
        forward: Callable[[Features], Any],
        alone: Callable[[int], Any],
        *,
        once: Way | None,
    ) -> Any:
        """The results of a batch, if those are the same that its inputs have `alone`.

        Else it raises _Parted, and the next way is taken, or `once` another one.
        """
        import torch

        try:
            # A copy, because modules add to it.
            results = forward(dict(sent))
        except ValueError:
            if len(lengths) == 1:
                raise
            # Some heads take one input at a time where no padding token is known; one that fails alone raises here.
            for place in range(len(lengths)):
                alone(place)
            self._part(company, "the model refuses batches", at_once=Way.ALONE)
        if len(lengths) == 1:
            return results
        due = company.due(lengths)
        # By their sums, in one look, because a GPU has to be waited for; those of finite halves may be infinite.
        finite = results.flatten(1).sum(1, dtype=torch.float32).isfinite().tolist()
        infinite = sorted((place for place, is_finite in enumerate(finite) if not is_finite), key=lengths.__getitem__)
        for place in dict.fromkeys(([] if due is None else [due]) + infinite[:_LOOKED_AT]):
            own, longest = alone(place), max(lengths)
            beside = own_part(results, place, lengths[place], longest, at_the_left=company.at_the_left)
            # A model that is not equal to itself cannot be compared.
            if not agree(beside, own) and agree(alone(place), own):
                self._part(company, "an input has another result in a batch than alone", at_once=once)
        if due is not None:
            company.compared(lengths)
        return results

    def _part(self, company: Company, reason: str, *, at_once: Way | None = None) -> None:
        was = company.way
        company.next_way(at_once=at_once)
        if was is company.way:
            return
        _log.info("%s: %s; inputs now run %s", self._config.name, reason, company.way.value)
        raise _Parted

    def _there(self, value: Any) -> Any:
        return value.to(self._device) if hasattr(value, "to") else value


def _empty(index: int, name: str) -> InvalidInput:
    return InvalidInput(
        f"{ITEMS}[{index}] has no token that {name} could read.",
        param=ITEMS,
        next_step="Send a text that is not empty.",
    )
