"""Every RPC at what a caller may legally ask of it: one row for each maximum of each RPC.

::

    RPC, what is at its maximum, task ──make(model)──> messages: one, or those of a stream

An RPC that takes no text has nothing to be at its maximum; it is named in ``LIGHT``. A row that is
``beyond`` has one more than a limit allows, and must be refused at once. What is legal here may be
refused by a later server, whose limits are tighter: that is an outcome like any other, as long as
it is quick.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as oip
from bertd.tei.v1 import tei_pb2 as tei
from bertd.v1 import inference_pb2 as pb

POSITIONS = 256  # tokens that each model of the drill reads at once
MOST_TEXTS = 256
MOST_CHARACTERS = 100_000
MESSAGE_BYTES = 4 * 2**20
SHARE = MESSAGE_BYTES // MOST_TEXTS - 64  # characters of a text where a call has most of them
STRIDE = POSITIONS - 3  # of windows over a single text; of pairs the first one takes room too
PAIR_STRIDE = POSITIONS - 10
WINDOWS = (
    1_200  # tokens that give nearly as many windows, with such a stride: a server allows 1,000
)
STREAMED = 8  # requests of a stream

MODELS: dict[str, Task] = {
    "vectors": "feature-extraction",
    "labels": "zero-shot-classification",
    "ranks": "text-ranking",
    "entities": "token-classification",
    "spans": "question-answering",
    "masks": "fill-mask",
}
"""What the server of a drill has, by name; `neighbour` besides, of the first task."""

V1, TEI, OIP = "bertd.v1.InferenceService", "tei.v1", "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True)
class WorstCall:
    """A row.

    Attributes:
        rpc: path of the method, without its first slash.
        maximum: what is at its maximum, in a few words; with the RPC it names the row.
        model: of the server, that is asked.
        make: the messages, given the model's name; one unless the RPC takes a stream.
        beyond: whether it is one more than a limit allows.
    """

    rpc: str
    maximum: str
    model: str
    make: Callable[[str], Sequence[Any]]
    beyond: bool = False

    @property
    def name(self) -> str:
        """Unique in the table."""
        return f"{self.rpc.rpartition('.')[2]}: {self.maximum}"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What names the model where messages have no field for it."""
        return (("bertd-model", self.model),) if self.rpc.startswith(TEI) else ()


LIGHT = frozenset(
    {
        "bertd.v1.ModelService/ListModels",
        "bertd.v1.ModelService/GetModel",
        "tei.v1.Info/Info",
        *(
            f"{OIP}/{name}"
            for name in (
                *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
                *("ModelConfig", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad"),
                *("RepositoryModelUnload", "SystemSharedMemoryStatus", "TraceSetting"),
                *("SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "LogSettings"),
                *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister"),
                "CudaSharedMemoryUnregister",
            )
        ),
    }
)
"""RPCs that take no text."""


def words(count: int, seed: int = 0) -> str:
    """So many words of one letter, a token each, none of whose stretches is another's."""
    return " ".join(random.Random(seed).choices(ascii_lowercase, k=count))


def characters(count: int, seed: int = 0) -> str:
    """A text of so many characters, half of them tokens."""
    return words((count + 1) // 2, seed)[:count].rstrip() or "a"


def several(count: int, size: int = SHARE) -> list[str]:
    """Texts that differ."""
    return [characters(size, seed) for seed in range(count)]


def long_words(count: int) -> list[str]:
    """Texts as long as they may be, every second word unknown: a token each twenty characters."""
    unknown = "가" * 37
    letters = [words(MOST_CHARACTERS // 40, seed).split() for seed in range(count)]
    return [" ".join(f"{unknown} {letter}" for letter in each) for each in letters]


def windowed(count: int) -> list[str]:
    """Texts of which windows with the largest stride make about a thousand each."""
    return [words(WINDOWS, seed) for seed in range(count)]


_WINDOW: dict[str, Any] = {"long_text": pb.LONG_TEXT_POLICY_WINDOW}
_CUT: dict[str, Any] = {"long_text": pb.LONG_TEXT_POLICY_TRUNCATE}


def _pairs(texts: Sequence[str]) -> list[pb.TextInput]:
    return [pb.TextInput(text="a b", text_pair=text) for text in texts]


def _masked(count: int) -> list[str]:
    return [" ".join(["[MASK]"] * (POSITIONS - 3) + [chr(97 + n % 26)]) for n in range(count)]


def _embed(model: str, texts: Sequence[str], **options: Any) -> list[Any]:
    return [pb.EmbedRequest(model=model, texts=texts, **options)]


def _v1() -> Iterator[WorstCall]:
    """Rows of bertd.v1."""

    def row(rpc: str, maximum: str, model: str, make: Callable[[str], Sequence[Any]]) -> WorstCall:
        return WorstCall(f"{V1}/{rpc}", maximum, model, make)

    stride, pair_stride = _WINDOW | {"stride": STRIDE}, _WINDOW | {"stride": PAIR_STRIDE}
    yield row("Embed", "windows", "vectors", lambda m: _embed(m, windowed(64), **stride))
    yield row("Embed", "characters", "vectors", lambda m: _embed(m, several(256), **_CUT))
    yield row(
        "EmbedStream",
        "windows",
        "vectors",
        lambda m: _embed(m, windowed(8), **stride) * STREAMED,
    )
    yield row(
        "EmbedSparse",
        "characters",
        "masks",
        lambda m: [pb.EmbedSparseRequest(model=m, texts=several(256), **_CUT)],
    )
    yield row(
        "EmbedTokens",
        "answer",
        "vectors",
        lambda m: [pb.EmbedTokensRequest(model=m, texts=long_words(14), **_WINDOW)],
    )
    yield row(
        "EmbedTokens",
        "windows",
        "vectors",
        lambda m: [pb.EmbedTokensRequest(model=m, texts=windowed(64), **stride)],
    )
    yield row(
        "Classify",
        "characters",
        "labels",
        lambda m: [pb.ClassifyRequest(model=m, inputs=_pairs(several(256)), **_CUT)],
    )
    yield row(
        "ZeroShotClassify",
        "labels",
        "labels",
        lambda m: [pb.ZeroShotClassifyRequest(model=m, texts=["a b c"], labels=several(256))],
    )
    yield row(
        "ZeroShotClassify",
        "template",
        "labels",
        lambda m: [
            pb.ZeroShotClassifyRequest(
                model=m,
                texts=["a b c"],
                labels=several(256, 8),
                hypothesis_template=characters(MOST_CHARACTERS - 200) + " {}",
                **_CUT,
            )
        ],
    )
    yield row(
        "Rerank",
        "windows",
        "ranks",
        lambda m: [pb.RerankRequest(model=m, query="a b", documents=windowed(64), **pair_stride)],
    )
    yield row(
        "RerankStream",
        "windows",
        "ranks",
        lambda m: (
            [pb.RerankRequest(model=m, query="a b", documents=windowed(8), **pair_stride)]
            * STREAMED
        ),
    )
    yield row(
        "TagTokens",
        "characters",
        "entities",
        lambda m: [pb.TagTokensRequest(model=m, texts=several(41, MOST_CHARACTERS), **_CUT)],
    )
    yield row(
        "TagTokens",
        "windows",
        "entities",
        lambda m: [
            pb.TagTokensRequest(
                model=m,
                texts=windowed(64),
                include_outside=True,
                **stride,
                aggregation=pb.AGGREGATION_NONE,
            )
        ],
    )
    yield row(
        "Answer",
        "spans",
        "spans",
        lambda m: [
            pb.AnswerRequest(
                model=m,
                inputs=[pb.QuestionInput(question="a b", context=each) for each in windowed(8)],
                max_answer_tokens=128,
                top_k=20,
                **pair_stride,
            )
        ],
    )
    yield row(
        "FillMask",
        "masks",
        "masks",
        lambda m: [pb.FillMaskRequest(model=m, texts=_masked(256), top_k=100)],
    )
    yield row(
        "Tokenize",
        "characters",
        "vectors",
        lambda m: [
            pb.TokenizeRequest(
                model=m, inputs=[pb.TextInput(text=each) for each in several(10, MOST_CHARACTERS)]
            )
        ],
    )
    yield row(
        "CountTokens",
        "characters",
        "vectors",
        lambda m: [
            pb.CountTokensRequest(
                model=m, inputs=[pb.TextInput(text=each) for each in several(41, MOST_CHARACTERS)]
            )
        ],
    )
    yield row(
        "Detokenize",
        "ids",
        "vectors",
        lambda m: [
            pb.DetokenizeRequest(
                model=m, sequences=[pb.TokenIds(ids=[5 + n % 20] * 3_900) for n in range(256)]
            )
        ],
    )


def _tei() -> Iterator[WorstCall]:
    """Rows of tei.v1: a text to a message, but for rerank."""
    long = characters(MOST_CHARACTERS)
    each: dict[str, Any] = {"truncate": True}

    def both(
        service: str, rpc: str, model: str, message: Callable[[], Any], maximum: str = "characters"
    ) -> Iterator[WorstCall]:
        yield WorstCall(f"{TEI}.{service}/{rpc}", maximum, model, lambda _: [message()])
        stream = f"{rpc}Stream"
        yield WorstCall(f"{TEI}.{service}/{stream}", maximum, model, lambda _: [message()] * 256)

    yield from both("Embed", "Embed", "vectors", lambda: tei.EmbedRequest(inputs=long, **each))
    yield from both(
        "Embed", "EmbedSparse", "masks", lambda: tei.EmbedSparseRequest(inputs=long, **each)
    )
    yield from both(
        "Embed", "EmbedAll", "vectors", lambda: tei.EmbedAllRequest(inputs=long, **each)
    )
    yield from both("Predict", "Predict", "labels", lambda: tei.PredictRequest(inputs=long, **each))
    yield from both(
        "Predict",
        "PredictPair",
        "labels",
        lambda: tei.PredictPairRequest(inputs=["a b", long], **each),
    )
    yield WorstCall(
        f"{TEI}.Rerank/Rerank",
        "characters",
        "ranks",
        lambda _: [tei.RerankRequest(query="a b", texts=several(256), return_text=True, **each)],
    )
    yield WorstCall(
        f"{TEI}.Rerank/RerankStream",
        "characters",
        "ranks",
        lambda _: [
            tei.RerankStreamRequest(query="a b", text=text, return_text=True, **each)
            for text in several(256)
        ],
    )
    yield from both("Tokenize", "Tokenize", "vectors", lambda: tei.EncodeRequest(inputs=long))
    ids = [5 + place % 20 for place in range(100_000)]
    yield WorstCall(
        f"{TEI}.Tokenize/Decode", "ids", "vectors", lambda _: [tei.DecodeRequest(ids=ids)]
    )
    yield WorstCall(
        f"{TEI}.Tokenize/DecodeStream",
        "ids",
        "vectors",
        lambda _: [tei.DecodeRequest(ids=ids)] * 256,
    )


def _infer(
    model: str, texts: Sequence[str], outputs: Sequence[str] = (), **parameters: Any
) -> list[Any]:
    """A request of the Open Inference Protocol, its texts in raw contents."""
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="text", datatype="BYTES", shape=[len(texts), 1])
    raw = [text.encode() for text in texts]
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(x)) + x for x in raw))
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        kind = "int64_param" if isinstance(value, int) else "string_param"
        setattr(request.parameters[name], kind, value)
    return [request]


def _oip() -> Iterator[WorstCall]:
    """Rows of the Open Inference Protocol."""
    infer = f"{OIP}/ModelInfer"
    window: dict[str, Any] = {"long_text": "window", "stride": STRIDE}
    yield WorstCall(infer, "windows", "vectors", lambda m: _infer(m, windowed(64), **window))
    yield WorstCall(
        infer,
        "answer",
        "vectors",
        lambda m: _infer(m, several(20, MOST_CHARACTERS), ["token_embeddings"], long_text="window"),
    )
    yield WorstCall(
        infer,
        "sparse answer",
        "masks",
        lambda m: _infer(
            m, several(256), ["sparse_indices", "sparse_values"], long_text="truncate"
        ),
    )
    yield WorstCall(
        infer,
        "labels",
        "labels",
        lambda m: _infer(m, ["a b c"], labels=json.dumps(several(256, SHARE - 64))),
    )
    yield WorstCall(
        f"{OIP}/ModelStreamInfer",
        "windows",
        "vectors",
        lambda m: _infer(m, windowed(8), **window) * STREAMED,
    )


def _beyond() -> Iterator[WorstCall]:
    """One more than each limit allows."""

    def row(rpc: str, maximum: str, make: Callable[[str], Sequence[Any]]) -> WorstCall:
        return WorstCall(rpc, maximum, "vectors", make, beyond=True)

    embed = f"{V1}/Embed"
    yield row(embed, "a text too many", lambda m: _embed(m, several(257, SHARE - 64)))
    yield row(
        embed, "a character too many", lambda m: _embed(m, [characters(MOST_CHARACTERS) + " bb"])
    )
    yield row(embed, "a byte too many", lambda m: _embed(m, several(257, 2**14)))
    yield row(
        embed,
        "a stride too large",
        lambda m: _embed(m, windowed(64), **_WINDOW, stride=POSITIONS - 2),
    )
    yield row(f"{OIP}/ModelInfer", "a text too many", lambda m: _infer(m, several(257, SHARE - 64)))


ROWS = (*_v1(), *_tei(), *_oip(), *_beyond())
BY_NAME = {row.name: row for row in ROWS}
