"""`POST /` as Hugging Face's inference clients ask it: the model's task says what `inputs` are.

Answers have the shape of transformers' pipelines, for a list of inputs a list of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast, get_args

from pydantic import Field, ValidationError

from bertd_server.errors import InvalidInput
from bertd_server.http import answers
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import tei_form
from bertd_server.http.fields import (
    Anything,
    Body,
    Truncating,
    Whole,
    refusal,
    shown,
    texts_of,
    values_of,
)
from bertd_server.http.front import Route
from bertd_server.http.replies import HttpReply, json_reply, listed
from bertd_server.http.rerank import RerankCalls
from bertd_server.http.tei import EmbedBody, SimilarityBody, TeiCalls
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc.checks import check_count
from bertd_server.rpc.limits import CallLimits
from bertd_server.tasks import answering, classification, filling, tagging
from bertd_server.tasks.ask import CallContext
from bertd_server.tasks.classification import LabelScore, ScoreFunction
from bertd_server.tasks.tagging import Aggregation
from bertd_server.tokenization.reader import Fit, Input

_FUNCTIONS = get_args(ScoreFunction)
_AGGREGATIONS = get_args(Aggregation)
# What tasks call options, and what transformers' pipelines call them.
_PARAMETERS = {
    "labels": "candidate_labels",
    "hypothesis_template": "hypothesis_template",
    "top_k": "top_k",
    "max_answer_tokens": "max_answer_len",
    "targets": "targets",
}


class TaskBody(Body):
    """Inputs, and parameters of the model's task."""

    inputs: Anything = Field(None, description="as the model's task takes them")
    parameters: dict[str, Any] | None = Field(None, description="of the task's pipeline")


class Parameters(Truncating):
    """Of all tasks; each takes its own."""

    top_k: Whole | None = Field(None, ge=1)
    function_to_apply: str | None = None
    candidate_labels: list[str] | None = None
    hypothesis_template: str | None = None
    multi_label: bool | None = None
    aggregation_strategy: str | None = None
    max_answer_len: Whole | None = Field(None, ge=1)
    handle_impossible_answer: bool | None = None
    targets: list[str] | None = None


_Work = Callable[[Model, TaskBody, Parameters, CallContext], Awaitable[list[Any]]]


class HuggingFaceCalls:
    """Answers `POST /`."""

    def __init__(
        self, models: Catalogue, limits: CallLimits, tei: TeiCalls, rerank: RerankCalls
    ) -> None:
        """Serve models, looked up anew for each call; vectors and ranks are others' to answer."""
        self._models = models
        self._limits = limits
        self._tei = tei
        self._rerank = rerank
        self._works: Mapping[str, _Work] = {
            "text-classification": self._classify,
            "zero-shot-classification": self._classify_zero_shot,
            "token-classification": self._tag,
            "question-answering": self._find_answers,
            "fill-mask": self._fill,
        }

    def routes(self) -> Iterator[Route]:
        """What it answers."""
        yield Route(
            "POST",
            "/",
            self.ask,
            tei_form,
            "the model's task",
            body=TaskBody,
            gives=answers.ANSWERS_OF_A_TASK,
        )

    async def ask(self, call: HttpCall, body: bytes) -> HttpReply:
        """Ask the model what it is for."""
        task = self._models.find(call.model()).manifest.task
        if task == "text-ranking":
            return await self._rerank.rank(call, body)
        request = TaskBody.read(body)
        if request.inputs is None:
            raise InvalidInput(
                "inputs is missing: send a text, or what the task takes", field="inputs"
            )
        if task == "feature-extraction":
            return await self._vectors(call, request, body)
        parameters = _parameters(request)
        with self._models.find(call.model()) as model:
            caller = call.caller(self._limits.max_message_bytes)
            try:
                found = await self._works[task](model, request, parameters, caller)
            except InvalidInput as error:
                raise _of_pipeline(error) from None
            if isinstance(request.inputs, str | dict):  # one answer, not in a list of them
                (one,) = found
                return json_reply(one)
            return HttpReply(await model.jobs.run(listed(found), caller.deadline))

    async def _vectors(self, call: HttpCall, request: TaskBody, body: bytes) -> HttpReply:
        """Vectors, or of an object cosines."""
        if isinstance(request.inputs, dict):
            return await self._tei.compare_texts(call, SimilarityBody.read(body))
        asked = EmbedBody.read(body)
        if request.parameters:
            try:
                asked = EmbedBody.model_validate({"inputs": request.inputs} | request.parameters)
            except ValidationError as error:
                raise refusal(error) from None
        return await self._tei.embed_texts(call, asked)

    async def _classify(
        self,
        model: Model,
        request: TaskBody,
        parameters: Parameters,
        caller: CallContext,
    ) -> list[Any]:
        function = _chosen(
            parameters.function_to_apply, _FUNCTIONS, "parameters.function_to_apply", "default"
        )
        replies = await classification.classify(
            model,
            await self._texts(request.inputs),
            parameters.fit(),
            caller,
            top_k=parameters.top_k or 0,
            score_function=cast("ScoreFunction", function),
        )
        found = [_labels(one) for one in values_of(replies)]
        # A client that sends one text takes the first of a list of answers.
        return [found] if isinstance(request.inputs, str) else found

    async def _classify_zero_shot(
        self,
        model: Model,
        request: TaskBody,
        parameters: Parameters,
        caller: CallContext,
    ) -> list[Any]:
        labels = parameters.candidate_labels or []
        texts = await self._texts(request.inputs)
        check_count(len(texts) * max(1, len(labels)), self._limits.max_texts, "inputs", "pairs")
        replies = await classification.classify_zero_shot(
            model,
            texts,
            labels,
            parameters.fit(),
            caller,
            hypothesis_template=parameters.hypothesis_template or classification.HYPOTHESIS,
            multi_label=bool(parameters.multi_label),
        )
        return [_labels(one) for one in values_of(replies)]

    async def _tag(
        self,
        model: Model,
        request: TaskBody,
        parameters: Parameters,
        caller: CallContext,
    ) -> list[Any]:
        aggregation = _chosen(
            parameters.aggregation_strategy,
            _AGGREGATIONS,
            "parameters.aggregation_strategy",
            "simple",
        )
        texts = await self._texts(request.inputs)
        replies = await tagging.tag(
            model,
            texts,
            parameters.fit(),
            caller,
            aggregation=cast("Aggregation", aggregation),
        )
        name = "entity" if aggregation == "none" else "entity_group"
        return [
            [
                {
                    name: each.label,
                    "score": each.score,
                    "word": each.word,
                    "start": each.start,
                    "end": each.end,
                }
                for each in entities
            ]
            for entities in values_of(replies)
        ]

    async def _find_answers(
        self,
        model: Model,
        request: TaskBody,
        parameters: Parameters,
        caller: CallContext,
    ) -> list[Any]:
        pairs = _questions(request.inputs, self._limits.max_texts)
        replies = await answering.answer(
            model,
            pairs,
            Fit("window", second_only=True) if not parameters.truncate else parameters.fit(),
            caller,
            top_k=parameters.top_k or 1,
            max_answer_tokens=parameters.max_answer_len or answering.ANSWER_TOKENS,
            allow_no_answer=bool(parameters.handle_impossible_answer),
        )
        found = []
        for one, spans in zip(pairs, values_of(replies), strict=True):
            answers = [
                {
                    "answer": (one.pair or "")[span.start : span.end],
                    "score": span.score,
                    "start": span.start,
                    "end": span.end,
                }
                for span in spans
            ]
            found.append(answers if (parameters.top_k or 1) > 1 or not answers else answers[0])
        return found

    async def _fill(
        self,
        model: Model,
        request: TaskBody,
        parameters: Parameters,
        caller: CallContext,
    ) -> list[Any]:
        texts = await self._texts(request.inputs)
        replies = await filling.fill_masks(
            model,
            texts,
            parameters.fit(),
            caller,
            top_k=parameters.top_k or filling.CANDIDATES,
            targets=parameters.targets or (),
        )
        found = []
        for one, masks in zip(texts, values_of(replies), strict=True):
            candidates = [
                [
                    {
                        "score": each.score,
                        "token": each.id,
                        "token_str": each.text,
                        "sequence": filling.fill(one.text, mask, each),
                    }
                    for each in mask.candidates
                ]
                for mask in masks
            ]
            found.append(candidates if len(candidates) > 1 else candidates[0])
        return found

    async def _texts(self, given: Any) -> list[Input]:
        return await texts_of(given, "inputs", self._limits.max_texts)


def _of_pipeline(error: InvalidInput) -> InvalidInput:
    """The same of a field that has another name here."""
    found = re.match(r"\w+", error.message)
    name = _PARAMETERS.get(found[0]) if found else None
    if not found or name is None:
        return error
    return InvalidInput(
        f"parameters.{name}{error.message[found.end() :]}",
        field=f"parameters.{name}",
        tokens=error.tokens,
        reason=error.reason,
        limit=error.limit,
    )


def _parameters(request: TaskBody) -> Parameters:
    """Those of a request.

    Raises:
        InvalidInput: one is not what it may be.
    """
    try:
        return Parameters.model_validate(request.parameters or {})
    except ValidationError as error:
        raise refusal(error, "parameters") from None


def _chosen(given: str | None, known: tuple[str, ...], field: str, default: str) -> str:
    value = (given or default).lower()
    if value not in known:
        raise InvalidInput(
            f"{field} is {shown(given)}: send one of {', '.join(known)}",
            field=field,
            reason="unknown_value",
        )
    return value


def _labels(found: list[LabelScore]) -> list[dict[str, Any]]:
    return [{"label": one.label, "score": one.score} for one in found]


def _questions(given: Any, most: int) -> list[Input]:
    several = given if isinstance(given, list) else [given]
    check_count(len(several), most, "inputs")
    pairs = []
    for number, one in enumerate(several):
        field = f"inputs[{number}]" if isinstance(given, list) else "inputs"
        question = one.get("question") if isinstance(one, dict) else None
        context = one.get("context") if isinstance(one, dict) else None
        if not isinstance(question, str) or not isinstance(context, str):
            raise InvalidInput(
                f"{field} is {shown(one)}: send an object with question and context", field=field
            )
        pairs.append(Input(question, context, f"{field}.question", f"{field}.context"))
    return pairs
