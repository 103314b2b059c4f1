"""What bodies of every protocol share: models of pydantic, of which the OpenAPI document is made.

Fields that are not known are left aside, and null is as good as absent: tools send both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.http.failures import Refused
from bertd_server.rpc.checks import check_count, made_inputs
from bertd_server.tasks.ask import Reply
from bertd_server.tokenization.reader import Fit, Input
from bertd_server.tokenization.truncation import CutSide

T = TypeVar("T")

_SHOWN = 60  # characters of a value that an error quotes
_STRING = {"type": "string"}
_STRINGS = {"type": "array", "items": _STRING}

Texts = Annotated[Any, WithJsonSchema({"anyOf": [_STRING, _STRINGS]})]
"""A text, or several."""
Anything = Annotated[Any, WithJsonSchema({})]


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("send a whole number")  # noqa: TRY004 - pydantic wants this one
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
"""A number: true is none, which would be 1."""


class Body(BaseModel):
    """The JSON object of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    @classmethod
    def read(cls, body: bytes) -> Self:
        """The fields of a body.

        Raises:
            InvalidInput: it is no JSON object, or a field is not what it may be.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise refusal(error) from None


def refusal(error: ValidationError, within: str = "") -> InvalidInput:
    """What is wrong with a body, or with the object `within` it, and what to send instead."""
    found = error.errors(include_url=False, include_context=False)
    first = found[0]
    place, message = (*filter(None, [within]), *first["loc"]), first["msg"]
    if first["type"] == "json_invalid":
        return InvalidInput(
            f"the body is no JSON ({message.removeprefix('Invalid JSON: ')}): send an object in "
            "UTF-8",
            reason="undecodable",
        )
    field = _path(place)
    if first["type"] == "missing":
        return InvalidInput(f"{field} is missing: send it", field=field, reason="empty")
    if not field:
        return InvalidInput("the body is no JSON object: send one", reason="undecodable")
    wanted = message.replace("Input should be greater", "send a number greater")
    wanted = wanted.replace("Input should be", "send").removeprefix("Value error, ")
    return InvalidInput(f"{field} is {shown(first['input'])}: {wanted}", field=field)


def _path(place: Sequence[int | str]) -> str:
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part}"
    return path


def shown(value: Any) -> str:
    """A value of a request, as far as an error has room."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    return repr(value)[:_SHOWN]


class Truncating(Body):
    """How long texts are cut, as text-embeddings-inference has it."""

    truncate: bool | None = Field(None, description="cut texts that are too long")
    truncation_direction: str | None = Field(
        None, description="the end that is cut: Right, or Left"
    )

    def fit(self) -> Fit:
        """What to do with long texts.

        Raises:
            InvalidInput: the direction is none.
        """
        return Fit(
            "truncate" if self.truncate else "error",
            side_of(self.truncation_direction),
            blank=True,
            remedy="truncate = true",
        )


def side_of(direction: str | None) -> CutSide:
    """The end that is cut.

    Raises:
        InvalidInput: it is neither.
    """
    match (direction or "right").lower():
        case "right":
            return "right"
        case "left":
            return "left"
    raise InvalidInput(
        f"truncation_direction is {shown(direction)}: send Right or Left",
        field="truncation_direction",
        reason="unknown_value",
    )


async def texts_of(value: Any, field: str, most: int) -> list[Input]:
    """The texts of a field that is one, or a list of them.

    Raises:
        InvalidInput: it is something else, or there are too many or none.
    """
    single = isinstance(value, str)
    return await made_inputs(
        strings_of(value, field, most),
        lambda text, number: Input(text, field=field if single else f"{field}[{number}]"),
    )


def strings_of(value: Any, field: str, most: int) -> list[str]:
    """The same as strings."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InvalidInput(
            f"{field} is {shown(value)}: send a string, or a list of strings", field=field
        )
    check_count(len(value), most, field)
    for number, one in enumerate(value):
        if not isinstance(one, str):
            _refuse_text(one, f"{field}[{number}]", field)
    return value


def _refuse_text(value: Any, place: str, field: str) -> NoReturn:
    if isinstance(value, int) or (isinstance(value, list) and _ids(value)):
        raise InvalidInput(
            f"{field} has token ids, which are those of another tokenizer: send texts; LangChain "
            "does with check_embedding_ctx_length=False",
            field=field,
            reason="token_ids",
        )
    raise InvalidInput(f"{place} is {shown(value)}: send a string", field=place)


def _ids(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(one, int) for one in value[:8])


def refuse_empty(inputs: Sequence[Input]) -> None:
    """Refuse an empty text, as text-embeddings-inference does; one of spaces is read."""
    for one in inputs:
        if not one.text and not one.pair:
            raise InvalidInput(
                f"{one.field} is empty: send a text", field=one.field, reason="empty"
            )


def values_of(replies: Sequence[Reply[T]]) -> list[T]:
    """What the replies say, where a call cannot be answered in part.

    Raises:
        Refused: one of them is an error.
    """
    errors = [one.outcome for one in replies if isinstance(one.outcome, RequestError)]
    if errors:
        raise Refused(*errors)
    return [one.outcome for one in replies if not isinstance(one.outcome, RequestError)]


def tokens_of(replies: Sequence[Reply[Any]]) -> int:
    """Tokens that the model has read."""
    return sum(one.read for one in replies)
