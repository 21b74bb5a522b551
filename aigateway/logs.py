"""What every process logs and how: one line an event on stderr, a constant message and its data as keys.

Both structlog's loggers (our own rooms) and the standard library's (uvicorn, dramatiq, alembic) end here, in the same form. Ours
write their line themselves: through the standard library's records and handlers a line cost about twice as much. `bind_log_context`
gives every later line of the same task its `request_id`, `run_id`, `step` and `attempt`. Configured once per process.
"""

import logging
import re
import sys
from contextlib import suppress
from functools import lru_cache
from json import JSONEncoder
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

bind_log_context = structlog.contextvars.bound_contextvars
"""`with bind_log_context(run_id=..., step=..., attempt=...)`: keys of every line logged inside, by this task alone."""

_SECRET_KEY = re.compile(r"(^|[_-])(authorization|api[_-]?key|secret|password|token)$", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?P<before>Bearer |://[^\s/:@]*:)[^\s@\"']+")
_QUIET = ("alembic", "httpx", "httpx2", "httpcore", "mcp", "asyncio", "watchfiles")
"""Libraries whose info lines tell what they do rather than what happened."""


_ENCODER = JSONEncoder(default=str)


def _json(event: Any, **_: Any) -> str:
    return _ENCODER.encode(event)


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
        processors=[*shared, *_renderers(as_json=as_json)],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
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
        return [_event_to_message, structlog.processors.JSONRenderer(serializer=_json)]
    return [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    ]


class _Lines(structlog.WriteLogger):
    """What a logger of ours writes with. A stderr that nobody reads any more costs the line and nothing else."""

    def __init__(self, name: str = "") -> None:
        super().__init__(sys.stderr)
        self.name = name

    def msg(self, message: str) -> None:
        """One write a line, so that lines of several threads do not mix."""
        with suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = msg


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
        event[key] = "***" if _is_secret(key) and value else _blot(value)
    return event


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _blot(value: Any) -> Any:
    if not isinstance(value, str) or not ("Bearer " in value or "://" in value):
        return value
    return _SECRET_TEXT.sub(r"\g<before>***", value)
