"""Batches by length: bounded in inputs and in tokens, the longest first."""

from __future__ import annotations

from engine.adapters.text.company import Company, Way
from engine.adapters.text.lengths import batches_by_length


def test_a_batch_holds_no_more_tokens_than_allowed_padding_included() -> None:
    lengths = [3, 100, 40, 2, 50]
    assert list(batches_by_length(lengths, 32, 100)) == [[1], [4, 2], [0, 3]]
    assert list(batches_by_length(lengths, 1, 100)) == [[1], [4], [2], [0], [3]]


def test_an_input_longer_than_allowed_runs_alone() -> None:
    assert list(batches_by_length([500, 5], 32, 100)) == [[0], [1]]


def test_inputs_of_equal_length_come_together_where_nothing_may_be_padded() -> None:
    assert list(batches_by_length([2, 1, 2, 1], 32, 100, equal=True)) == [[0, 2], [1, 3]]


def test_a_comparison_holds_for_twice_the_padding_and_a_new_way_needs_a_new_one() -> None:
    company = Company()
    assert company.due([5, 1]) == 1
    company.compared([5, 1])
    assert company.due([9, 1]) is None
    assert company.due([10, 1]) == 1
    company.next_way()
    assert (company.way, company.at_the_left, company.due([5, 1])) == (Way.OTHER_SIDE, True, 1)
