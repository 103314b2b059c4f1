"""tei.v1.Predict: the model's labels for a text or a pair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from bertd.tei.v1 import tei_pb2 as pb
from bertd.tei.v1 import tei_pb2_grpc
from grpc.aio import ServicerContext as Context

from bertd_server.errors import InvalidInput, RequestError
from bertd_server.models.model import Model
from bertd_server.rpc.tei import requests
from bertd_server.rpc.tei.metadata import Tally
from bertd_server.rpc.tei.service import TeiService, answered, holding, streamed
from bertd_server.tasks import classification, ranking
from bertd_server.tasks.ask import CallContext, Reply, require
from bertd_server.tasks.classification import LabelScore, ScoreFunction
from bertd_server.tokenization.reader import Fit, Input

TASKS = ("text-classification", "zero-shot-classification", "text-ranking")

_ONLY_LABEL = "LABEL_0"  # what a config calls a single logit without a name


class PredictService(TeiService, tei_pb2_grpc.PredictServicer):
    """Classifies texts and pairs."""

    async def Predict(  # noqa: N802 - the RPC's name
        self, request: pb.PredictRequest, context: Context[pb.PredictRequest, pb.PredictResponse]
    ) -> pb.PredictResponse:
        """Classify a text."""
        return await answered(self._predict, request, context)

    async def PredictStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.PredictRequest],
        context: Context[pb.PredictRequest, pb.PredictResponse],
    ) -> AsyncIterator[pb.PredictResponse]:
        """Classify texts."""
        async for response in streamed(self._predict, request_iterator, context, self._closing):
            yield response

    async def PredictPair(  # noqa: N802 - the RPC's name
        self,
        request: pb.PredictPairRequest,
        context: Context[pb.PredictPairRequest, pb.PredictResponse],
    ) -> pb.PredictResponse:
        """Classify a text or a pair."""
        return await answered(self._predict_pair, request, context)

    async def PredictPairStream(  # noqa: N802 - the RPC's name
        self,
        request_iterator: AsyncIterator[pb.PredictPairRequest],
        context: Context[pb.PredictPairRequest, pb.PredictResponse],
    ) -> AsyncIterator[pb.PredictResponse]:
        """Classify texts or pairs."""
        async for response in streamed(
            self._predict_pair, request_iterator, context, self._closing
        ):
            yield response

    @holding
    async def _predict(
        self, model: Model, request: pb.PredictRequest, context: Context[Any, Any]
    ) -> pb.PredictResponse:
        requests.check_text(request.inputs)
        return await self._score(model, Input(request.inputs, field="inputs"), request, context)

    @holding
    async def _predict_pair(
        self, model: Model, request: pb.PredictPairRequest, context: Context[Any, Any]
    ) -> pb.PredictResponse:
        return await self._score(model, _pair(request.inputs), request, context)

    async def _score(
        self, model: Model, one: Input, request: Any, context: Context[Any, Any]
    ) -> pb.PredictResponse:
        tally = Tally()
        (reply,) = await predicted(
            model,
            [one],
            requests.fit(request),
            requests.caller(context, self._limits.max_message_bytes),
            raw_scores=request.raw_scores,
        )
        found = tally.add(reply, one.characters)
        return pb.PredictResponse(
            predictions=[pb.Prediction(score=each.score, label=each.label) for each in found],
            metadata=tally.metadata(),
        )


async def predicted(
    model: Model, inputs: Sequence[Input], fit: Fit, caller: CallContext, *, raw_scores: bool
) -> list[Reply[list[LabelScore]]]:
    """The labels of inputs as the protocol scores them, whatever the model's config says."""
    require(model, "Predict", *TASKS)
    labels = model.manifest.labels
    function: ScoreFunction = "softmax" if len(labels) > 1 else "sigmoid"
    if raw_scores:
        function = "none"
    if model.manifest.task != "text-ranking":
        return await classification.classify(model, inputs, fit, caller, score_function=function)
    name = labels[0] if labels else _ONLY_LABEL
    replies = await ranking.score_pairs(model, inputs, fit, caller, score_function=function)
    return [
        Reply(
            one.outcome
            if isinstance(one.outcome, RequestError)
            else [LabelScore(name, one.outcome)],
            one.tokens,
            one.read,
            one.windows,
            one.trace,
        )
        for one in replies
    ]


def _pair(texts: Sequence[str]) -> Input:
    if len(texts) not in {1, 2}:
        raise InvalidInput(
            f"inputs has {len(texts)} texts: send one, or two that belong together", field="inputs"
        )
    if not any(texts):
        requests.check_text("", "inputs[0]")
    pair = texts[1] if len(texts) > 1 else None
    return Input(texts[0], pair, "inputs[0]", "inputs[1]")
