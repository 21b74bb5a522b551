"""What a request says of its body is judged before any of it is read, whatever is written there."""

import pytest

from api.asgi import MAX_BODY_BYTES, check_body_headers
from api.errors import HttpError


@pytest.mark.parametrize("zeros", [0, 5000])
def test_a_length_counts_and_not_how_it_is_written(zeros: int) -> None:
    """More digits than Python reads as a number are still a length."""
    for length in (5, MAX_BODY_BYTES):
        check_body_headers({"headers": [(b"content-length", b"0" * zeros + str(length).encode())]})
    for length in (MAX_BODY_BYTES + 1, 10**19):
        with pytest.raises(HttpError) as refused:
            check_body_headers({"headers": [(b"content-length", b"0" * zeros + str(length).encode())]})
        assert refused.value.status == 413
