"""The bare cost of what a run leaves in the database: the same rows in the real tables, written by one connection and nothing else.

Two transactions a step (it begins; it ends and unlocks the next), or one where a step's end and the next one's beginning share it.
Nothing is read, checked, queued or asked over HTTP. On PostgreSQL the figures hold one round trip a statement.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from sqlalchemy import make_url

from engine.clock import new_id, now_us

Statement = tuple[str, Sequence[Any]]
Transaction = list[Statement]

VERSION = "INSERT INTO workflow_versions (id, name, digest, origin, config_yaml, created_us) VALUES (?, 'n', 'd', 'api', '', 1)"
RUN = """INSERT INTO runs (id, workflow_name, version_id, version, status, priority, input_json, tags_json, request_id,
  open_steps, event_seq, created_us) VALUES (?, 'nothing', ?, 1, 'queued', 'normal', '{}', '{}', ?, ?, 1, ?)"""
STEP = """INSERT INTO steps (id, run_id, key, type, position, status, priority, waiting_on, attempt, tries, losses, due_us)
  VALUES (?, ?, ?, 'set', ?, 'pending', 'normal', ?, 0, 0, 0, ?)"""
EVENT = "INSERT INTO events (run_id, seq, type, step_key, attempt, at_us) VALUES (?, ?, ?, ?, 1, ?)"
BEGIN_STEP = (
    "UPDATE steps SET status = 'running', attempt = 1, worker_id = ?, due_us = NULL, started_us = ? WHERE id = ?"
)
BEGIN_ATTEMPT = "INSERT INTO attempts (step_id, number, status, worker_id, started_us) VALUES (?, 1, 'running', ?, ?)"
END_STEP = """UPDATE steps SET status = 'succeeded', worker_id = NULL, due_us = NULL, output_json = ?, finished_us = ?
  WHERE id = ?"""
END_ATTEMPT = "UPDATE attempts SET status = 'succeeded', finished_us = ? WHERE step_id = ? AND number = 1"
READY = "UPDATE steps SET waiting_on = 0, status = 'ready', due_us = ? WHERE id = ?"
ADVANCE = "UPDATE runs SET status = ?, open_steps = ?, event_seq = ? WHERE id = ?"


class _Rows:
    """One run's statements, transaction by transaction."""

    def __init__(self, steps: int, version: str) -> None:
        self._run, self._version, self._worker = new_id(), version, new_id()
        self._steps = [new_id() for _ in range(steps)]
        self._seq = 0

    def transactions(self, *, joined: bool) -> Iterator[Transaction]:
        """Submission, and then each step's; with `joined` an end and the next beginning share one."""
        yield self._submission()
        if not joined:
            for number in range(len(self._steps)):
                yield [*self._begin(number), self._advance(number)]
                yield [*self._end(number), self._advance(number + 1)]
            return
        yield [*self._begin(0), self._advance(0)]
        for number in range(len(self._steps)):
            more = self._begin(number + 1) if number + 1 < len(self._steps) else []
            yield [*self._end(number, ready=False), *more, self._advance(number + 1)]

    def _submission(self) -> Transaction:
        now = now_us()
        run = (RUN, (self._run, self._version, self._run, len(self._steps), now))
        steps = [(STEP, (each, self._run, f"step{n}", n, int(n > 0), now)) for n, each in enumerate(self._steps)]
        return [run, *steps, self._event("run.submitted", None)]

    def _begin(self, number: int) -> Transaction:
        now, step = now_us(), self._steps[number]
        return [
            (BEGIN_STEP, (self._worker, now, step)),
            (BEGIN_ATTEMPT, (step, self._worker, now)),
            self._event("step.started", number),
        ]

    def _end(self, number: int, *, ready: bool = True) -> Transaction:
        now, step = now_us(), self._steps[number]
        following = self._steps[number + 1 :][:1] if ready else []
        return [
            (END_ATTEMPT, (now, step)),
            (END_STEP, (f'"{self._run}"', now, step)),
            *((READY, (now, each)) for each in following),
            self._event("step.succeeded", number),
        ]

    def _advance(self, ended: int) -> Statement:
        status = "succeeded" if ended == len(self._steps) else "running"
        return ADVANCE, (status, len(self._steps) - ended, self._seq, self._run)

    def _event(self, kind: str, number: int | None) -> Statement:
        self._seq += 1
        return EVENT, (self._run, self._seq, kind, None if number is None else f"step{number}", now_us())


def floor(url: str, runs: int, steps: int, *, joined: bool) -> dict[str, float]:
    """Steps a second and this process's CPU for those runs, one transaction after the other, in a database with the schema."""
    execute, close = bare(url)
    version = new_id()
    execute(VERSION, (version,))
    started, used = time.monotonic(), time.process_time()
    for _ in range(runs):
        for transaction in _Rows(steps, version).transactions(joined=joined):
            execute("BEGIN IMMEDIATE" if url.startswith("sqlite") else "BEGIN", ())
            for sql, values in transaction:
                execute(sql, values)
            execute("COMMIT", ())
    elapsed, cpu = time.monotonic() - started, time.process_time() - used
    close()
    return {
        "steps_per_s": round(runs * steps / elapsed),
        "cpu_s_per_1000_steps": round(cpu * 1000 / (runs * steps), 3),
    }


def bare(url: str) -> tuple[Callable[[str, Sequence[Any]], Any], Callable[[], None]]:
    """The driver by itself: what executes a statement with `?` for its values, and what closes the connection."""
    if url.startswith("sqlite"):
        file = sqlite3.connect(str(make_url(url).database), isolation_level=None)
        file.execute("PRAGMA journal_mode=WAL")
        file.execute("PRAGMA synchronous=NORMAL")
        file.execute("PRAGMA foreign_keys=ON")
        return file.execute, file.close
    server = psycopg.connect(url, autocommit=True)
    return lambda sql, values: server.execute(sql.replace("?", "%s").encode(), values), server.close
