import pytest

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.walk import FailoverPolicy, GiveUp, MoveOn, TryAgain, decide

POLICY = FailoverPolicy()
RETRIED = [ErrorClass.RATE_LIMIT, ErrorClass.OVERLOADED, ErrorClass.CONNECTION, ErrorClass.SERVER_ERROR]
MOVED = [ErrorClass.TIMEOUT, ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.CONTEXT_LENGTH]
FINAL = [kind for kind in ErrorClass if kind not in RETRIED + MOVED]


def after(kind: ErrorClass, *, tries: int = 1, more: bool = True, status: int | None = None, wait: float | None = None):
    error = ProviderError(kind, "x", status=status, retry_after_s=wait)
    return decide(error, tries=tries, more=more, policy=POLICY, jitter=0.0)


@pytest.mark.parametrize("kind", RETRIED)
def test_passing_troubles_are_tried_again_then_left(kind: ErrorClass) -> None:
    assert after(kind) == TryAgain(0.25)
    assert after(kind, tries=2) == TryAgain(0.5)
    assert after(kind, tries=3) == MoveOn()
    assert after(kind, tries=3, more=False) == GiveUp()


@pytest.mark.parametrize("kind", MOVED)
def test_troubles_of_one_candidate_are_left_at_once(kind: ErrorClass) -> None:
    assert after(kind) == MoveOn()
    assert after(kind, more=False) == GiveUp()


@pytest.mark.parametrize("kind", FINAL)
def test_what_is_wrong_with_the_request_is_nobodys_to_answer(kind: ErrorClass) -> None:
    assert after(kind) == GiveUp()


def test_a_model_that_one_candidate_lacks_may_be_elsewhere() -> None:
    assert after(ErrorClass.INVALID_REQUEST, status=404) == MoveOn()
    assert after(ErrorClass.INVALID_REQUEST, status=400) == GiveUp()


def test_retry_after_is_kept_up_to_the_cap() -> None:
    assert after(ErrorClass.RATE_LIMIT, wait=7) == TryAgain(7)
    assert after(ErrorClass.RATE_LIMIT, wait=11) == MoveOn()
    assert after(ErrorClass.RATE_LIMIT, wait=11, more=False) == GiveUp()


def test_a_timeout_that_the_upstream_tells_is_tried_again() -> None:
    assert after(ErrorClass.TIMEOUT, status=408) == TryAgain(0.25)


def test_an_upstream_that_points_elsewhere_is_left_at_once() -> None:
    assert after(ErrorClass.SERVER_ERROR, status=302) == MoveOn()
    assert after(ErrorClass.SERVER_ERROR, status=302, more=False) == GiveUp()
