"""From a template to an answer: autoescape always, headers that let a browser load and run only what comes from here."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

from api.errors import status_of
from api.pages import formats
from api.pages.values import shown
from engine.errors import AIGatewayError, NotFound

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_SAFETY = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with `no-referrer` a form's Origin would be `null`, and forms.py checks it
    "cross-origin-opener-policy": "same-origin",
}
STATIC = {path.name: path.read_bytes() for path in (_HERE / "static").iterdir() if path.suffix in _TYPES}


def static_address(name: str) -> str:
    """A static file's address; it changes with the content, so that browsers may keep the file for ever."""
    return f"/dashboard/static/{name}?v={sha256(STATIC[name]).hexdigest()[:12]}"


def _environment() -> Environment:
    loader = FileSystemLoader(_HERE / "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = (formats.usd, formats.count, formats.counted, formats.duration)
    filters: dict[str, Any] = {
        one.__name__: one for one in (*numbers, formats.moment, formats.short_id, shown, static_address)
    }
    environment.filters.update(filters)
    return environment


_TEMPLATES = _environment()


async def page(template: str, values: Mapping[str, Any], *, status: int = 200) -> Response:
    """The page, drawn on a thread: a long run must not hold up the answers of others."""
    html = await asyncio.to_thread(_TEMPLATES.get_template(template).render, values)
    body = html.encode(errors="replace")  # a lone surrogate from a model is no reason to show nothing
    return HTMLResponse(body, status, headers={**_SAFETY, "cache-control": "no-store"})


async def missing_page(path: str) -> Response:
    """Where no page is: the one that is meant where only a slash is too much, else one that says so."""
    if path.endswith("/"):
        return RedirectResponse(path.rstrip("/"), 308)
    error = NotFound("not_found", f"there is no page {path}")
    return await page("error.html", {"here": None, "error": error, "status": 404}, status=404)


def static_file(name: str) -> Response | None:
    """One of the pages' own files; None where there is none of that name."""
    body = STATIC.get(name)
    if body is None:
        return None
    headers = {**_SAFETY, "cache-control": "public, max-age=31536000, immutable"}
    return Response(body, media_type=_TYPES[Path(name).suffix], headers=headers)


class PageRoute(APIRoute):
    """A route whose known errors are pages, not JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook around a route's handler."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except AIGatewayError as error:
                status = status_of(error)
                return await page("error.html", {"here": None, "error": error, "status": status}, status=status)

        return answer
