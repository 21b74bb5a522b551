"""A page of a run's steps tells of each what the whole list tells."""

from collections.abc import Iterator

import pytest
from engine_hand import Hand, opened
from engine_play import play

from engine.loader import load
from engine.store.step_pages import MOST, steps_in_order
from engine.views import some_steps_view, step_ids, steps_view
from engine.workflows import put

CHILD = "name: below\nsteps: [{id: a, type: set, value: 1}]\n"
PARENT = """
name: above
steps:
  - {id: call, type: workflow, workflow: below}
  - id: each
    type: foreach
    items: "${input.items}"
    steps: [{id: one, type: set, value: "${item}"}]
"""


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def test_pages_are_parts_of_the_whole(hand: Hand) -> None:
    hand.do(lambda tx: put(tx, load(CHILD), "api", hand.now))
    run_id = hand.start(PARENT, {"items": list(range(MOST + 7))})
    play(hand, run_id)
    whole = hand.do(lambda tx: steps_view(tx, run_id))
    order = hand.do(lambda tx: steps_in_order(tx, run_id))
    ids = [row["id"] for row in step_ids(order)]
    assert ids == [view["id"] for view in whole]
    for start in (0, 1, 5):
        page = ids[start : start + MOST]
        assert hand.do(lambda tx, page=page: some_steps_view(tx, run_id, order, page)) == whole[start : start + MOST]
