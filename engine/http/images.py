"""Images in a request: data URIs and base64 in JSON, files in a form; no URL is ever fetched."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from engine.http.dispatch import MAX_ITEMS
from engine.http.security import MAX_BODY_BYTES

_URL: Final = re.compile(r"\s*[a-z][a-z0-9+.-]{1,30}:", re.IGNORECASE)
_SPACE: Final = b" \t\r\n\f\v"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_FIELDS: Final = ("images", "image", "files", "file")
"""Names of the fields of a form whose texts are images."""


def image_bytes(text: str) -> bytes:
    """Return the content of a data URI or of bare base64; raises ValueError with the rule.

    Base64 may be standard or URL-safe (RFC 4648, sections 4 and 5), padded or not, with white space anywhere.
    """
    payload = text
    if text[:5].lower() == "data:":
        head, comma, payload = text.partition(",")
        if not comma or not head.lower().rstrip().endswith(";base64"):
            raise ValueError("is a data URI without base64; write data:image/png;base64,...")
    elif _URL.match(text):
        raise ValueError("is a URL, and nothing is fetched here; send the image itself as a data URI or base64")
    try:
        plain = payload.encode("ascii").translate(_URL_SAFE, _SPACE).rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("is not valid base64") from None


def _images(value: object) -> list[bytes]:
    rule = "must be a list of images, each a data URI or base64"
    if not isinstance(value, list):
        raise PydanticCustomError("images", "{rule}", {"rule": rule})
    if len(value) > MAX_ITEMS:
        raise PydanticCustomError(
            "images", "has {count} items; the limit is {limit}", {"count": len(value), "limit": MAX_ITEMS}
        )
    found = []
    for index, item in enumerate(value):
        if not isinstance(item, str | bytes):
            raise PydanticCustomError("images", "{rule}", {"rule": rule})
        try:
            found.append(image_bytes(item) if isinstance(item, str) else item)
        except ValueError as error:
            raise PydanticCustomError("images", "[{index}] {rule}", {"index": index, "rule": str(error)}) from error
    return found


Images = Annotated[list[bytes], PlainValidator(_images, json_schema_input_type=list[str])]
"""A field of a body: images as text, converted to bytes; those of a form are bytes already."""


_OTHERS: Final = 16
"""Fields that a form may have beside its images."""


async def form_fields(request: Request) -> dict[str, Any]:
    """Return a form's fields as a JSON body would spell them: all its images in one list, the other fields as text.

    Every file is an image, whatever the name of its field; so is each text in a field that is named after images.
    Raises RequestValidationError for no image or too many, HTTPException for a form that is broken.
    """
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=MAX_ITEMS,
        max_fields=MAX_ITEMS + _OTHERS,
        max_part_size=MAX_BODY_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise _refused(f"has more than {MAX_ITEMS} items; the limit is {MAX_ITEMS}") from error
        raise HTTPException(400, f"The form is broken: {error.message}") from error
    try:
        images = [await item.read() if isinstance(item, UploadFile) else item for item in _sent(form)]
    finally:
        await form.close()
    if not images:
        raise _refused('must be sent, each as a file (curl -F "images=@photo.png"), a data URI or base64')
    others = {name: item for name, item in form.items() if name not in _FIELDS and isinstance(item, str)}
    return {**others, **_numbers(others), "images": images}


class _Parser(MultiPartParser):
    """A parser of forms that refuses one without its last boundary."""

    _ended = False

    async def parse(self) -> FormData:
        self.stream = self._whole(self.stream)
        return await super().parse()

    def on_end(self) -> None:
        self._ended = True

    async def _whole(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("it is cut off before its end.")


def _sent(form: FormData) -> Iterator[UploadFile | str]:
    for name, item in form.multi_items():
        # A browser sends an empty file without a name if none was chosen.
        if (item.filename or item.size) if isinstance(item, UploadFile) else name in _FIELDS:
            yield item


def _numbers(fields: Mapping[str, str]) -> dict[str, float]:
    """Return the fields that JSON would hold as numbers; a form has only text."""
    with suppress(KeyError, ValueError):
        return {"ttl": float(fields["ttl"])}
    return {}


def _refused(message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "images", "loc": ("body", "images"), "msg": message}])
