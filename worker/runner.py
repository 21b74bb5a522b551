"""Claims, executes and completes steps on one event loop. Bells come in on Dramatiq threads.

The Dramatiq actor acknowledges at hand-over (the database, not the queue, remembers what is under way) and blocks while the process
is full, so that what is waiting stays in the queue for others.
"""

import asyncio
import random
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from engine.admission import settle_call
from engine.agent_steps import INSIDE
from engine.attempts import Claimed, Completed, Ended, claim, complete, give_back
from engine.catalogue import Catalogue
from engine.clock import now_us
from engine.errors import AIGatewayError, BudgetExceeded, CapExceeded, LimitExceeded, RetryableError
from engine.expressions import condition
from engine.ports import Doorbell, Failed, Job, Outcome, OverBudget, Skipped, StepExecutor, Succeeded, Throttled
from engine.result_cache import call_digest, recall, remember
from engine.states import ErrorClass
from engine.store.database import Database, Tx
from engine.tracing import Tracer, trace_id
from engine.transition import Ring
from worker.agent_memory import StepMemory
from worker.book import StepBook
from worker.patience import PAUSE_S, write_patiently
from worker.rules import Rules
from worker.step_spans import begin_span, end_span

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Under which name a process claims steps, how many at once, what its calls have to follow, and whether it is there for one
    suspect and nothing else.
    """

    worker_id: str
    concurrency: int
    rules: Rules = field(default_factory=Rules)
    alone: bool = False


@dataclass(frozen=True, slots=True)
class InFlight:
    """A step that this process is running."""

    held: Claimed
    task: asyncio.Task[Outcome]
    reasons: list[str]  # why it was stopped: `draining` hands the step back, `lost` writes nothing

    def stop(self, reason: str) -> None:
        """Cancel the execution; upstream calls are closed by it. Once: a second cancellation would cut that short."""
        if not self.reasons:
            self.task.cancel()
        self.reasons.append(reason)


class StepRunner:
    """Claims, executes and completes steps on the running loop."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        doorbell: Doorbell,
        executors: Mapping[str, StepExecutor],
        limits: StepLimits,
        *,
        observe: Callable[[str, str, float], None] | None = None,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._doorbell = doorbell
        self._executors = executors
        self._limits = limits
        self._observe = observe  # of each step that ended: its type, its outcome, its seconds
        self.tracer: Tracer | None = None  # set where attempts are traced
        self._room = threading.BoundedSemaphore(limits.concurrency)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = threading.Event()
        self._grace_is_over = False
        self.in_flight: dict[str, InFlight] = {}
        self._turns: deque[str] = deque()  # steps that get the next slots that become free (engine.fairness)
        self.run_ended = asyncio.Event()  # set where a run's end is to be told: its webhook is waiting

    def answer(self, step_id: str) -> None:
        """A bell: called on Dramatiq's threads, blocks while the process is full."""
        while not self._draining.is_set():
            if self._room.acquire(timeout=0.5):
                self._loop.call_soon_threadsafe(self._start, step_id)
                return

    def offer(self, step_id: str) -> bool:
        """A step that the sweeper found: taken where there is room. Called on the loop."""
        if self._draining.is_set() or not self._room.acquire(blocking=False):
            return False
        self._start(step_id)
        return True

    async def finish(self, step_id: str) -> None:
        """This one step, to the end of its attempt."""
        if self.offer(step_id):
            await asyncio.wait(self._tasks)

    def is_full(self) -> bool:
        """Whether every slot is taken."""
        return len(self._tasks) >= self._limits.concurrency

    def slots(self) -> tuple[int, Counter[tuple[str, str]]]:
        """How many there are, and those taken by priority and workflow."""
        runs = [entry.held.run for entry in self.in_flight.values()]
        return self._limits.concurrency, Counter((run["priority"], run["workflow_name"]) for run in runs)

    def owe(self, step_ids: Iterable[str]) -> None:
        """These steps come before any bell, in place of what was owed before. Called on the loop."""
        self._turns = deque(step_ids)

    async def drain(self, grace_s: float) -> None:
        """Take nothing new, let what is under way finish within its grace, hand the rest back uncounted."""
        self._draining.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        self._grace_is_over = True
        for entry in list(self.in_flight.values()):
            entry.stop("draining")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)

    def stop_lost(self, mine: Mapping[str, int], seen: Mapping[str, int]) -> None:
        """Stop steps (of those seen in flight) that the database no longer shows as this process's: cancelled or taken over."""
        for step_id, attempt in seen.items():
            entry = self.in_flight.get(step_id)
            if entry and entry.held.attempt == attempt != mine.get(step_id) and "lost" not in entry.reasons:
                entry.stop("lost")

    def _start(self, step_id: str) -> None:
        task = asyncio.create_task(self._work(step_id))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._turns and not self._draining.is_set():
            self._start(self._turns.popleft())  # in the same slot
        else:
            self._room.release()

    async def _work(self, first: str) -> None:
        """The step, and then the next one of the same run for as long as there is just one."""
        try:
            held = await self._claim(first)
            while held is not None:
                held = await self._one(held)
        except RetryableError as error:  # the database is away: the step stays ready or is found by its lease
            log.warning("step not taken", action="claim", step=first, error=error.message)
            await asyncio.sleep(PAUSE_S)

    async def _claim(self, step_id: str) -> Claimed | None:
        if self._draining.is_set():
            return None
        return await self._database.write(
            lambda tx: claim(tx, self._catalogue, step_id, self._limits.worker_id, now_us(), alone=self._limits.alone)
        )

    async def _one(self, held: Claimed) -> Claimed | None:
        span = None if self.tracer is None else begin_span(self.tracer, held)
        rejects = self._limits.rules.reject_unknown_prices
        book = StepBook(self._database, held, reject_unknown_prices=rejects, span=span)
        structlog.contextvars.bind_contextvars(run_id=held.run["id"], step=held.key, attempt=held.attempt)
        if span is not None:
            structlog.contextvars.bind_contextvars(trace_id=trace_id(span))
        started = now_us()
        entry = InFlight(held, asyncio.create_task(self._execute(held, book)), [])  # it logs with what is bound
        self.in_flight[held.step_id] = entry
        if self._grace_is_over:
            entry.stop("draining")
        outcome: Outcome | None = None
        try:
            await asyncio.wait([entry.task])
            if entry.task.cancelled() and entry.reasons:
                await self._stopped(held, book, entry.reasons)
                return None
            outcome = _outcome(entry.task)
            following = await self._complete(held, book, outcome)
            if self._observe is not None:
                self._observe(held.step.type, type(outcome).__name__.lower(), (now_us() - started) / 1_000_000)
            return following
        finally:
            if span is not None:
                end_span(span, outcome)
            del self.in_flight[held.step_id]
            structlog.contextvars.clear_contextvars()

    async def _execute(self, held: Claimed, book: StepBook) -> Outcome:
        """The executor border: whatever an executor raises becomes an outcome."""
        limit_s = _time_limit_s(held)
        try:
            async with asyncio.timeout(limit_s):
                if held.step.condition is not None and not condition(held.step.condition, held.scope):
                    return Skipped()
                execute = self._executors[held.step.type].execute
                if held.step.cache_s is None:
                    return await execute(self._job(held, book))
                return await self._through_cache(self._job(held, book), held.step.cache_s, execute)
        except TimeoutError:
            return Failed(
                ErrorClass.TIMEOUT, "no result in time" if limit_s is None else f"no result within {limit_s:g} s"
            )
        except CapExceeded as error:
            return Failed(ErrorClass.BUDGET_EXCEEDED, error.message, final=True)
        except BudgetExceeded as error:
            return OverBudget(error.message)
        except LimitExceeded as error:
            return Throttled(error.message, error.retry_after_s or 1.0)
        except RetryableError as error:
            return Failed(ErrorClass.CONNECTION, error.message, error.retry_after_s)
        except AIGatewayError as error:
            return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)
        except Exception as error:
            log.error("executor failed", action="execute", exc_info=True)
            return Failed(ErrorClass.INTERNAL, f"{type(error).__name__}: {error}", final=True)

    def _job(self, held: Claimed, book: StepBook) -> Job:
        return Job(
            run_id=held.run["id"],
            step_id=held.step_id,
            key=held.key,
            attempt=held.attempt,
            definition=held.definition,
            step=held.step,
            scope=held.scope,
            call_scope=book.scope,
            book=book,
            agent=StepMemory(self._database, held) if held.step.type in INSIDE else None,
        )

    async def _through_cache(
        self, job: Job, lifetime_s: float, execute: Callable[[Job], Awaitable[Outcome]]
    ) -> Outcome:
        """A result that was paid for already, or the step's own, which is kept even if its end cannot be written."""
        digest = call_digest(job.step, job.scope, job.call_scope.key_id)
        found = await self._database.read(lambda tx: recall(tx, digest, now_us()))
        if found is not None:
            log.info("result used again", action="execute", digest=digest)
            return found
        outcome = await execute(job)
        if isinstance(outcome, Succeeded):
            await write_patiently(self._database, lambda tx: remember(tx, digest, outcome, lifetime_s, now_us()))
        return outcome

    async def _complete(self, held: Claimed, book: StepBook, outcome: Outcome) -> Claimed | None:
        """Write the end; a database that is away is waited for, since the result is paid for. Returns the next step, claimed."""
        ended = Ended(outcome, book.take(), random.random())
        try:
            done = await self._end_and_go_on(held, ended)
        except Exception as error:
            log.error("result not storable", action="complete", exc_info=True)
            failed = Failed(ErrorClass.INTERNAL, f"the result could not be stored: {type(error).__name__}", final=True)
            done = await self._write_end(held, replace(ended, outcome=failed), go_on=False)
        log.info("step ended", action="complete", outcome=type(outcome).__name__.lower(), accepted=done.accepted)
        if done.run_ended:
            self._doorbell.ended(held.run["id"])
            if held.run["webhook_url"] is not None:
                self.run_ended.set()
        for ring in done.rings:
            self._doorbell.ring(ring.step_id, ring.priority)
        return done.following

    async def _end_and_go_on(self, held: Claimed, ended: Ended) -> Completed:
        """Should the next step's claim be what fails, this one's end is written without it.

        Where others are owed a turn this one's slot is theirs, however long the run still is.
        """
        if not (self._draining.is_set() or self._limits.alone or self._turns):
            try:
                return await self._write_end(held, ended, go_on=True)
            except Exception:
                log.warning("next step not taken", action="claim", exc_info=True)
        return await self._write_end(held, ended, go_on=False)

    async def _write_end(self, held: Claimed, ended: Ended, *, go_on: bool) -> Completed:
        return await write_patiently(
            self._database, lambda tx: complete(tx, self._catalogue, held, ended, now_us(), go_on=go_on)
        )

    async def _stopped(self, held: Claimed, book: StepBook, reasons: list[str]) -> None:
        """Book what was spent; hand the step back where this process is draining."""
        settlements = book.take()

        def write(tx: Tx) -> tuple[Ring, ...]:
            for settlement in settlements:
                settle_call(tx, settlement)
            if "lost" in reasons:
                return ()
            return give_back(tx, held, now_us()).rings

        for ring in await write_patiently(self._database, write):
            self._doorbell.ring(ring.step_id, ring.priority)


def _outcome(task: asyncio.Task[Outcome]) -> Outcome:
    """What an execution came to that nobody stopped from outside."""
    if task.cancelled():
        return Failed(ErrorClass.INTERNAL, "the executor cancelled itself", final=True)
    return task.result()


def _time_limit_s(held: Claimed) -> float | None:
    """The attempt's own timeout, cut by the step's deadline."""
    limits = [held.step.timeout_s]
    if held.step.deadline_s is not None:
        limits.append(max(0.0, held.step.deadline_s - (now_us() - held.started_us) / 1_000_000))
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None
