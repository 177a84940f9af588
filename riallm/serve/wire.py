"""The bodies of requests, as clients may write them. Nothing is converted, and nothing unknown is let through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json

from riallm.serve.errors import ApiError, of_validation
from riallm.serve.fields import sift

MAX_ANSWERS = 16
MAX_STOPS = 32
MAX_PROMPTS = 256

Count = Annotated[int, Field(ge=0, le=2**31)]
Id = Annotated[int, Field(ge=0, le=2**31)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Stop = Annotated[str, Field(min_length=1)]
Stops = Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None
Ids = Annotated[list[Id], Field(min_length=1)]
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
Rows = Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]


class Wire(BaseModel):
    """Strict: a number is no text, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class FileText(Wire):
    """A file that the model sees beside the prompt."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    text: str


class TextPart(Wire):
    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Content = str | list[TextPart] | None


def text_of(content: Content) -> str:
    """One text of a content."""
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class Drawing(Wire):
    """How tokens are drawn, for chat and completions alike."""

    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    top_k: Count | None = None
    min_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[FiniteFloat, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[FiniteFloat, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[FiniteFloat, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[FiniteFloat, Field(ge=-100, le=100)]] | None = None
    seed: Seed | None = None


class JsonSchema(Wire):
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Wire):
    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    pattern: str | None = None


class StreamOptions(Wire):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Answering(Drawing):
    """What chat and completions have in common."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = None
    stop: Stops = None
    max_tokens: Count | None = None
    response_format: ResponseFormat | None = None
    files: list[FileText] | None = None


class CompletionBody(Answering):
    """POST /v1/completions"""

    prompt: str | Texts | Ids | Rows
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class EmbeddingBody(Wire):
    """POST /v1/embeddings"""

    model: str | None = None
    input: str | Texts | Ids | Rows
    encoding_format: Literal["float", "base64"] | None = None


class ExtraFile(Wire):
    """time: when llama.vim read it; it changes nothing."""

    filename: str
    text: str
    time: Any = None


class InfillBody(Wire):
    """POST /infill"""

    model: str | None = None
    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[ExtraFile] | None = None
    files: list[FileText] | None = None
    path: str | None = None
    prompt: str | None = None
    n_predict: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    n_indent: Count | None = None
    t_max_predict_ms: Annotated[FiniteFloat, Field(ge=0, le=10**9)] | None = None
    stop: Stops = None
    stream: bool | None = None
    response_fields: list[str] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None
    min_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[FiniteFloat, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[FiniteFloat, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[FiniteFloat, Field(ge=-2, le=2)] | None = None
    seed: Seed | None = None


_B = TypeVar("_B", bound=Wire)


async def read(request: Request, kind: type[_B], endpoint: str, *, max_bytes: int) -> _B:
    """The checked body of a request. Raises ApiError: 413 for one that is too long, 400 for one that is wrong."""
    return parse(await body_of(request, max_bytes), kind, endpoint)


def parse(data: bytes, kind: type[_B], endpoint: str) -> _B:
    """The checked body of a request, from its bytes."""
    try:
        value = from_json(data, allow_inf_nan=False)
        _finite(value)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is no JSON that can be read: {error}.", code="invalid_json") from None
    if not isinstance(value, Mapping):
        raise ApiError(400, "The body is JSON, but no object; send one.", code="invalid_json")
    try:
        return kind.model_validate(sift(endpoint, value))
    except ValidationError as error:
        raise of_validation(error) from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.", code="invalid_json") from None


async def body_of(request: Request, max_bytes: int) -> bytes:
    """The bytes of a body. Raises ApiError, 413, for one that is too long, as soon as that is known."""
    announced = request.headers.get("content-length", "0")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes or (announced.isdecimal() and int(announced) > max_bytes):
            raise ApiError(
                413, f"The body is longer than the {max_bytes} bytes that are read; send less.", code="body_too_long"
            )
    return bytes(data)


def _finite(value: Any) -> None:
    """Raises ValueError for a number that JSON cannot write; 1e999 is read as infinity."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise ValueError("a number is too large")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if type(inner) in (float, list, dict):
            _finite(inner)
