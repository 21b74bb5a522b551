"""A call that costs nothing by itself (a tool, an HTTP request), booked like any other: intent before, outcome after, whatever happens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from engine.clock import now_us
from engine.errors import AIGatewayError, UserError
from engine.ledger import Book, Intent, Settlement, settle_free
from engine.states import ErrorClass
from engine.tracing import Attributes, SpanKind, Work


class FreeCall:
    """A call under way; it counts as good unless it is said to have failed."""

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self._failed: tuple[ErrorClass | None, str | None] = (None, None)

    def failed(self, error_class: ErrorClass, message: str) -> None:
        """What its row says in the end."""
        self._failed = (error_class, message)

    @property
    def has_failed(self) -> bool:
        """Whether somebody said so."""
        return self._failed[0] is not None

    def settlement(self) -> Settlement:
        """As it stands now."""
        return settle_free(self.intent, now_us(), *self._failed)


@asynccontextmanager
async def free_call(
    book: Book, intent: Intent, *, name: str, kind: SpanKind, attributes: Attributes
) -> AsyncGenerator[FreeCall]:
    """Around the call itself: the intent is durable before it begins, and its end is booked also where the caller is cancelled.

    Raises: what opening the book raises, and what the call does.
    """
    await book.open(intent)
    call = FreeCall(intent)

    async def settle() -> None:
        ended = call.settlement()
        if intent.scope.span is not None:
            intent.scope.span.add(work_of(intent, ended, name=name, kind=kind, attributes=attributes))
        await book.settle(ended)

    try:
        yield call
    except AIGatewayError as error:
        if not call.has_failed:
            known = ErrorClass.INVALID_REQUEST if isinstance(error, UserError) else ErrorClass.INTERNAL
            call.failed(known, error.message)
        await settle()
        raise
    except asyncio.CancelledError:
        call.failed(ErrorClass.CANCELLED, "stopped before its end")
        await asyncio.shield(settle())
        raise
    await settle()


def work_of(intent: Intent, ended: Settlement, *, name: str, kind: SpanKind, attributes: Attributes) -> Work:
    """A call as a trace tells it, free or not; `attributes` by OpenTelemetry's conventions, without anything that was said."""
    known: Attributes = {"aigateway.request.id": intent.scope.request_id, "aigateway.call.id": intent.id}
    return Work(
        name=name,
        kind=kind,
        began_us=intent.at_us,
        ended_us=ended.finished_us,
        attributes={**attributes, **known},
        error=None if ended.error_class is None else ended.error_class.value,
    )
