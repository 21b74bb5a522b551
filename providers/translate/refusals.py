"""What a request says that cannot be said in another dialect."""

from engine.states import ErrorClass
from providers.errors import ProviderError


def refused(param: str, message: str) -> ProviderError:
    """The error for content that a candidate cannot be given: the client's to change, and nobody else's to answer."""
    told = f"{param}: {message}"
    return ProviderError(ErrorClass.INVALID_REQUEST, told, status=400, code="unsupported_value", param=param)
