"""The one error that crosses this package, and its spelling in HTTP."""

import grpc

__all__ = ["ServingError", "code_of", "http_status", "invalid", "not_found"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# TF Serving's. Of the names that share a number, the first is what a client makes of it.
_HTTP = {
    **{"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "NOT_FOUND": 404, "ABORTED": 409},
    **{"RESOURCE_EXHAUSTED": 429, "CANCELLED": 499, "INTERNAL": 500, "UNKNOWN": 500, "UNIMPLEMENTED": 501},
    **{"UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504},
    **{"ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401},
}


class ServingError(Exception):
    """A request that cannot be answered.

    Args:
      code: `grpc.StatusCode`, or its number (TensorFlow's error codes are the same numbers).
      message: what the sender of the request is told.
    """

    def __init__(self, code, message):
        super().__init__(message)
        self.code = _CODES[code] if isinstance(code, int) else code


def invalid(message):
    """The error of a request that does not fit the model."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message):
    """The error of a request for a model, version or label that is not served."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def http_status(code):
    """The HTTP status by which TF Serving answers a `grpc.StatusCode`."""
    return _HTTP.get(code.name, 500)


def code_of(status):
    """The `grpc.StatusCode` that an HTTP status stands for."""
    return grpc.StatusCode[next((name for name, number in _HTTP.items() if number == status), "UNKNOWN")]
