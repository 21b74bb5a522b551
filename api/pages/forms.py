"""What the pages' buttons send: checked to come from these pages, read strictly."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi import Request

from api.errors import HttpError
from engine.errors import UserError

_MOST_BYTES = 65_536


def check_same_origin(request: Request) -> None:
    """Another site's page may not press our buttons with a visitor's browser. Raises: HttpError."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        same = site == "same-origin"
    else:  # browsers leave it out on plain HTTP between machines, but send Origin with every form
        origin = request.headers.get("origin")
        same = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not same:
        raise HttpError(403, "cross_origin", "this form must be sent from the dashboard itself; programs use /v1")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a URL-encoded form; of a field given twice the last. Raises: HttpError, UserError."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HttpError(413, "request_too_large", f"a form has at most {_MOST_BYTES} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise UserError("invalid_request", "the form is not URL-encoded UTF-8") from error
    return {name: values[-1] for name, values in fields.items()}


def usd_field(fields: dict[str, str], name: str) -> Decimal | None:
    """An amount of money; None where the field is empty. Raises: UserError."""
    text = fields.get(name, "").strip()
    if not text:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= 1_000_000:
        raise UserError("invalid_parameter", f"{name} must be an amount of USD such as 2.50", param=name)
    return amount


def json_field(fields: dict[str, str], name: str) -> Any:
    """A field with JSON in it; None where it is empty. Raises: UserError."""
    text = fields.get(name, "").strip()
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        raise UserError("invalid_parameter", f"{name} must be JSON: {str(error)[:200]}", param=name) from None
