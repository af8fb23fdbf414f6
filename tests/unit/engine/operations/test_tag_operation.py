"""Tag: what a caller may ask, before anything loads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.errors import InvalidInput
from engine.operations.tag import Tag, Tagged, Token


class FakeTagger:
    def tag(self, texts: Sequence[str]) -> tuple[Tagged, ...]:
        return tuple(Tagged((Token(text, 0, len(text), "X", "", None),), ()) for text in texts)


def test_each_text_gives_one_document_in_order() -> None:
    documents = Tag(["one", "", "three"])(FakeTagger())
    assert [document.tokens[0].text for document in documents] == ["one", "", "three"]


def test_no_texts_give_no_documents() -> None:
    assert not Tag([]).size
    assert Tag([]).nothing() == ()


@pytest.mark.parametrize("texts", ["one text", 7, None, [1], ["a", None], ["\ud800"]])
def test_what_is_no_list_of_texts_is_refused(texts: object) -> None:
    with pytest.raises(InvalidInput, match="texts"):
        Tag(texts)  # type: ignore[arg-type]


def test_an_error_of_the_adapter_names_the_callers_field() -> None:
    class Short:
        def tag(self, texts: Sequence[str]) -> tuple[Tagged, ...]:
            raise InvalidInput("input[1] has 7 characters.", param="input", next_step="Send input[1] in pieces.")

    with pytest.raises(InvalidInput, match=r"^documents\[1\] has 7") as refused:
        Tag(["a", "b"], field="documents")(Short())
    assert refused.value.param == "documents"
