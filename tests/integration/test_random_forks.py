"""Random programs under a random hand: runs are paused, resumed, forked from any step at any time, and retried; steps are claimed in
any order, handed back, gone on from. Whatever was done, a run and all its forks come to what the interpreter says.
"""

import json
import random
from collections.abc import Iterator

import pytest
from engine_hand import Hand, opened
from engine_play import outcome_of
from random_programs import Maker, Steps, expected

from engine import attempts, fork, places
from engine.attempts import Ended
from engine.errors import Conflict, UserError
from engine.plan import PARTS
from engine.states import RUN_ENDED, STEP_ENDED

SEEDS = (1016, 1061, 1063, 1066, 1074, 1082, 1083, *range(2000, 2012))  # the first of them have found something


@pytest.fixture
def hand(sqlite_url: str) -> Iterator[Hand]:
    with opened(sqlite_url) as hand:
        yield hand


class RandomHand:
    """Does one thing after the other, all of it told by the seed."""

    def __init__(self, hand: Hand, steps: Steps, rnd: random.Random) -> None:
        self.hand = hand
        self.rnd = rnd
        limit = {"concurrency": 1} if rnd.random() < 0.4 else {}
        self.runs = [hand.start(json.dumps({"name": "random", **limit, "steps": steps}))]
        self.retried: set[str] = set()

    def play(self) -> None:
        for _ in range(3000):
            live = [run_id for run_id in self.runs if self.hand.run(run_id)["status"] not in RUN_ENDED]
            if live:
                self.hand.now += 1000
                self._one_thing(self.rnd.choice(live))
            elif not self._retry():
                return
        raise AssertionError("it does not come to an end")

    def _retry(self) -> bool:
        statuses = {run_id: self.hand.run(run_id)["status"] for run_id in self.runs}
        failed = [run_id for run_id, status in statuses.items() if status == "failed" and run_id not in self.retried]
        for run_id in failed:
            self.retried.add(run_id)
            try:
                self.hand.retry(run_id)
            except Conflict:  # its output did not render
                continue
            return True
        return False

    def _one_thing(self, run_id: str) -> None:
        chance = self.rnd.random()
        if self.hand.run(run_id)["status"] == "paused":
            self.hand.resume(run_id)
        elif chance < 0.04:
            self.hand.pause(run_id)
        elif chance < 0.09 and len(self.runs) < 4:
            self._fork(self.rnd.choice(self.runs))
        else:
            self._work(run_id)

    def _fork(self, run_id: str) -> None:
        hand = self.hand
        keys = [row["key"] for row in hand.steps(run_id).values() if row["type"] not in PARTS]
        asked = fork.Fork(self.rnd.choice(keys))
        try:
            self.runs.append(hand.do(lambda tx: fork.fork(tx, hand.catalogue, run_id, asked, hand.now))[0]["id"])
        except UserError as refused:
            assert refused.code in ("step_not_reached", "unknown_step")

    def _work(self, run_id: str) -> None:
        hand = self.hand
        ready = [row for row in hand.steps(run_id).values() if row["status"] == "ready"]
        if not ready:
            for line in hand.do(lambda tx: places.lines_to_fill(tx, hand.now)):
                hand.do(lambda tx, one=line: places.fill(tx, one, hand.now))
            hand.pass_time(2)
            hand.wake()
            return
        held = hand.try_claim(self.rnd.choice(ready)["id"])
        assert held is not None
        while held is not None:
            if self.rnd.random() < 0.08:
                hand.give_back(held)
                return
            ended, go_on, holding = Ended(outcome_of(held)), self.rnd.random() < 0.5, held
            done = hand.do(
                lambda tx, one=holding, end=ended, on=go_on: attempts.complete(
                    tx, hand.catalogue, one, end, hand.now, go_on=on
                )
            )
            assert done.accepted
            held = done.following


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_and_its_forks_come_to_what_the_program_says(hand: Hand, seed: int) -> None:
    rnd = random.Random(seed)
    steps = Maker(rnd.choice, agents=True).steps(0)
    status, output = expected(steps)
    playing = RandomHand(hand, steps, rnd)
    playing.play()
    for run_id in playing.runs:
        view = hand.view(run_id)
        assert (view["status"], view["output"] if status == "succeeded" else None) == (status, output)
        assert hand.run(run_id)["open_steps"] == 0
        assert not [row["key"] for row in hand.steps(run_id).values() if row["status"] not in STEP_ENDED]
