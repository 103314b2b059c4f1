"""Every call in one table: what it asks, of whom, and how its answer is read.

::

    arguments ──job──> Job: inputs, a request without them, a reader ──> work.py, the clients
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bertd.v1 import inference_pb2 as pb
from google.protobuf.message import Message

from bertd_client.calling import requests, responses
from bertd_client.calling.options import (
    AnswerOptions,
    CallOptions,
    ClassifyOptions,
    EmbedOptions,
    FillMaskOptions,
    RerankOptions,
    TagOptions,
    TokenizeOptions,
    ZeroShotOptions,
)
from bertd_client.calling.requests import Prepared
from bertd_client.calling.responses import Reader
from bertd_client.errors import BertdError
from bertd_client.tasks import results

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """Inputs to be asked about, in one call or in several."""

    rpc: str
    """Name of the RPC in the inference service."""
    field: str
    """Of the request in which inputs are."""
    inputs: Sequence[Prepared | BertdError]
    """One by one; what no message can carry as its error."""
    template: Message
    """The request without inputs."""
    read: Reader[R]
    """From a response to outcomes."""
    timeout: float | None
    """Seconds for all of it."""
    progress: bool
    """Whether to show how far it is."""
    weight: int = 1
    """What an input counts for in the server's limit of inputs."""
    at_once: int | None = None
    """Inputs of a call, at most, where answers are large."""

    def request(self, places: Sequence[int]) -> Message:
        """The request about some of the inputs, none of them an error."""
        request = type(self.template)()
        request.CopyFrom(self.template)
        chosen = [self.inputs[place] for place in places]
        getattr(request, self.field).extend(one[0] for one in chosen if isinstance(one, tuple))
        return request


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A row of the table."""

    name: str
    """Of the clients' method, for errors."""
    rpc: str
    request: type[Message]
    field: str
    options: type
    """The TypedDict of the method's options."""
    prepare: Callable[[Any, str], list[Prepared | BertdError]]
    read: Reader[R]
    at_once: int | None = None

    def job(
        self, inputs: Iterable[Any], options: Mapping[str, Any], *, weight: int = 1, **more: Any
    ) -> Job[R]:
        """The job of some inputs.

        Args:
            inputs: As the method takes them.
            options: Those of the method, by name.
            weight: See :class:`Job`.
            more: Further fields of the request.

        Raises:
            TypeError: An input or option is of another type, or there is no such option.
            ValueError: An option has a value that there is not.
            InvalidArgument: A further field cannot be written as UTF-8.
        """
        known: frozenset[str] = self.options.__optional_keys__  # type: ignore[attr-defined]
        for name in options:
            if name not in known:
                words = ", ".join(sorted(known))
                raise TypeError(f"{self.name}() has no option {name!r}: it has {words}")
        fields = {name: value for name, value in options.items() if name not in _OWN}
        template = self.request()
        requests.set_fields(template, {**fields, **more})
        return Job(
            rpc=self.rpc,
            field=self.field,
            inputs=self.prepare(inputs, self.field),
            template=template,
            read=self.read,
            timeout=options.get("timeout"),
            progress=bool(options.get("progress")),
            weight=weight,
            at_once=self.at_once,
        )


_OWN = frozenset({"timeout", "progress", "special_tokens"})  # no fields of requests
_each, _texts, _pairs = responses.each, requests.texts, requests.texts_or_pairs

# fmt: off
EMBED = Call(
    "embed", "Embed", pb.EmbedRequest, "texts", EmbedOptions, _texts, _each(responses.embedding),
)
EMBED_TOKENS = Call(
    "embed_tokens", "EmbedTokens", pb.EmbedTokensRequest, "texts", EmbedOptions, _texts,
    _each(responses.token_embeddings),
    # 16 texts of 512 tokens and 1,024 dimensions are 32 MiB; what is larger is halved on the way.
    at_once=16,
)
CLASSIFY = Call(
    "classify", "Classify", pb.ClassifyRequest, "inputs", ClassifyOptions, _pairs,
    _each(responses.classification),
)
TAG = Call(
    "tag", "TagTokens", pb.TagTokensRequest, "texts", TagOptions, _texts, _each(responses.tagging),
)
ANSWER = Call(
    "answer", "Answer", pb.AnswerRequest, "inputs", AnswerOptions, requests.questions,
    _each(responses.answers),
)
FILL_MASK = Call(
    "fill_mask", "FillMask", pb.FillMaskRequest, "texts", FillMaskOptions, _texts,
    _each(responses.filling),
)
COUNT_TOKENS = Call(
    "count_tokens", "CountTokens", pb.CountTokensRequest, "inputs", CallOptions, _pairs,
    responses.plain("counts"),
)
_ZERO_SHOT = Call(
    "classify_zero_shot", "ZeroShotClassify", pb.ZeroShotClassifyRequest, "texts", ZeroShotOptions,
    _texts, _each(responses.classification),
)
_RERANK = Call(
    "rerank", "Rerank", pb.RerankRequest, "documents", RerankOptions, _texts, responses.ranked,
)
_TOKENIZE = Call(
    "tokenize", "Tokenize", pb.TokenizeRequest, "inputs", TokenizeOptions, _pairs,
    _each(responses.tokens),
)
_DETOKENIZE = Call(
    "detokenize", "Detokenize", pb.DetokenizeRequest, "sequences", TokenizeOptions,
    requests.token_ids, responses.plain("texts"),
)
# fmt: on


def zero_shot(
    texts: Iterable[str], labels: Iterable[str], options: ZeroShotOptions
) -> Job[results.Classification]:
    """Texts with labels of the call: each label of each text counts as an input."""
    names = requests.strings(labels, "labels")
    return _ZERO_SHOT.job(texts, options, weight=max(1, len(names)), labels=names)


def rerank(query: str, documents: Iterable[str], options: RerankOptions) -> Job[results.Ranked]:
    """Documents for a query."""
    return _RERANK.job(documents, options, query=query)


def tokenize(
    inputs: Iterable[str | tuple[str, str]], options: TokenizeOptions
) -> Job[tuple[results.Token, ...]]:
    """Texts or pairs as tokens."""
    without = not options.get("special_tokens", True)
    return _TOKENIZE.job(inputs, options, without_special_tokens=without)


def detokenize(sequences: Iterable[Sequence[int]], options: TokenizeOptions) -> Job[str]:
    """Token ids as texts."""
    with_ = options.get("special_tokens", False)
    return _DETOKENIZE.job(sequences, options, with_special_tokens=with_)
