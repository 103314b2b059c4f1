"""What requests of bertd.v1 say, as plain values; what they must not say is refused by field."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from bertd.v1 import inference_pb2

from bertd_server.errors import InvalidInput
from bertd_server.models.model import Model
from bertd_server.rpc.checks import check_together, known_value, made_inputs
from bertd_server.rpc.limits import MOST_IDS
from bertd_server.scheduling.scheduler import BULK, INTERACTIVE
from bertd_server.system.turns import Turns, give_way
from bertd_server.tasks.ask import CallContext
from bertd_server.tasks.classification import ScoreFunction
from bertd_server.tasks.tagging import Aggregation
from bertd_server.tasks.vectors import AS_COMPUTED, VectorDtype, VectorFormat
from bertd_server.tokenization.budget import answer_budget
from bertd_server.tokenization.reader import Fit, Input, LongText
from bertd_server.tokenization.truncation import CutSide

_IDS_A_TURN = 5_000  # that the event loop reads before others have their turn: half a ms

_PRIORITIES: dict[int, int] = {
    inference_pb2.PRIORITY_UNSPECIFIED: INTERACTIVE,
    inference_pb2.PRIORITY_INTERACTIVE: INTERACTIVE,
    inference_pb2.PRIORITY_BULK: BULK,
}
_POLICIES: dict[int, LongText] = {
    inference_pb2.LONG_TEXT_POLICY_UNSPECIFIED: "error",
    inference_pb2.LONG_TEXT_POLICY_ERROR: "error",
    inference_pb2.LONG_TEXT_POLICY_TRUNCATE: "truncate",
    inference_pb2.LONG_TEXT_POLICY_WINDOW: "window",
}
_SIDES: dict[int, CutSide] = {
    inference_pb2.TRUNCATION_SIDE_UNSPECIFIED: "right",
    inference_pb2.TRUNCATION_SIDE_RIGHT: "right",
    inference_pb2.TRUNCATION_SIDE_LEFT: "left",
}
_AGGREGATIONS: dict[int, Aggregation] = {
    inference_pb2.AGGREGATION_UNSPECIFIED: "simple",
    inference_pb2.AGGREGATION_NONE: "none",
    inference_pb2.AGGREGATION_SIMPLE: "simple",
    inference_pb2.AGGREGATION_FIRST: "first",
    inference_pb2.AGGREGATION_AVERAGE: "average",
    inference_pb2.AGGREGATION_MAX: "max",
}
_SCORE_FUNCTIONS: dict[int, ScoreFunction] = {
    inference_pb2.SCORE_FUNCTION_UNSPECIFIED: "default",
    inference_pb2.SCORE_FUNCTION_SOFTMAX: "softmax",
    inference_pb2.SCORE_FUNCTION_SIGMOID: "sigmoid",
    inference_pb2.SCORE_FUNCTION_NONE: "none",
}

_DTYPES: dict[int, VectorDtype] = {
    inference_pb2.VECTOR_DTYPE_UNSPECIFIED: "float32",
    inference_pb2.VECTOR_DTYPE_FLOAT32: "float32",
    inference_pb2.VECTOR_DTYPE_INT8: "int8",
    inference_pb2.VECTOR_DTYPE_UINT8: "uint8",
    inference_pb2.VECTOR_DTYPE_BINARY: "binary",
    inference_pb2.VECTOR_DTYPE_UBINARY: "ubinary",
}


class _Context(Protocol):
    def time_remaining(self) -> float | None: ...


def caller(request: Any, context: _Context, answer_bytes: float = math.inf) -> CallContext:
    """How long the caller waits, how urgently, and for how large an answer."""
    remaining = context.time_remaining()
    within = math.inf if remaining is None else remaining
    priority = known_value("priority", request.priority, _PRIORITIES, inference_pb2.Priority)
    return CallContext.within(within, priority, answer_bytes, asyncio.current_task())


def fit(request: Any, *, windows: bool, second_only: bool = False) -> Fit:
    """What to do with long inputs.

    Args:
        request: with the fields long_text, truncation_side, and stride where it takes windows.
        windows: whether it does.
        second_only: whether of a pair the second text alone is cut.
    """
    stride = request.stride if windows else 0
    return _fit(request.long_text, request.truncation_side, stride, windows, second_only)


@lru_cache(maxsize=64)  # nearly all requests ask for the same
def _fit(
    long_text: int, truncation_side: int, stride: int, windows: bool, second_only: bool
) -> Fit:
    policy = known_value("long_text", long_text, _POLICIES, inference_pb2.LongTextPolicy)
    if policy == "window" and not windows:
        raise InvalidInput(
            "long_text is LONG_TEXT_POLICY_WINDOW, which Embed, EmbedTokens, Rerank, TagTokens and "
            "Answer take: use LONG_TEXT_POLICY_TRUNCATE here",
            field="long_text",
            reason="unknown_value",
        )
    side = known_value("truncation_side", truncation_side, _SIDES, inference_pb2.TruncationSide)
    return Fit(policy, side, stride, second_only=second_only)


def optional(request: Any, field: str) -> Any:
    """The value of an optional field; None where it is absent."""
    return getattr(request, field) if request.HasField(field) else None


def vector_format(request: inference_pb2.EmbedRequest) -> VectorFormat:
    """How many values of each vector, and as which numbers."""
    dimensions = optional(request, "dimensions")
    if dimensions is None and not request.output_dtype and not request.HasField("ranges"):
        return AS_COMPUTED
    return VectorFormat(
        dimensions,
        known_value("output_dtype", request.output_dtype, _DTYPES, inference_pb2.VectorDtype),
        tuple(request.ranges.lowest),
        tuple(request.ranges.highest),
    )


def aggregation(request: inference_pb2.TagTokensRequest) -> Aggregation:
    """How tokens become entities."""
    return known_value("aggregation", request.aggregation, _AGGREGATIONS, inference_pb2.Aggregation)


def score_function(request: Any, *, softmax: bool) -> ScoreFunction:
    """How logits become scores."""
    function = known_value(
        "score_function",
        request.score_function,
        _SCORE_FUNCTIONS,
        inference_pb2.ScoreFunction,
    )
    if function == "softmax" and not softmax:
        raise InvalidInput(
            "score_function is SCORE_FUNCTION_SOFTMAX, and a single logit has no others to share "
            "a probability with: use SCORE_FUNCTION_SIGMOID or SCORE_FUNCTION_NONE",
            field="score_function",
            reason="unknown_value",
        )
    return function


async def texts(given: Sequence[str]) -> list[Input]:
    """Texts of a request."""
    return await made_inputs(given, lambda one, number: Input(one, field=f"texts[{number}]"))


async def inputs(given: Sequence[inference_pb2.TextInput]) -> list[Input]:
    """Texts and pairs of a request."""

    def made(one: inference_pb2.TextInput, number: int) -> Input:
        pair = one.text_pair if one.HasField("text_pair") else None
        return Input(one.text, pair, f"inputs[{number}].text", f"inputs[{number}].text_pair")

    return await made_inputs(given, made)


async def questions(given: Sequence[inference_pb2.QuestionInput]) -> list[Input]:
    """Questions of a request, each with its context."""

    def made(one: inference_pb2.QuestionInput, number: int) -> Input:
        field = f"inputs[{number}]"
        return Input(one.question, one.context, f"{field}.question", f"{field}.context")

    return await made_inputs(given, made)


async def documents(query: str, given: Sequence[str]) -> list[Input]:
    """Pairs of the query with each document."""
    return await made_inputs(
        given, lambda one, number: Input(query, one, "query", f"documents[{number}]")
    )


def check_characters(given: Sequence[Input], field: str) -> None:
    """Refuse a call whose every token is to be described, if its texts are too long together."""
    check_together(sum(one.characters for one in given), "characters", field)


async def token_ids(
    given: Sequence[inference_pb2.TokenIds], model: Model, answer_bytes: float
) -> list[list[int] | InvalidInput]:
    """Token ids of a request, each sequence with its outcome.

    Raises:
        InvalidInput: there are too many, or their texts would be too large for an answer.
    """
    check_together(sum(len(one.ids) for one in given), "ids", "sequences")
    budget, turns = answer_budget(answer_bytes), Turns(_IDS_A_TURN)
    found: list[list[int] | InvalidInput] = []
    for number, one in enumerate(given):
        ids, size = await _ids(one.ids, model, f"sequences[{number}]", turns)
        if not isinstance(ids, InvalidInput):
            ids = budget.spend(size, Input("", field=f"sequences[{number}]")) or ids
        found.append(ids)
    return found


async def _ids(
    given: Sequence[int], model: Model, field: str, turns: Turns
) -> tuple[list[int] | InvalidInput, int]:
    """Ids of a sequence, and the bytes of their text, a part at a time."""
    if len(given) > MOST_IDS:
        refused = InvalidInput(
            f"{field} has {len(given)} ids, a sequence has at most {MOST_IDS}: split it",
            field=field,
            reason="too_long",
            limit=MOST_IDS,
        )
        return refused, 0
    ids, size, vocabulary = list[int](), 0, model.manifest.vocab_size
    for begin in range(0, len(given), _IDS_A_TURN):
        part = list(given[begin : begin + _IDS_A_TURN])
        largest = max(part)
        if largest >= vocabulary:
            place = f"{field}.ids[{begin + part.index(largest)}]"
            refused = InvalidInput(
                f"{place} is {largest}: the vocabulary has ids below {vocabulary}",
                field=place,
                reason="out_of_range",
                limit=vocabulary - 1,
            )
            return refused, 0
        ids += part
        size += model.written_bytes(part)
        if turns.over(len(part)):
            await give_way()
    return ids, size
