"""OpenAI's embeddings and models, with what Azure, Infinity and LiteLLM add."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from bertd_server.errors import RequestError, UnknownModel
from bertd_server.http import answers
from bertd_server.http.call import HttpCall
from bertd_server.http.failures import openai_form
from bertd_server.http.fields import Body, Texts, Whole, texts_of, tokens_of, values_of
from bertd_server.http.front import Route
from bertd_server.http.replies import HttpReply, json_reply, within
from bertd_server.models.catalogue import Catalogue
from bertd_server.models.model import Model
from bertd_server.rpc.limits import CallLimits
from bertd_server.tasks import embedding
from bertd_server.tasks.vectors import Vector, VectorFormat
from bertd_server.tokenization.reader import Fit

_OWNER = "bertd"


class EmbeddingsBody(Body):
    """What is embedded."""

    input: Texts = Field(description="a text, or a list of texts")
    model: str | None = Field(None, description="its name; not needed where there is one")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: float32, little-endian; float, a list, by default"
    )
    dimensions: Whole | None = Field(
        None, ge=0, description="first values of each vector, of length one again; 0 for all"
    )
    prompt_name: str | None = Field(None, description="a prompt of the model, before each text")
    truncate: bool | None = Field(None, description="cut texts that are too long")


class OpenAiCalls:
    """Answers OpenAI's clients."""

    def __init__(self, models: Catalogue, limits: CallLimits) -> None:
        """Serve models, looked up anew for each call."""
        self._models = models
        self._limits = limits

    def routes(self) -> Iterator[Route]:
        """What it answers."""
        for path in (
            "/v1/embeddings",
            "/embeddings",
            "/openai/deployments/{model:path}/embeddings",
        ):
            yield Route(
                "POST",
                path,
                self.embed,
                openai_form,
                "vectors of texts",
                body=EmbeddingsBody,
                gives=answers.EMBEDDINGS,
            )
        for path in ("/v1/models", "/models"):
            yield Route(
                "GET",
                path,
                self.list,
                openai_form,
                "the models",
                scope=None,
                gives=answers.MODELS,
            )
            yield Route(
                "GET",
                f"{path}/{{model:path}}",
                self.describe,
                openai_form,
                "a model",
                scope=None,
                gives=answers.MODEL,
            )

    async def embed(self, call: HttpCall, body: bytes) -> HttpReply:
        """Embed texts."""
        request = EmbeddingsBody.read(body)
        texts = await texts_of(request.input, "input", self._limits.max_texts)
        fit = Fit("truncate" if request.truncate else "error", remedy="truncate = true")
        with self._models.find(call.model(request.model)) as model:
            caller = call.caller(self._limits.max_message_bytes)
            replies = await embedding.embed(
                model,
                texts,
                fit,
                caller,
                prompt_name=request.prompt_name,
                form=VectorFormat(request.dimensions or None),
            )
            tokens, vectors = tokens_of(replies), values_of(replies)
            entries = _entries(vectors, as_base64=request.encoding_format == "base64")
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            rest = {"object": "list", "model": model.name, "usage": usage}
            return HttpReply(await model.jobs.run(within("data", entries, rest), caller.deadline))

    async def list(self, call: HttpCall, _body: bytes) -> HttpReply:
        """List the models."""
        described = [_described(model, call) for model in self._models.newest()]
        return json_reply({"object": "list", "data": described})

    async def describe(self, call: HttpCall, _body: bytes) -> HttpReply:
        """Describe a model."""
        name = call.params["model"]
        try:
            return json_reply(_described(self._models.find(name), call))
        except RequestError as error:
            raise UnknownModel(error.message, field="model") from None


def _entries(vectors: Sequence[Vector], *, as_base64: bool) -> Iterator[dict[str, Any]]:
    for index, vector in enumerate(vectors):
        given: Any = vector
        if as_base64:
            little = vector.astype("<f4", copy=False)
            given = base64.b64encode(little.tobytes()).decode()
        yield {"object": "embedding", "index": index, "embedding": given}


def _described(model: Model, call: HttpCall) -> dict[str, Any]:
    """A model; what Infinity's clients want to know of it stands beside OpenAI's fields.

    At their own path they take no owner but Infinity.
    """
    gauges = model.gauges()
    owner = {"owned_by": _OWNER} if call.path.startswith("/v1/") else {}
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        **owner,
        "backend": "bertd",
        "capabilities": [model.manifest.task],
        "stats": {
            "queue_fraction": 0.0,
            "queue_absolute": gauges.waiting,
            "results_pending": model.statistics.in_flight.texts,
            "batch_size": model.limits.max_batch_sequences,
        },
    }
