"""`x-aigateway-hold-back: 2s`: how long the beginning of this one stream is kept, in place of what the configuration says of its model.

While nothing has gone out, a stream that breaks is asked for anew; what has gone out cannot be taken back.
"""

from dataclasses import replace

from api.asgi import Scope
from engine.durations import parse_duration
from engine.errors import UserError
from providers.routing import Route

HEADER = b"x-aigateway-hold-back"
_NAME = HEADER.decode()
_LONGEST_S = 3600.0


def with_hold_back(route: Route, scope: Scope) -> Route:
    """The route as the request's header says. Raises: UserError."""
    told = next((value.decode("latin-1").strip() for name, value in scope["headers"] if name == HEADER), None)
    if told is None:
        return route
    try:
        seconds = 0.0 if told in ("0", "0s") else parse_duration(told, longest_s=_LONGEST_S)
    except ValueError:
        message = f"{_NAME} must be a duration such as 2s, at most 1h, or 0"
        raise UserError("invalid_parameter", message, param=_NAME) from None
    return replace(route, hold_back_s=seconds)
