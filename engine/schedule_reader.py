"""Reads the `schedule` of a definition: a cron line, an object with one, or a list of those. Notes every mistake at its place."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.cron import check_cron, check_zone
from engine.inputs import input_mistakes
from engine.keys import MAX_SCHEDULES, SCHEDULE_KEYS
from engine.schedule_spec import DEFAULT_CATCH_UP, MAX_TAG, MAX_TAG_VALUE, MAX_TAGS, Overlap, ScheduleSpec
from engine.shapes import check_key, check_known, check_required
from engine.spots import Spot, wrong_type
from engine.states import Priority


def read_schedules(spot: Spot, inputs: Mapping[str, Any] | None) -> tuple[ScheduleSpec, ...]:
    """What a definition's `schedule` asks for. `inputs` are the workflow's; each schedule's own has to fit them."""
    if spot.node.items is None:
        return (_schedule(spot, inputs),)
    count = len(spot.node.items)
    if not 1 <= count <= MAX_SCHEDULES:
        spot.mistake(f"has to hold 1 to {MAX_SCHEDULES} schedules")
        return ()
    return tuple(_schedule(spot.item(index), inputs) for index in range(count))


def _schedule(spot: Spot, inputs: Mapping[str, Any] | None) -> ScheduleSpec:
    if isinstance(spot.node.value, str):
        _check_input(spot, {}, inputs)
        return ScheduleSpec(_checked(spot, check_cron))
    entries = spot.node.entries
    if entries is None:
        wrong_type(spot, 'a cron line such as "0 7 * * *", an object with `cron`, or a list of those')
        return ScheduleSpec("")
    check_known(spot, SCHEDULE_KEYS, "a schedule")
    check_required(spot, SCHEDULE_KEYS, "a schedule")
    given = {name: _value(name, spot.entry(name)) for name in entries if name in SCHEDULE_KEYS}
    given = {name: value for name, value in given.items() if value is not None}
    value = given.get("input", {})
    if "input" in given or "input" not in entries:
        _check_input(spot, value, inputs)
    return ScheduleSpec(
        cron=given.get("cron", ""),
        zone=given.get("timezone", "UTC"),
        overlap=Overlap(given.get("overlap", Overlap.SKIP)),
        catch_up=given.get("catch_up", DEFAULT_CATCH_UP),
        input=value,
        tags=given.get("tags", {}),
        priority=Priority(given.get("priority", Priority.NORMAL)),
        enabled=given.get("enabled", True),
    )


def _value(name: str, spot: Spot) -> Any:
    match name:
        case "cron":
            return _checked(spot, check_cron)
        case "timezone":
            return _checked(spot, check_zone)
        case "tags":
            return _tags(spot)
        case _:
            return check_key(SCHEDULE_KEYS[name], spot)


def _checked(spot: Spot, check: Callable[[object], str]) -> str:
    try:
        return check(spot.node.value)
    except ValueError as error:
        spot.mistake(str(error))
        return ""


def _tags(spot: Spot) -> dict[str, str] | None:
    tags = check_key(SCHEDULE_KEYS["tags"], spot)
    if tags is None:
        return None
    if len(tags) > MAX_TAGS:
        spot.mistake(f"has to hold at most {MAX_TAGS} tags")
    for name, value in tags.items():
        if not isinstance(value, str):
            wrong_type(spot.entry(name), "text")
        elif not name or len(name) > MAX_TAG or len(value) > MAX_TAG_VALUE:
            spot.entry(name).mistake(
                f"a tag has a name of 1 to {MAX_TAG} characters and a value of at most {MAX_TAG_VALUE}"
            )
    return tags


def _check_input(spot: Spot, value: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> None:
    """What does not fit is noted at the input itself, or where it is missing."""
    at = spot.entry("input") if "input" in (spot.node.entries or {}) else spot
    for mistake in input_mistakes(inputs, value)[1]:
        name = (mistake.path or "").partition(".")[2].partition(".")[0].partition("[")[0]
        place = at.entry(name) if name in (at.node.entries or {}) and at is not spot else at
        place.mistake(f"{mistake.path}: {mistake.message}", mistake.suggestion)
