"""The FastAPI application: all routes, the error shape, the gate. Built once per process by the composition root."""

import asyncio
from collections.abc import Callable, Mapping
from json import JSONDecodeError

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from api import budgets, config, health, keys, ledger, mcp, metrics, models, providers, runs, schedules, workflows
from api.anthropic_errors import shaped
from api.asgi import MAX_BODY_BYTES, App, JsonAnswer, Scope, too_large
from api.auth import Gate
from api.chat import begin_chat
from api.conversations import ConversationEndpoint
from api.embeddings import EmbeddingsEndpoint
from api.errors import HttpError, Problem, internal_problem, problem_of
from api.hot_runs import HotRuns
from api.idempotency import Idempotent
from api.json_mistakes import why_no_json
from api.mcp_server import McpEndpoint
from api.messages import begin_count_tokens, begin_messages
from api.openapi import complete_document
from api.pages.reference import add_reference
from api.pages.rendering import missing_page
from api.pages.routes import routes as page_routes
from api.query import check_query
from api.request_mistakes import refusal_of
from api.responses import begin_input_tokens, begin_responses
from api.services import Services
from api.token_counts import CountTokensEndpoint
from engine.errors import AIGatewayError


def create_app(services: Services) -> App:
    """The ASGI application."""
    app = FastAPI(
        title="aigateway",
        version=services.version,
        description="Durable workflows and an OpenAI-compatible gateway.",
        redirect_slashes=False,
        default_response_class=JsonAnswer,
        docs_url=None,  # FastAPI's page fetches its program from outside; api.pages draws one
        redoc_url=None,
        max_body_size=MAX_BODY_BYTES,
        telemetry={"tracing": False},  # api.auth's gate makes the request's span, for hot routes too
        dependencies=[Depends(check_query)],
    )
    hot = hot_routes(services)
    for path, endpoint in hot.items():  # the gate answers their POST itself; here are the documents and the 405
        app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    own_server = McpEndpoint(services)
    app.router.routes.append(Route("/mcp", own_server, methods=["POST"]))
    # matched in this order
    ordered = (runs, health, keys, budgets, config, models, providers, workflows, schedules, ledger, mcp, metrics)
    for module in ordered:
        app.include_router(module.routes(services))
    app.include_router(page_routes(services))
    app.add_exception_handler(AIGatewayError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    complete_document(app)
    add_reference(app)
    keys_required = services.auth == "required"
    gate = Gate(
        app,
        services.keys,
        hot=_past_the_layers(hot, HotRuns(services, app)),
        keys_required=keys_required,
        metrics_open=services.metrics_open,
        on_loopback=services.on_loopback,
    )
    gate.tracer = services.tracer
    own_server.connect(gate)
    return gate


def hot_routes(services: Services) -> dict[str, App]:
    """The plain ASGI endpoints by path; all are POST."""
    answering: dict[str, App] = {
        "/v1/chat/completions": ConversationEndpoint(services, begin_chat),
        "/v1/embeddings": EmbeddingsEndpoint(services),
        "/v1/messages": ConversationEndpoint(services, begin_messages),
        "/v1/responses": ConversationEndpoint(services, begin_responses),
    }
    under_way: dict[str, asyncio.Event] = {}
    routes: dict[str, App] = {path: Idempotent(services, app, under_way) for path, app in answering.items()}
    return routes | {
        "/v1/messages/count_tokens": CountTokensEndpoint(services, begin_count_tokens),
        "/v1/responses/input_tokens": CountTokensEndpoint(services, begin_input_tokens),
    }


def _past_the_layers(posted: Mapping[str, App], runs: HotRuns) -> Callable[[Scope], App | None]:
    def find(scope: Scope) -> App | None:
        endpoint = posted.get(scope["path"]) if scope["method"] == "POST" else None
        return endpoint or runs.endpoint(scope)

    return find


async def _known(_: Request, error: Exception) -> JsonAnswer:
    assert isinstance(error, AIGatewayError)
    return _response(problem_of(error))


async def _invalid(request: Request, error: Exception) -> JsonAnswer:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.__cause__, JSONDecodeError):
        return _response(_no_json(error.__cause__.doc.encode(), error.__cause__))
    return _response(problem_of(refusal_of(request, error)))


_METHODS = ("GET", "POST", "PUT", "DELETE")


async def _http(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, a method that is not allowed, a body that turned out too large as it came."""
    assert isinstance(error, HTTPException)
    if error.status_code == 413:
        return _response(
            shaped(problem_of(too_large(MAX_BODY_BYTES)), request.url.path, request.scope["state"]["request_id"])
        )
    if error.status_code == 404 and request.url.path.startswith(("/dashboard", "/docs/")):
        return await missing_page(request.url.path)
    if error.status_code == 400 and error.__cause__ is not None:  # FastAPI could not read the body
        return _response(_no_json(await request.body(), error.__cause__))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    problem = problem_of(HttpError(error.status_code, code, message))
    response = _response(shaped(problem, request.url.path, request.scope["state"]["request_id"]))
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = _methods_of(request)
    return response


def _methods_of(request: Request) -> str:
    """All methods of a path: its routes are several, and the first one that fits knows its own alone."""

    def answers(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    found = [method for method in _METHODS if answers(method)]
    return ", ".join(["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found)


def _no_json(data: bytes, error: BaseException) -> Problem:
    return problem_of(HttpError(400, "invalid_json", why_no_json(data, error)))


async def _unexpected(request: Request, _: Exception) -> JsonAnswer:
    """What nobody expected, in the one shape; Starlette hands the exception on to the gate, which logs it."""
    return _response(shaped(internal_problem(), request.url.path, request.scope["state"]["request_id"]))


def _response(problem: Problem) -> JsonAnswer:
    return JsonAnswer(problem.body, status_code=problem.status, headers=problem.headers)
