"""`POST /encode/classify`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, PlainValidator, StrictStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from engine.http.dialects.native.fields import TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.classify import Classification, Classify, ZeroShot
from engine.operations.operation import Operation


def _pairs(value: object) -> list[list[str]]:
    if isinstance(value, list) and all(isinstance(pair, list) and [*map(type, pair)] == [str, str] for pair in value):
        return value
    raise PydanticCustomError("pairs", "must be a list of pairs of texts")


Pairs = Annotated[list[list[str]], PlainValidator(_pairs, json_schema_input_type=list[list[str]])]


class ClassifyRequest(TextBody):
    """Texts or pairs of texts; with `candidate_labels`, texts and the labels to choose from.

    Fields for zero-shot classification are named as in the inference API of the Hugging Face hub.
    """

    texts: Texts | None = None
    pairs: Pairs | None = Field(default=None, validate_default=True)
    candidate_labels: Texts | None = None
    hypothesis_template: StrictStr = "This example is {}."
    multi_label: bool = False

    @field_validator("pairs", mode="after")
    @classmethod
    def _either_pairs_or_texts(cls, pairs: list[list[str]] | None, info: ValidationInfo) -> list[list[str]] | None:
        if (pairs is None) == (info.data.get("texts") is None) and "texts" in info.data:
            raise PydanticCustomError("pairs", "give either pairs or texts")
        return pairs

    @field_validator("candidate_labels", mode="after")
    @classmethod
    def _labels_go_with_texts(cls, labels: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if labels is not None and info.data.get("pairs") is not None:
            raise PydanticCustomError("labels", "they go with texts, not with pairs")
        return labels

    @property
    def operation(self) -> Operation[Classification]:
        """The operation that the body asks for; raises InvalidInput."""
        if self.texts is None:
            return Classify([(first, second) for first, second in self.pairs or ()], self.may_cut, field="pairs")
        if self.candidate_labels is None:
            return Classify(self.texts, self.may_cut, field="texts")
        return ZeroShot(
            self.texts,
            self.candidate_labels,
            self.hypothesis_template,
            self.multi_label,
            self.may_cut,
            field="texts x candidate_labels",
            labels_field="candidate_labels",
            template_field="hypothesis_template",
        )


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/classify")
    async def classify(body: ClassifyRequest, request: Request) -> Response:
        answer = await dispatch(engine, body.operation, body, request)

        def content() -> dict[str, Any]:
            return with_encoder(_by_label(answer.value), body, answer)

        return await json_response_off_loop(content)

    return routes


def _by_label(result: Classification) -> dict[str, Any]:
    """The probability of each label, or under another name the numbers of a regression."""
    name, rows = ("labels", result.probabilities) if result.probabilities is not None else ("values", result.logits)
    return {name: [dict(zip(result.labels, row, strict=True)) for row in rows]}
