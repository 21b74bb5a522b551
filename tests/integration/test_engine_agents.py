"""Agents on both databases, driven by hand: turns, calls, approvals, money, and what people may do to a run meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import Hand, opened, settled

from engine.agent_memory import conversation
from engine.errors import AIGatewayError, CapExceeded, UserError
from engine.fork import Fork, fork
from engine.ports import AskedForTools, Failed, Listening, Opened, Succeeded, ToolCall
from engine.signals import send
from engine.states import ErrorClass
from engine.views import steps_view

SOURCE = """
name: helper
steps:
  - id: research
    type: agent
    model: local
    prompt: ${input.q}
    tools: [docs/search, mail/send]
    approve: [mail/send]
    approve_timeout: 1h
    max_turns: 3
    max_cost_usd: 0.001
    output: answer
MORE
  - {id: after, type: set, needs: [research], value: ["${answer}", "${steps.research.cost_usd}", "${steps.research.model}"]}
"""
TOOLS = [{"name": "search", "server": "docs", "tool": "search", "description": "", "parameters": {}}]


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def begun(hand: Hand, more: str = "") -> str:
    """A run whose agent has its tools and waits for the first answer."""
    run_id = hand.start(SOURCE.replace("MORE", more), {"q": "why"})
    hand.complete(hand.claim(run_id, "research"), Opened(TOOLS))
    return run_id


def calls(*names: str) -> tuple[ToolCall, ...]:
    known = {"search": "docs/search", "send": "mail/send"}
    return tuple(ToolCall(f"id{at}", name, known.get(name), {"n": at}) for at, name in enumerate(names))


def ask(hand: Hand, run_id: str, turn: int, *names: str, cost: int | None = None, answer: Any = "done") -> None:
    """The model answers with calls, or with its text where none are named."""
    held = hand.claim(run_id, f"research[{turn}].model")
    settlements = [] if cost is None else [settled(hand.open_call(held, cost), hand.now, cost)]
    asked = AskedForTools({"role": "assistant", "content": f"turn {turn}"}, calls(*names), "sim/model")
    hand.complete(held, asked if names else Succeeded(answer, "sim/model"), *settlements)


def signal(hand: Hand, run_id: str, payload: Any) -> Any:
    return hand.do(lambda tx: send(tx, hand.catalogue, run_id, ("approve", payload), hand.now))


def told(hand: Hand, run_id: str, turn: int) -> list[Any]:
    talk = hand.do(lambda tx: conversation(tx, run_id, f"research[{turn}].model"))
    assert talk.tools == TOOLS
    return [message["content"] for message in talk.messages]


def after(hand: Hand, run_id: str) -> Any:
    held = hand.claim(run_id, "after")
    return held.scope


def test_turns_follow_each_other_and_the_last_answer_is_the_result(hand: Hand) -> None:
    run_id = begun(hand)
    ask(hand, run_id, 0, "search", "search", cost=70)
    assert hand.statuses(run_id)["research[0].search_2"] == "ready"
    assert "research[1].model" not in hand.steps(run_id)
    hand.finish(run_id, "research[0].search_2", {"second": 2})
    hand.complete(hand.claim(run_id, "research[0].search"), Failed(ErrorClass.TOOL_ERROR, "broken", final=True))
    assert told(hand, run_id, 1) == ["turn 0", "Error: broken", '{"second":2}']  # in the order of the calls
    ask(hand, run_id, 1, cost=30, answer={"data": 1})
    assert hand.step(run_id, "research")["status"] == "succeeded"
    scope = after(hand, run_id)
    assert scope["answer"] == {"data": 1}
    assert (scope["steps"]["research"]["cost_usd"], scope["steps"]["research"]["model"]) == (1e-10, "sim/model")
    views = {view["id"]: view for view in hand.do(lambda tx: steps_view(tx, run_id))}
    shown = {key: (view["type"], view["parent"]) for key, view in views.items()}
    assert "research[0]" not in shown and shown["research"] == ("agent", None)
    assert shown["research[0].model"] == ("llm", "research") and shown["research[0].search_2"] == (
        "mcp_tool",
        "research",
    )
    assert views["research[0].search_2"]["call"] == {"name": "search", "tool": "docs/search", "arguments": {"n": 1}}
    assert views["research[0].search"]["error"] == {"class": "tool_error", "message": "broken"}


def test_each_turn_stores_only_its_own(hand: Hand) -> None:
    run_id = begun(hand)
    for turn in range(2):
        ask(hand, run_id, turn, "search")
        hand.finish(run_id, f"research[{turn}].search", "r" * 100)
    rows = hand.steps(run_id)
    sizes = [len(rows[f"research[{turn}].model"]["output_json"]) for turn in range(2)]
    assert sizes[0] == sizes[1] and rows["research[1]"]["output_json"] is None


def test_the_last_turn_may_not_ask_for_tools(hand: Hand) -> None:
    run_id = begun(hand)
    for turn in range(2):
        ask(hand, run_id, turn, "search", cost=500_000)
        hand.finish(run_id, f"research[{turn}].search")
    ask(hand, run_id, 2, "search")
    view = hand.view(run_id)
    assert (view["status"], view["error"]["step"], view["error"]["class"]) == ("failed", "research", "invalid_output")
    assert "max_turns=3" in view["error"]["message"] and "0.000001 USD" in view["error"]["message"]
    assert "research[2].search" not in hand.steps(run_id)
    hand.retry(run_id)
    assert hand.view(run_id)["status"] == "failed"  # nothing is left to be tried again


def test_on_error_catches_an_agent_that_failed(hand: Hand) -> None:
    run_id = begun(hand, "    on_error: {steps: [{id: instead, type: set, value: other}]}")
    hand.complete(hand.claim(run_id, "research[0].model"), Failed(ErrorClass.AUTH, "no"))
    hand.finish(run_id, "instead", "other")
    assert after(hand, run_id)["answer"] == "other"


def test_a_lost_worker_costs_its_call_alone(hand: Hand) -> None:
    run_id = begun(hand)
    ask(hand, run_id, 0, "search", "search")
    hand.finish(run_id, "research[0].search_2", "kept")
    hand.enter_worker("w9")
    held = hand.claim(run_id, "research[0].search", "w9")
    hand.bury("w9")
    assert not hand.complete(held, Succeeded("late")).accepted
    hand.finish(run_id, "research[0].search", "again")
    assert told(hand, run_id, 1) == ["turn 0", "again", "kept"]
    assert hand.step(run_id, "research[0].search")["attempt"] == 2


class TestApproval:
    @pytest.fixture
    def run_id(self, hand: Hand) -> str:
        run_id = begun(hand)
        ask(hand, run_id, 0, "send")
        hand.complete(hand.claim(run_id, "research[0].send"), Listening("approve"))
        assert hand.run(run_id)["status"] == "waiting"
        assert hand.step(run_id, "research[0].send")["waits_for"] == "signal:approve"
        return run_id

    def test_a_yes_lets_it_run(self, hand: Hand, run_id: str) -> None:
        signal(hand, run_id, {"call": "research[0].send", "approved": True})
        row = hand.step(run_id, "research[0].send")
        assert (row["status"], row["progress"], row["waits_for"]) == ("ready", 1, None)
        with pytest.raises(UserError, match="waits for approval now"):
            signal(hand, run_id, {"approved": True})  # a second yes is not kept for the next call
        hand.finish(run_id, "research[0].send", "sent")
        assert told(hand, run_id, 1) == ["turn 0", "sent"]

    def test_a_no_is_the_calls_result(self, hand: Hand, run_id: str) -> None:
        signal(hand, run_id, {"approved": False, "reason": "not today"})
        assert hand.step(run_id, "research[0].send")["status"] == "skipped"
        assert told(hand, run_id, 1) == ["turn 0", "The call was not approved: not today"]

    def test_no_answer_in_time_is_a_no(self, hand: Hand, run_id: str) -> None:
        hand.pass_time(3601)
        hand.wake()
        assert "nobody answered within 3600 s" in told(hand, run_id, 1)[1]

    @pytest.mark.parametrize(
        ("payload", "message"),
        [
            ({"approved": "yes"}, "true or false"),
            ([], "true or false"),
            ({"approved": True, "cal": "x"}, "`cal` is none of"),
            ({"approved": True, "call": 1}, "has to be text"),
            ({"approved": True, "call": "research[1].send"}, r"waiting: research\[0\].send"),
        ],
    )
    def test_a_wrong_answer(self, hand: Hand, run_id: str, payload: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            signal(hand, run_id, payload)
        assert hand.step(run_id, "research[0].send")["status"] == "waiting"

    def test_a_call_that_was_cancelled_unapproved_asks_again_after_a_retry(self, hand: Hand) -> None:
        run_id = begun(hand, "  - {id: beside, type: set, needs: [], value: 1}")
        ask(hand, run_id, 0, "send")
        hand.complete(hand.claim(run_id, "research[0].send"), Listening("approve"))
        hand.complete(hand.claim(run_id, "beside"), Failed(ErrorClass.INTERNAL, "no", final=True))
        assert hand.step(run_id, "research[0].send")["status"] == "cancelled"
        hand.retry(run_id)
        row = hand.step(run_id, "research[0].send")
        assert (row["status"], row["progress"]) == ("ready", None)  # its executor asks for approval again
        assert row["input_json"] is not None

    def test_several_have_to_be_named(self, hand: Hand) -> None:
        run_id = begun(hand)
        ask(hand, run_id, 0, "send", "send")
        for key in ("send", "send_2"):
            hand.complete(hand.claim(run_id, f"research[0].{key}"), Listening("approve"))
        with pytest.raises(UserError, match=r"name the `call`.*send, research\[0\].send_2"):
            signal(hand, run_id, {"approved": True})
        signal(hand, run_id, {"call": "research[0].send_2", "approved": True})
        assert hand.step(run_id, "research[0].send")["status"] == "waiting"


def test_the_agents_own_limit_counts_open_calls_at_their_worst(hand: Hand) -> None:
    run_id = begun(hand)
    ask(hand, run_id, 0, "search", cost=600_000_000)
    hand.finish(run_id, "research[0].search")
    held = hand.claim(run_id, "research[1].model")
    with pytest.raises(CapExceeded, match=r"max_cost_usd 0.001 only 0.0004 are left"):
        hand.open_call(held, 400_000_001)
    hand.open_call(held, 300_000_000)
    with pytest.raises(CapExceeded):
        hand.open_call(held, 100_000_001)


def test_a_run_over_budget_pauses_and_goes_on_at_its_turn(hand: Hand) -> None:
    run_id = hand.start(SOURCE.replace("MORE", ""), {"q": "why"}, budget_picousd=1000)
    hand.complete(hand.claim(run_id, "research"), Opened(TOOLS))
    ask(hand, run_id, 0, "search", cost=900)
    hand.finish(run_id, "research[0].search")
    held = hand.claim(run_id, "research[1].model")
    with pytest.raises(AIGatewayError, match="of the run's"):
        hand.open_call(held, 200)


def test_retry_goes_on_at_the_failed_turn(hand: Hand) -> None:
    run_id = begun(hand)
    ask(hand, run_id, 0, "search")
    hand.finish(run_id, "research[0].search", "found")
    hand.complete(hand.claim(run_id, "research[1].model"), Failed(ErrorClass.AUTH, "no"))
    assert hand.view(run_id)["status"] == "failed"
    hand.retry(run_id)
    assert hand.statuses(run_id)["research[1].model"] == "ready"
    assert told(hand, run_id, 1) == ["turn 0", "found"]
    ask(hand, run_id, 1)
    assert hand.step(run_id, "research[0].model")["attempt"] == 1
    hand.finish(run_id, "after", 1)
    assert hand.view(run_id)["status"] == "succeeded" and hand.run(run_id)["open_steps"] == 0


@pytest.mark.parametrize(
    ("key", "kept", "ready"),
    [
        ("research", [], ["research"]),
        ("research[0].model", [], ["research[0].model"]),
        ("research[0].search_2", ["research[0].model", "research[0].search"], ["research[0].search_2"]),
        (
            "research[1].model",
            ["research[0].model", "research[0].search", "research[0].search_2"],
            ["research[1].model"],
        ),
        ("after", ["research", "research[1].model"], ["after"]),
    ],
)
def test_fork(hand: Hand, key: str, kept: list[str], ready: list[str]) -> None:
    old = begun(hand)
    ask(hand, old, 0, "search", "search")
    hand.finish(old, "research[0].search", "one")
    hand.finish(old, "research[0].search_2", "two")
    ask(hand, old, 1)
    hand.finish(old, "after", 1)
    asked = Fork(key, models={"research": "other"})
    new = hand.do(lambda tx: fork(tx, hand.catalogue, old, asked, hand.now))[0]["id"]
    statuses = hand.statuses(new)
    assert [step for step, status in statuses.items() if status == "ready"] == ready
    assert {statuses[step] for step in kept} <= {"succeeded"}
    finish_fork(hand, new)
    assert hand.view(new)["status"] == "succeeded" and hand.run(new)["open_steps"] == 0
    assert all(attempt["status"] == "succeeded" for attempt in hand.attempts(new))


def test_a_fork_reads_what_its_copied_turns_were_worth_and_pays_for_none_of_them(hand: Hand) -> None:
    old = begun(hand)
    ask(hand, old, 0, "search", cost=70)
    hand.finish(old, "research[0].search", "one")
    ask(hand, old, 1, cost=30)

    def forked(source: str, key: str) -> str:
        return str(hand.do(lambda tx: fork(tx, hand.catalogue, source, Fork(key), hand.now))[0]["id"])

    def worth(run_id: str) -> tuple[float, float]:
        return after(hand, run_id)["steps"]["research"]["cost_usd"], hand.view(run_id)["cost_usd"]

    assert worth(old) == (1e-10, 1e-10)
    whole = forked(old, "after")
    again = forked(whole, "after")
    assert worth(whole) == (1e-10, 0) and worth(again) == (1e-10, 0)
    part = forked(again, "research[1].model")
    ask(hand, part, 1, cost=5)
    assert worth(part) == (7.5e-11, 5e-12)


def finish_fork(hand: Hand, run_id: str) -> None:
    """One call in the first turn, the answer in the second."""
    for _ in range(12):
        ready = [key for key, status in hand.statuses(run_id).items() if status == "ready"]
        if not ready:
            return
        key = ready[0]
        if key == "research":
            hand.complete(hand.claim(run_id, key), Opened(TOOLS))
        elif key == "research[0].model":
            held = hand.claim(run_id, key)
            assert held.step.fields["model"] == "other"
            hand.complete(held, AskedForTools({"role": "assistant"}, calls("search"), "m"))
        else:
            hand.finish(run_id, key, "x")


def test_cancel_and_the_deadline_end_what_is_inside(hand: Hand) -> None:
    run_id = begun(hand)
    ask(hand, run_id, 0, "search", "send")
    hand.cancel(run_id)
    assert set(hand.statuses(run_id).values()) == {"succeeded", "cancelled"}
    late = begun(hand, "    deadline: 10s\n    timeout: 1s")
    ask(hand, late, 0, "search")
    hand.pass_time(5)
    hand.wake()
    assert hand.step(late, "research")["status"] == "waiting"  # `timeout` is that of a call
    hand.pass_time(6)
    hand.wake()
    view = hand.view(late)
    assert (view["status"], view["error"]["class"], view["error"]["step"]) == ("failed", "timeout", "research")
    assert hand.run(late)["open_steps"] == 0


def test_an_agent_inside_loops_reads_from_where_it_stands(hand: Hand) -> None:
    source = """
name: nested
steps:
  - id: each
    type: foreach
    items: [a, b]
    collect: ${found}
    steps:
      - {id: first, type: set, value: "${item}", output: one}
      - {id: research, type: agent, model: m, prompt: "${one} ${item} ${index}", tools: [docs/search], output: found}
  - {id: after, type: set, value: "${steps.each.output}"}
"""
    run_id = hand.start(source)
    hand.complete(hand.claim(run_id, "each"), Opened(["a", "b"]))
    for number in range(2):
        hand.finish(run_id, f"each[{number}].first", "ab"[number])
        hand.complete(hand.claim(run_id, f"each[{number}].research"), Opened(TOOLS))
        held = hand.claim(run_id, f"each[{number}].research[0].model")
        assert {name: held.scope[name] for name in ("one", "item", "index")} == {
            "one": "ab"[number], "item": "ab"[number], "index": number,
        }  # fmt: skip
        hand.complete(held, AskedForTools({"role": "assistant"}, calls("search"), "m"))
        hand.finish(run_id, f"each[{number}].research[0].search", "x")
        hand.finish(run_id, f"each[{number}].research[1].model", f"answer {number}")
    hand.finish(run_id, "after", 0)
    assert hand.view(run_id)["status"] == "succeeded"


def test_a_signal_for_a_workflow_without_approvals(hand: Hand) -> None:
    run_id = hand.start("name: x\nsteps: [{id: w, type: wait, signal: go}]")
    with pytest.raises(UserError, match="no step of this workflow waits for a signal 'approve'"):
        signal(hand, run_id, {"approved": True})
