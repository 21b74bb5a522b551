"""A real bridge against a real server process that does everything wrong: nothing may reach the caller but ToolError."""

import asyncio
import json
import os
import time

import psutil
import pytest
from integration.mcp_bridging import bridge, ended, hostile, loop_watched, reaped, refused, run

from engine.errors import NotFound
from engine.states import ErrorClass
from mcp_bridge.errors import ToolError


def call(tool: str, params: dict | None = None, **settings):
    """The outcome of one call on a fresh bridge, and of a plain call after it on the same bridge."""

    async def work():
        async with bridge(hostile(**settings)) as b:
            try:
                outcome = (await b.call(tool, params or {}, server="hostile")).value
            except ToolError as error:
                outcome = error
            assert (await b.call("echo", {"still": "here"}, server="hostile")).value == {"still": "here"}
            return outcome

    return run(work())


@pytest.mark.parametrize(
    ("tool", "params", "value"),
    [
        ("echo", {"a": None, "b": [None, 1.5, "ü"]}, {"a": None, "b": [None, 1.5, "ü"]}),
        ("structured", {"result": 1, "more": 2}, {"result": 1, "more": 2}),
        ("structured", {"result": [1, 2]}, [1, 2]),
        ("text", {"lines": ["one", "two"]}, "one\ntwo"),
        ("text", {"lines": ["1"]}, "1"),
        ("text", {"lines": []}, ""),
        ("blocks", {}, [{"type": "image", "data": "QQ==", "mimeType": "image/png"}]),
        ("evil_schema", {}, {"x": "a" * 40 + "!"}),
    ],
)
def test_values_follow_the_contract(tool, params, value):
    assert call(tool, params) == value


def test_a_server_that_dies_in_a_call_says_why_and_is_started_again():
    error = call("die")
    assert error.error_class is ErrorClass.CONNECTION
    assert error.sent
    assert "exited with code 7" in error.message and "out of cheese" in error.message


def test_a_server_whose_child_holds_its_pipes_open_is_seen_to_be_dead():
    started = time.monotonic()
    error = call("orphan")
    assert error.error_class is ErrorClass.CONNECTION and "exited with code 5" in error.message
    assert time.monotonic() - started < 10


def test_a_server_that_closes_its_stdout_is_replaced():
    assert call("close_stdout").error_class is ErrorClass.CONNECTION


@pytest.mark.parametrize(
    ("tool", "params", "error_class"),
    [
        ("wrong_shape", {}, ErrorClass.SERVER_ERROR),
        ("bigint", {}, ErrorClass.TOOL_ERROR),
        ("no_such_tool", {}, ErrorClass.INVALID_REQUEST),
        ("rpc_error", {"code": -32602}, ErrorClass.TOOL_ERROR),
        ("rpc_error", {"code": -32603}, ErrorClass.SERVER_ERROR),
        ("rpc_error", {"code": -32050}, ErrorClass.SERVER_ERROR),
        ("rpc_error", {"code": 42}, ErrorClass.TOOL_ERROR),
        ("forge", {}, ErrorClass.CONNECTION),
    ],
)
def test_wrong_answers_are_errors_of_a_known_class(tool, params, error_class):
    assert call(tool, params).error_class is error_class


@pytest.mark.parametrize(("tool", "value"), [("deep", "shallow"), ("surrogate", "clean")])
def test_what_cannot_be_parsed_is_skipped(tool, value):
    outcome = call(tool)
    assert outcome == value or outcome.error_class in (ErrorClass.SERVER_ERROR, ErrorClass.TOOL_ERROR)


def test_requests_of_the_server_are_declined():
    answer = json.loads(call("elicit"))
    assert answer["id"] == 77 and "error" in answer


def test_a_hung_call_times_out_on_time_and_blocks_nobody():
    async def work():
        async with bridge(hostile("hostile"), hostile("other")) as b:
            await b.tools()
            started = time.monotonic()
            hung = [
                asyncio.create_task(refused(b.call("hang", {}, server="hostile", timeout_s=1.0))) for _ in range(20)
            ]
            for n in range(20):
                assert (await b.call("echo", {"n": n}, server="hostile")).value == {"n": n}
            assert time.monotonic() - started < 0.9
            errors = await asyncio.gather(*hung)
            assert 0.95 < time.monotonic() - started < 1.4
            assert {e.error_class for e in errors} == {ErrorClass.TIMEOUT}

    run(work())


def test_a_server_that_is_configured_no_longer_ends_after_its_last_call():
    async def work():
        async with bridge(hostile("kept"), hostile("gone")) as b:
            kept, gone = [int((await b.call("pid", {}, server=name)).value) for name in ("kept", "gone")]
            last = asyncio.create_task(b.call("sleep", {"seconds": 0.5}, server="gone"))
            await asyncio.sleep(0)
            b.reconfigure({"kept": hostile("kept"), "new": hostile("new")})
            assert [state.name for state in await b.servers()] == ["kept", "new"]
            assert (await refused(b.call("pid", {}, server="gone"))).code == "mcp_server_not_found"
            ending = psutil.Process(gone)
            assert (await last).server == "gone"
            assert await reaped(ending)
            assert int((await b.call("pid", {}, server="kept")).value) == kept

    run(work())


def test_the_configured_call_timeout_holds_without_one_of_the_call():
    assert call("hang", call_timeout_s=0.3).message == "MCP tool hostile/hang: no answer within 0.3 s"


def test_a_server_that_stopped_reading_is_started_again_after_several_silent_calls():
    async def work():
        async with bridge(hostile()) as b:
            pid = (await b.call("pid", {}, server="hostile")).value
            family = [psutil.Process(int(pid))]
            await b.call("deaf", {}, server="hostile")
            for _ in range(3):
                error = await refused(b.call("echo", {"x": "y" * 100_000}, server="hostile", timeout_s=0.3))
                assert error.error_class is ErrorClass.TIMEOUT
            assert (await b.call("pid", {}, server="hostile")).value != pid
            assert await ended(family)

    run(work())


def test_cancelling_the_caller_cancels_the_call_at_once():
    async def work():
        async with bridge(hostile()) as b:
            await b.tools()
            task = asyncio.create_task(b.call("hang", {}, server="hostile"))
            await b.call("echo", {}, server="hostile")  # the other is under way: the pipe keeps its order
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - started < 0.2

    run(work())


def test_floods_neither_block_the_loop_nor_grow_memory():
    async def work():
        async with bridge(hostile()) as b:
            await b.tools()
            before = psutil.Process().memory_info().rss
            async with loop_watched(longest_s=0.5):
                assert (await b.call("garbage", {"lines": 20_000}, server="hostile")).value == "survived"
                assert (await b.call("stderr_flood", {"megabytes": 50}, server="hostile")).value == "done"
            assert psutil.Process().memory_info().rss - before < 60_000_000

    run(work())


@pytest.mark.parametrize(("tool", "params"), [("notify_flood", {"seconds": 60}), ("garbage", {"lines": 10**9})])
def test_a_flood_without_end_takes_little_of_the_processor(tool, params):
    async def work():
        async with bridge(hostile()) as b:
            await b.tools()
            busy = time.process_time()
            async with loop_watched(longest_s=0.5):
                error = await refused(b.call(tool, params, server="hostile", timeout_s=2.0))
            assert error.error_class is ErrorClass.TIMEOUT
            assert time.process_time() - busy < 0.8

    run(work())


def test_a_server_that_asks_without_listening_loses_its_connection_soon():
    started = time.monotonic()
    assert call("request_flood").error_class is ErrorClass.CONNECTION
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("id_last", [False, True])
def test_a_giant_answer_fails_its_call_alone(id_last):
    async def work():
        async with bridge(hostile(), max_result_bytes=100_000) as b:
            pid = (await b.call("pid", {}, server="hostile")).value
            for size in (100_001, 5_000_000):
                error = await refused(b.call("giant", {"bytes": size, "id_last": id_last}, server="hostile"))
                assert error.error_class is ErrorClass.TOOL_ERROR, error
                assert "larger" in error.message or "more than the limit" in error.message
            fits = await b.call("giant", {"bytes": 100_000, "id_last": id_last}, server="hostile")
            assert len(fits.value) == 100_000
            assert (await b.call("pid", {}, server="hostile")).value == pid

    run(work())


def test_a_line_without_end_stays_bounded():
    async def work():
        async with bridge(hostile(), max_result_bytes=1_000_000) as b:
            await b.tools()
            before = psutil.Process().memory_info().rss
            async with loop_watched(longest_s=0.5):
                error = await refused(b.call("endless_line", {}, server="hostile", timeout_s=2.0))
            assert error.error_class is ErrorClass.TIMEOUT
            assert psutil.Process().memory_info().rss - before < 40_000_000

    run(work())


def test_close_ends_a_server_that_ignores_signals_and_its_child():
    async def work():
        async with bridge(hostile()) as b:
            family = [psutil.Process(pid) for pid in json.loads((await b.call("family", {}, server="hostile")).value)]
            assert all(p.is_running() for p in family)
            started = time.monotonic()
            await b.close()
            assert time.monotonic() - started < 5
            assert await ended(family)

    run(work())


def test_a_server_that_signals_its_own_group_stays_guarded():
    async def work():
        async with bridge(hostile()) as b:
            answer = await b.call("group_suicide", {}, server="hostile")
            family = [psutil.Process(pid) for pid in json.loads(answer.value)]
            await b.close()
            assert await ended(family)

    run(work())


def test_a_mute_server_fails_within_its_connect_timeout_and_delays_no_other():
    async def work():
        async with bridge(hostile("mute", "mute", connect_timeout_s=3.0), hostile("fine")) as b:
            started = time.monotonic()
            assert (await b.call("echo", {"a": 1})).server == "fine"
            assert time.monotonic() - started < 2.9
            error = await refused(b.call("echo", {}, server="mute"))
            assert time.monotonic() - started < 3.5
            assert error.error_class is ErrorClass.TIMEOUT and not error.sent
            assert "within 3 s" in error.message

    run(work())


def test_who_still_connects_is_waited_for_only_while_no_other_has_the_tool():
    async def work():
        async with bridge(hostile("fine"), hostile("mute", "mute", connect_timeout_s=20.0)) as b:
            await b.find("echo", "fine")
            started = time.monotonic()
            assert (await b.find("echo")).server == "fine"
            assert time.monotonic() - started < 0.1  # a catalogue that is known is believed
        async with bridge(hostile("mute", "mute", connect_timeout_s=20.0), hostile("fine")) as b:
            started = time.monotonic()
            assert (await b.find("echo")).server == "fine"
            assert time.monotonic() - started < 5

    run(work())


def test_a_server_that_exits_at_once_says_why_then_is_left_alone_for_a_growing_pause():
    async def work():
        async with bridge(hostile("bad", "exits")) as b:
            errors = [await refused(b.call("echo", {}, server="bad")) for _ in range(4)]
            assert "no licence found" in errors[0].message and "code 1" in errors[0].message
            assert errors[0].error_class is ErrorClass.CONNECTION and not errors[0].sent
            assert "failed 3 times in a row" in errors[3].message and "no licence found" in errors[3].message
            assert errors[3].retry_after_s is not None and 0 < errors[3].retry_after_s <= 1
            (state,) = await b.servers()
            assert state.status == "failed" and state.error is not None and state.tools is None

    run(work())


def test_a_server_that_dies_in_every_call_is_left_alone_too():
    async def work():
        async with bridge(hostile()) as b:
            await b.tools()
            errors = [await refused(b.call("die", {}, server="hostile")) for _ in range(4)]
            assert [e.sent for e in errors] == [True, True, True, False]
            assert "tried again in" in errors[3].message

    run(work())


def test_a_start_that_fails_once_is_repeated_by_the_next_call(tmp_path):
    async def work():
        async with bridge(hostile("flaky", "flaky_start", str(tmp_path / "marker"))) as b:
            assert (await refused(b.call("echo", {}, server="flaky"))).error_class is ErrorClass.CONNECTION
            assert (await b.call("echo", {}, server="flaky")).value == {}
            (state,) = await b.servers()
            assert (state.status, state.error, state.server_name) == ("connected", None, "hostile")

    run(work())


def test_commands_that_cannot_be_started():
    async def work():
        missing = hostile("missing")
        configs = [
            type(missing)(name="missing", command="no-such-program-anywhere"),
            type(missing)(name="folder", command=os.getcwd()),
            type(missing)(name="nowhere", command="true", cwd="/no/such/folder"),
        ]
        async with bridge(*configs) as b:
            assert await b.tools() == []
            for state in await b.servers():
                assert state.status == "failed" and "cannot be started" in (state.error or "")
            error = await refused(b.call("x", {}))
            assert error.error_class is ErrorClass.CONNECTION and "no-such-program-anywhere" in error.message

    run(work())


def test_lists_are_followed_page_by_page_but_not_for_ever():
    async def work():
        async with bridge(hostile("paged", "pages"), hostile("endless", "endless_pages"), hostile("plain")) as b:
            tools = await b.tools()
            assert {t.server for t in tools} == {"paged", "plain"}
            assert [t.name for t in tools if t.server == "paged"] == [t.name for t in tools if t.server == "plain"]
            error = await refused(b.call("t1", {}, server="endless"))
            assert "does not end" in error.message

    run(work())


def test_a_server_that_never_lists_is_shown_and_skipped():
    async def work():
        async with bridge(hostile("silent", "no_list", connect_timeout_s=1.0), hostile("fine")) as b:
            assert {t.server for t in await b.tools()} == {"fine"}

    run(work())


def test_a_changed_list_is_read_again():
    async def work():
        async with bridge(hostile()) as b:
            assert "late" not in {t.name for t in await b.tools()}
            await b.call("add_tool", {}, server="hostile")
            assert "late" in {t.name for t in await b.tools()}
            assert (await b.call("late", {})).value == "late"

    run(work())


def test_hints_are_carried_and_their_absence_is_the_careful_side():
    async def work():
        async with bridge(hostile()) as b:
            echo, pid, die = [await b.find(name) for name in ("echo", "pid", "die")]
            assert (echo.read_only, echo.repeatable, echo.destructive) == (True, True, False)
            assert (pid.read_only, pid.idempotent, pid.repeatable, pid.destructive) == (False, True, True, False)
            assert (die.repeatable, die.destructive) == (False, True)

    run(work())


def test_names_that_do_not_exist_are_refused_with_the_nearest():
    async def work():
        async with bridge(hostile()) as b:
            with pytest.raises(NotFound, match="did you mean echo") as tool:
                await b.find("ecko")
            assert (tool.value.code, tool.value.param) == ("tool_not_found", "tool")
            with pytest.raises(NotFound, match="did you mean hostile") as server:
                await b.find("echo", "hostil")
            assert (server.value.code, server.value.param) == ("mcp_server_not_found", "server")
            error = await refused(b.call("ecko", {}, server="hostile"))
            assert (error.error_class, error.code) == (ErrorClass.INVALID_REQUEST, "tool_not_found")

    run(work())


def test_a_tool_without_its_server_goes_to_the_first_that_has_it_and_past_a_dead_one(tmp_path):
    marker = tmp_path / "marker"

    async def work():
        marker.touch()
        first = hostile("first", "flaky_start", str(marker))
        async with bridge(first, hostile("second")) as b:
            await b.tools()
            assert (await b.call("echo", {})).server == "first"
            pids = [int((await b.call("pid", {}, server=name)).value) for name in ("first", "second")]
            both = [psutil.Process(pid) for pid in pids]
            marker.unlink()  # the next start of the first fails
            both[0].kill()
            assert await reaped(both[0])
            assert (await b.call("echo", {})).server == "second"  # it lives
            both[1].kill()
            assert await reaped(both[1])
            assert (await b.call("echo", {})).server == "second"  # none lives, and the first does not start
            assert (await b.call("echo", {}, server="first")).server == "first"  # by now it does

    run(work())


def test_secrets_of_the_configuration_do_not_reach_messages():
    error = call("leak", env={"SECRET_KEY": "sk-very-secret-0123456789"})
    assert "sk-very-secret" not in error.message and "key ***" in error.message


def test_a_closed_bridge_refuses():
    async def work():
        async with bridge(hostile()) as b:
            await b.call("echo", {}, server="hostile")
            await b.close()
            assert "closed" in (await refused(b.call("echo", {}, server="hostile"))).message

    run(work())


def test_many_calls_at_once():
    async def work():
        async with bridge(hostile()) as b:
            answers = await asyncio.gather(*(b.call("echo", {"n": n}) for n in range(300)))
            assert [a.value["n"] for a in answers] == list(range(300))

    run(work())
