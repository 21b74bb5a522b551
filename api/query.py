"""Query parameters that a route does not know, or that are given twice, are refused by name, on every route under /v1 that FastAPI answers.

A filter with a typing error would otherwise answer something else than was asked. The hot routes take any, since clients of other
APIs send theirs (`?beta=true`).
"""

from fastapi import Request
from fastapi.routing import APIRoute

from api.plain_text import check_plain
from engine.errors import UserError
from engine.nearest import nearest

_SHOWN = 100


async def check_query(request: Request) -> None:
    """A dependency of the whole application. Raises: UserError."""
    check_plain(request.path_params)
    check_plain(request.query_params)
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute) or not request.url.path.startswith("/v1/"):
        return
    known = _known_names(request, route)
    for name in request.query_params:
        if name not in known:
            near = nearest(name, known)
            hint = f", did you mean `{near}`?" if near else f"; known here: {', '.join(sorted(known)) or 'none'}"
            message = f"`{name[:_SHOWN]}` is no query parameter of this route{hint}"
            raise UserError("invalid_parameter", message, param=name[:_SHOWN])
        if len(request.query_params.getlist(name)) > 1:  # one of them would be left out unsaid
            raise UserError("invalid_parameter", f"`{name}` is given more than once", param=name)


def _known_names(request: Request, route: APIRoute) -> set[str]:
    """As the OpenAPI document tells them, which is made once a process."""
    described = request.app.openapi()["paths"].get(route.path_format, {}).get(request.method.lower(), {})
    return {told["name"] for told in described.get("parameters", []) if told["in"] == "query"}
