"""What every process logs and how: one line an event on stderr, a constant message and its data as keys.

Both structlog's loggers and the standard library's (uvicorn, dramatiq, alembic, our own rooms) end here. `bind_log_context`
gives every later line of the same task its `request_id`, `run_id`, `step` and `attempt`. Configured once per process.
"""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

bind_log_context = structlog.contextvars.bound_contextvars
"""`with bind_log_context(run_id=..., step=..., attempt=...)`: keys of every line logged inside, by this task alone."""

_SECRET_KEY = re.compile(r"(^|[_-])(authorization|api[_-]?key|secret|password|token)$", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?P<before>Bearer |://[^\s/:@]*:)[^\s@\"']+")
_QUIET = ("alembic", "httpx", "httpx2", "httpcore", "mcp", "asyncio", "watchfiles")
"""Libraries whose info lines tell what they do rather than what happened."""


def configure_logging(level: str = "info", *, json: bool | None = None) -> None:
    """Sends all logging of this process to stderr; `json` None: JSON lines unless stderr is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(as_json=as_json)],
        )
    )
    _take_over(handler, level)


def _renderers(*, as_json: bool) -> list[Processor]:
    if as_json:
        return [_event_to_message, structlog.processors.JSONRenderer(default=str)]
    return [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    ]


def _take_over(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "dramatiq"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True


def _event_to_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {"timestamp": event.pop("timestamp"), "level": event.pop("level"), "message": event.pop("event"), **event}


def _without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The last net, not the first: keys that name a secret, bearer tokens and passwords in URLs are blotted out."""
    event.pop("color_message", None)  # uvicorn's second copy of its message
    for key, value in event.items():
        event[key] = "***" if _SECRET_KEY.search(key) and value else _blot(value)
    return event


def _blot(value: Any) -> Any:
    return _SECRET_TEXT.sub(r"\g<before>***", value) if isinstance(value, str) else value
