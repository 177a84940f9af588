"""Errors as OpenAI writes them: {"error": {message, type, param, code}} with the status that fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from riallm.core.errors import BudgetError, CheckpointError, RiallmError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    501: "not_implemented_error",
    503: "unavailable_error",
    504: "timeout_error",
}


class ApiError(RiallmError):
    """What a client is told. param: the field that is wrong, for instance messages[0].role. code: for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that says so."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def refused(param: str, message: str, *, code: str = "unsupported_parameter") -> ApiError:
    """A field that is not honoured."""
    return ApiError(400, message, param=param, code=code)


def of_engine(error: RiallmError, *, retry_seconds: int = 1) -> ApiError:
    """What the engine or a tokenizer refused, for the client: too much at once is 429, files that cannot be read or
    written are 500, all else is the request's."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BudgetError):
        headers = {"Retry-After": str(retry_seconds)}
        return ApiError(429, str(error), code="too_many_requests", headers=headers)
    if isinstance(error, CheckpointError):
        return ApiError(500, f"{error}.", code="store_error")
    return ApiError(400, str(error), code="cannot_be_served")


def of_validation(error: ValidationError) -> ApiError:
    """The first of what pydantic found, with the field named.

    Of a value that may be one thing or another, every member complains. The one that was meant is the one that got
    furthest, and did not only say that it is another type; that complaint is told.
    """
    found = error.errors(include_url=False, include_input=False)
    several = [each for each in found if each["loc"][:1] == found[0]["loc"][:1]]
    first = max(several, key=lambda each: (len(_parts(each["loc"])), not each["type"].endswith("_type")))
    param = _path(first["loc"])
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unrecognized request argument supplied: {param}", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    said = first["msg"]
    if first["type"] == "union_tag_invalid":
        said = "its type is '{tag}', and may be {expected_tags}".format(**first["ctx"])
    message = f"Invalid value for '{param}': {said}." if param else f"Invalid request: {said}."
    return ApiError(400, message, param=param or None, code="invalid_value")


def _path(location: tuple[int | str, ...]) -> str:
    """messages[0].content"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in _parts(location)).removeprefix(".")


def _parts(location: tuple[int | str, ...]) -> list[int | str]:
    """A location without the names that pydantic gives to the members of a union."""
    return [part for part in location if isinstance(part, int) or _is_field(part)]


def _is_field(part: str) -> bool:
    return part.replace("_", "a").isidentifier() and part[:1].islower() and part not in _KINDS


# How pydantic calls a member of a union in a location.
_KINDS = frozenset({"str", "int", "float", "bool", "list", "dict", "none", "constrained-str", "constrained-int"})
