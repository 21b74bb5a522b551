"""The types of single values in the configuration: what may be written, and the sentence where it does not fit.

No message repeats the value: it may be a secret, or stand where one belongs.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, cast

from pydantic import BeforeValidator, Field, SecretStr

from engine.durations import parse_duration

SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://", "postgresql+psycopg://")


def _duration(value: object) -> object:
    return timedelta(seconds=parse_duration(value))


def _delay(value: object) -> object:
    return timedelta() if value in (0, "0s", "0ms") else _duration(value)


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _database_url(value: object) -> object:
    if isinstance(value, str):
        if value.startswith("postgres://"):
            return value.replace("postgres://", "postgresql://", 1)
        if not value.startswith((SQLITE, *_POSTGRESQL)) or value == SQLITE:
            raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    return value


def _redis_url(value: object) -> object:
    if isinstance(value, str) and value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must be redis://HOST:PORT/NUMBER, rediss:// or unix://")
    return _empty_is_none(value)


def _http_url(value: object) -> object:
    if isinstance(value, str) and value and not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must start with http:// or https:// and a host")
    return _empty_is_none(value)


def names_to_mapping(value: object) -> object:
    """A list of model names is a mapping of names without behaviour."""
    if not isinstance(value, list):
        return value
    names = cast("list[object]", value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of model names")
    return {cast("str", name): dict[str, object]() for name in names}


def _failure(value: object) -> object:
    if value in ("timeout", "reset", "cut") or (isinstance(value, int) and 400 <= value <= 599):
        return value
    raise ValueError("must be a status from 400 to 599, or timeout, reset or cut")


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Delay = Annotated[timedelta, BeforeValidator(_delay)]
Whole = Annotated[int, BeforeValidator(_no_bool)]
Usd = Annotated[Decimal, BeforeValidator(_no_bool), Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Share = Annotated[Decimal, BeforeValidator(_no_bool), Field(gt=0, le=100, allow_inf_nan=False)]
Price = Annotated[Decimal, BeforeValidator(_no_bool), Field(ge=0, le=1_000_000, allow_inf_nan=False)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_is_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_empty_is_none)]
HttpUrl = Annotated[str | None, BeforeValidator(_http_url), Field(repr=False)]
DatabaseUrl = Annotated[str, BeforeValidator(_database_url), Field(repr=False)]
RedisUrl = Annotated[str | None, BeforeValidator(_redis_url), Field(repr=False)]
Failure = Annotated[int | str, BeforeValidator(_failure)]
Weight = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=1_000_000, allow_inf_nan=False)]
