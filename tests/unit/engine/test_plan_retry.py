"""The numbers of a retry policy: how many attempts, how long between them, what is tried again at all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.definition import RetryPolicy
from engine.plan import DEFAULT_RETRY, LONGEST_RETRY_AFTER_S, retry_pause_s
from engine.states import RETRIED_BY_DEFAULT, ErrorClass

PLAIN = RetryPolicy(max_attempts=6, initial_s=1, factor=2, max_s=5, jitter=False, errors=RETRIED_BY_DEFAULT)


def pause(
    policy: RetryPolicy,
    failures: int,
    error_class: ErrorClass = ErrorClass.TIMEOUT,
    *,
    after: float | None = None,
    chance: float = 0.0,
) -> float | None:
    return retry_pause_s(policy, failures=failures, error_class=error_class, retry_after_s=after, chance=chance)


def test_the_pauses_grow_by_the_factor_up_to_the_longest_and_then_there_is_none() -> None:
    assert [pause(PLAIN, failures) for failures in range(1, 7)] == [1, 2, 4, 5, 5, None]


def test_the_default_is_three_attempts_on_what_passes_by_itself() -> None:
    assert [pause(DEFAULT_RETRY, failures) is None for failures in (1, 2, 3)] == [False, False, True]
    retried = {error_class for error_class in ErrorClass if pause(DEFAULT_RETRY, 1, error_class) is not None}
    assert retried == {"rate_limit", "overloaded", "timeout", "connection", "server_error"}


def test_a_policy_that_names_classes_tries_those_alone() -> None:
    policy = RetryPolicy(max_attempts=2, errors=frozenset({ErrorClass.TOOL_ERROR}))
    assert pause(policy, 1, ErrorClass.TOOL_ERROR) is not None
    assert pause(policy, 1, ErrorClass.TIMEOUT) is None


@pytest.mark.parametrize(("after", "waited"), [(None, 2.0), (0.5, 2.0), (7.5, 7.5), (math.nan, 2.0)])
def test_a_longer_retry_after_wins(after: float | None, waited: float) -> None:
    assert pause(PLAIN, 2, after=after) == waited


@pytest.mark.parametrize("after", [1e9, 1e300, math.inf])
def test_no_upstream_makes_a_step_wait_for_ever(after: float) -> None:
    assert pause(PLAIN, 1, after=after) == LONGEST_RETRY_AFTER_S


@given(chance=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 99), factor=st.floats(1, 10))
def test_jitter_stays_between_half_and_one_and_a_half_of_the_pause(chance: float, failures: int, factor: float) -> None:
    policy = RetryPolicy(max_attempts=100, initial_s=0.5, factor=factor, max_s=30, errors=RETRIED_BY_DEFAULT)
    whole = min(0.5 * factor ** (failures - 1), 30)
    jittered = pause(policy, failures, chance=chance)
    assert jittered is not None
    assert 0.5 * whole <= jittered < 1.5 * whole + 1e-9
