"""Random submissions, ends, failures, cancels, pauses, retries and deaths against a model of the limit that fits on half a page."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engine_hand import Hand, opened
from engine_play import play
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import places
from engine.ports import Failed
from engine.states import ErrorClass, Priority
from engine.store.places import get_place

LIMIT = 2
SOURCE = """
name: NAME
concurrency: {limit: 2, key: "${input.key}"}
steps: [{id: only, type: set, value: 1}]
"""
RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
ACTIONS = st.tuples(
    st.sampled_from(["submit"] * 4 + ["end", "end", "fail", "retry", "cancel", "pause", "resume", "die"]),
    st.integers(0, 30),
    st.sampled_from(list(Priority)),
    st.sampled_from("ab"),
)


@dataclass
class Model:
    """Each run by its number: `line`, `way` (under way) or `over`, and whether it is paused or failed."""

    state: list[str] = field(default_factory=list[str])
    rank: list[int] = field(default_factory=list[int])
    key: list[str] = field(default_factory=list[str])
    paused: set[int] = field(default_factory=set[int])
    failed: set[int] = field(default_factory=set[int])

    def fill(self) -> None:
        for key in set(self.key):
            mine = [number for number in range(len(self.state)) if self.key[number] == key]
            waiting = [number for number in mine if self.state[number] == "line" and number not in self.paused]
            room = LIMIT - sum(self.state[number] == "way" for number in mine)
            for number in sorted(waiting, key=lambda each: (self.rank[each], each))[: max(0, room)]:
                self.state[number] = "way"


class Play:
    """The same on the engine."""

    def __init__(self, hand: Hand, source: str) -> None:
        self.hand = hand
        self.source = source
        self.model = Model()
        self.runs: list[str] = []

    def do(self, kind: str, number: int, priority: Priority, key: str) -> None:
        model = self.model
        if kind == "submit":
            self.runs.append(self.hand.start(self.source, {"key": key}, priority=priority))
            model.state.append("line")
            model.rank.append(RANKS[priority])
            model.key.append(key)
        elif self.runs:
            getattr(self, f"_{kind}")(number % len(self.runs))
        model.fill()

    def _going(self, number: int) -> bool:
        return self.model.state[number] == "way" and number not in self.model.paused

    def _end(self, number: int) -> None:
        if self._going(number):
            assert play(self.hand, self.runs[number])["status"] == "succeeded"
            self.model.state[number] = "over"

    def _fail(self, number: int) -> None:
        if self._going(number):
            self.hand.complete(self.hand.claim(self.runs[number], "only"), Failed(ErrorClass.AUTH, "no"))
            self.model.state[number] = "over"
            self.model.failed.add(number)

    def _retry(self, number: int) -> None:
        if number in self.model.failed:
            self.hand.retry(self.runs[number])
            self.model.failed.discard(number)
            self.model.state[number] = "line"

    def _cancel(self, number: int) -> None:
        if self.model.state[number] != "over":
            self.hand.cancel(self.runs[number])
            self.model.state[number] = "over"
            self.model.paused.discard(number)

    def _pause(self, number: int) -> None:
        if self.model.state[number] != "over":
            self.hand.pause(self.runs[number])
            self.model.paused.add(number)

    def _resume(self, number: int) -> None:
        if number in self.model.paused:
            self.hand.resume(self.runs[number])
            self.model.paused.discard(number)

    def _die(self, number: int) -> None:
        """A worker takes the step and dies: the run keeps its place, the step is ready again."""
        if self._going(number) and self.hand.step(self.runs[number], "only")["losses"] < 1:
            self.hand.enter_worker("mortal")
            self.hand.claim(self.runs[number], "only", "mortal")
            self.hand.bury("mortal")

    def check(self) -> None:
        """Under way are those of the model, and of nobody else a step may be taken."""
        for line in self.hand.do(lambda tx: places.lines_to_fill(tx, self.hand.now)):
            self.hand.do(lambda tx, one=line: places.fill(tx, one, self.hand.now))
        for number, run_id in enumerate(self.runs):
            place = self.hand.do(lambda tx, one=run_id: get_place(tx, one))
            under_way = place is not None and place["since_us"] is not None
            assert under_way == (self.model.state[number] == "way"), (number, self.model, place)
            assert (self.hand.step(run_id, "only")["status"] == "ready") == (self.model.state[number] == "way")


@pytest.fixture(scope="module")
def sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hand]:
    path = tmp_path_factory.mktemp("property") / "places.db"
    path.write_bytes(sqlite_template.read_bytes())
    with opened(f"sqlite:///{path}") as hand:
        yield hand


def compare(hand: Hand, actions: list[Any]) -> None:
    name = f"w{hand.now}"
    hand.now += 1
    one = Play(hand, SOURCE.replace("NAME", name))
    for action in actions:
        one.do(*action)
        one.check()


@settings(max_examples=60, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_the_runs_under_way_are_those_of_the_model(sqlite: Hand, actions: list[Any]) -> None:
    compare(sqlite, actions)


def test_the_same_on_postgresql(postgres_url: str) -> None:
    with opened(postgres_url) as hand:

        @settings(max_examples=10, deadline=None)
        @given(actions=st.lists(ACTIONS, max_size=30))
        def play_it(actions: list[Any]) -> None:
            compare(hand, actions)

        play_it()
