"""Ids as a vocabulary writes them: each in one way, the same in every answer."""

from __future__ import annotations

import numpy as np
import pytest

from engine.adapters.kinds.m3_forms import heaviest
from engine.adapters.text.written import written


class FakeTokenizer:
    """Writes ids 3 and 5 alike and has no text for those from 6 on."""

    texts = ("<s>", "<unk>", "a", "b", "<7>", "b")
    unk_token, unk_token_id = "<unk>", 1
    cls_token_id = bos_token_id = 0
    sep_token_id = eos_token_id = pad_token_id = None

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self.texts[index] if index < len(self.texts) else None for index in ids]

    def convert_tokens_to_ids(self, texts: list[str]) -> list[int]:
        return [self.texts.index(text) if text in self.texts else 1 for text in texts]


def test_ids_that_are_written_alike_are_told_apart_by_their_number() -> None:
    assert written([2, 3, 5], FakeTokenizer()) == ("a", "b", "b [5]")
    assert written([5], FakeTokenizer()) == ("b [5]",)


def test_a_row_without_a_token_is_its_number() -> None:
    assert written([6, 1, 7], FakeTokenizer()) == ("<6>", "<unk>", "<7> [7]")


@pytest.mark.parametrize("top_k", [None, 1])
def test_nan_is_kept_as_the_heaviest_and_never_taken_for_no_weight(top_k: int | None) -> None:
    weights = np.asarray([1, 0, float("nan"), 2], dtype=np.float32)
    found = heaviest([2, 3, 5, 4], weights, FakeTokenizer(), top_k)
    assert found.tokens == ("b [5]", "<7>", "a")[:top_k]
    assert np.isnan(found.weights[0])
