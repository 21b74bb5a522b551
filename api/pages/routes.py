"""The pages' addresses."""

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse

from api.pages.calls_page import AskedCalls, calls_page
from api.pages.chat_page import chat_page
from api.pages.deliveries_page import deliveries_page, send_again
from api.pages.mcp_servers import check_servers, mcp_servers
from api.pages.overview import SpendKept, overview
from api.pages.providers_page import check_providers, providers_page
from api.pages.rendering import PageRoute, static_file
from api.pages.run_list import Asked, run_list
from api.pages.run_page import run_page, steer
from api.pages.schedules_page import schedules_page
from api.pages.spend_chart import DAYS
from api.pages.workflow_pages import workflow_list, workflow_page
from api.services import Services
from engine.errors import NotFound


def routes(services: Services) -> APIRouter:
    """All pages, what their buttons send to, and their files."""
    router = APIRouter(tags=["dashboard"], route_class=PageRoute, default_response_class=HTMLResponse)
    _page_routes(router, services)
    _outside_routes(router, services)
    _slashed_routes(router)
    _files_route(router)
    _button_routes(router, services)
    return router


def _page_routes(router: APIRouter, services: Services) -> None:
    spend_kept = SpendKept(services)

    @router.get("/dashboard", summary="Spend, the system's state, the latest runs")
    async def show_overview(days: str = str(DAYS)) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await overview(services, spend_kept, days)

    @router.get("/dashboard/runs", summary="All runs, by status, workflow, id or tag")
    async def show_runs(  # pyright: ignore[reportUnusedFunction]
        status: str = "", workflow: str = "", search: str = "", before: str = ""
    ) -> Response:
        asked = Asked(status, workflow.strip(), search.strip(), before)
        return await run_list(services, asked)

    @router.get("/dashboard/runs/{run_id}", summary="One run as a timeline")
    async def show_run(run_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await run_page(services, run_id)

    @router.get("/dashboard/calls", summary="The ledger's calls, by status, model, tag or request")
    async def show_calls(  # pyright: ignore[reportUnusedFunction]
        status: str = "", model: str = "", request: str = "", tag: str = "", before: str = ""
    ) -> Response:
        asked = AskedCalls(status, model.strip(), request.strip(), tag.strip(), before)
        return await calls_page(services, asked)

    @router.get("/dashboard/schedules", summary="What runs by the clock, when next, and what came of it")
    async def show_schedules() -> Response:  # pyright: ignore[reportUnusedFunction]
        return await schedules_page(services)

    @router.get("/dashboard/deliveries", summary="Webhooks of all runs, and how they went")
    async def show_deliveries(status: str = "", before: str = "") -> Response:  # pyright: ignore[reportUnusedFunction]
        return await deliveries_page(services, status=status, before=before)

    @router.get("/dashboard/workflows", summary="The stored definitions")
    async def show_workflows() -> Response:  # pyright: ignore[reportUnusedFunction]
        return await workflow_list(services)

    @router.get("/dashboard/workflows/{name}", summary="One definition as a graph")
    async def show_workflow(name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await workflow_page(services, name)


def _slashed_routes(router: APIRouter) -> None:
    """Each page's address with a slash behind it leads to the page, by a path alone: no proxy in front has to be known."""

    async def without_slash(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(request.url.path.rstrip("/") + query, 308)

    for page in [route.path for route in router.routes if isinstance(route, APIRoute)]:
        router.add_api_route(f"{page}/", without_slash, include_in_schema=False)


def _outside_routes(router: APIRouter, services: Services) -> None:
    """What the gateway reaches out to."""

    @router.get("/dashboard/chat", summary="A page to try a model")
    async def show_chat() -> Response:  # pyright: ignore[reportUnusedFunction]
        return await chat_page(services)

    @router.get("/dashboard/providers", summary="The providers and which of their models rest")
    async def show_providers() -> Response:  # pyright: ignore[reportUnusedFunction]
        return await providers_page(services)

    @router.get("/dashboard/mcp", summary="The MCP servers and how they stand")
    async def show_mcp() -> Response:  # pyright: ignore[reportUnusedFunction]
        return await mcp_servers(services)


def _files_route(router: APIRouter) -> None:
    @router.get("/dashboard/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = static_file(name)
        if found is None:
            raise NotFound("not_found", f"there is no file {name!r}")
        return found


def _button_routes(router: APIRouter, services: Services) -> None:
    @router.post("/dashboard/runs/{run_id}/{action}", include_in_schema=False)
    async def press(run_id: str, action: str, request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await steer(services, request, run_id, action)

    @router.post("/dashboard/deliveries/{delivery_id}/redeliver", include_in_schema=False)
    async def deliver_again(delivery_id: str, request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await send_again(services, request, delivery_id)

    @router.post("/dashboard/providers/check", include_in_schema=False)
    async def ask_providers(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await check_providers(services, request)

    @router.post("/dashboard/mcp/check", include_in_schema=False)
    async def check(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await check_servers(services, request)
