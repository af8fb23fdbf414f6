"""Images in a request: data URIs and base64 in JSON, files in a form; nothing is ever fetched from a URL."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Final

from fastapi import Request
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile

from engine.http.operations import MAX_ITEMS

_URL: Final = re.compile(r"\s*[a-z][a-z0-9+.-]{1,30}:", re.IGNORECASE)
_SPACE: Final = b" \t\r\n\f\v"
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_FIELDS: Final = ("images", "files")
"""Names of the fields of a form that hold images."""


def image_bytes(text: str) -> bytes:
    """Return what a data URI or bare base64 holds; raises ValueError with the rule.

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
"""A field of a body: images as text, which come out as bytes; those of a form are bytes already."""


async def form_fields(request: Request) -> dict[str, Any]:
    """Return a form's fields as a JSON body would spell them: all its images in one list, the other fields as text."""
    async with request.form(max_files=MAX_ITEMS + 1, max_fields=MAX_ITEMS + 1) as form:
        images = [
            await item.read() if isinstance(item, UploadFile) else item
            for name, item in form.multi_items()
            if name in _FIELDS
        ]
        others = {name: item for name, item in form.items() if name not in _FIELDS and isinstance(item, str)}
    return {**others, "images": images}
