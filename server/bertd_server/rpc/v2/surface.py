"""Which tensors and parameters a model has, by its task: what requests are checked against.

A request sends `inputs` and gets `outputs`. That is what metadata and configuration list, so that
load generators, which send all that is listed and ask for all of it, do what a caller would.
What may be sent or asked for besides is in `more_inputs` and `more_outputs`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bertd.bundle import Manifest, Task

from bertd_server.rpc.v2.parameters import READING, WAITING, WINDOWS, Parameter
from bertd_server.rpc.v2.tensors import BYTES, FP32, INT64, TEXT
from bertd_server.rpc.v2.tensors import TOKENS as TOKEN_TYPES
from bertd_server.tasks.vectors import DTYPES

FIRST = ("text", "question", "query")
SECOND = ("text_pair", "context", "document")
INPUT_IDS, TYPES, MASK = "input_ids", "token_type_ids", "attention_mask"
LABELS = "labels"
START_BYTE, END_BYTE = "start_byte", "end_byte"
SPARSE_INDICES, SPARSE_VALUES = "sparse_indices", "sparse_values"
ANY = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor: type, axes after that of the batch (-1 for any length), and what it says."""

    datatype: str
    dims: tuple[int, ...]
    meaning: str


@dataclass(frozen=True, slots=True)
class Surface:
    """What requests to a model may hold.

    Attributes:
        inputs: that each request sends, unless it sends `more_inputs` instead.
        more_inputs: that it may send.
        outputs: that it gets, unless it names others.
        more_outputs: that it may name.
        parameters: that it may set.
    """

    inputs: Mapping[str, TensorSpec]
    more_inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    more_outputs: Mapping[str, TensorSpec]
    parameters: Mapping[str, Parameter]

    @property
    def takes(self) -> Mapping[str, Collection[str]]:
        """Names of all inputs, and the datatypes that each may have."""
        return {
            name: TEXT if slot.datatype == BYTES else TOKEN_TYPES
            for name, slot in {**self.inputs, **self.more_inputs}.items()
        }

    @property
    def gives(self) -> Mapping[str, TensorSpec]:
        """All outputs by name."""
        return {**self.outputs, **self.more_outputs}


_TEXT = {"text": TensorSpec(BYTES, (1,), "the text, UTF-8")}
_PAIR = {"text_pair": TensorSpec(BYTES, (1,), "a second text, UTF-8")}
_QUESTION = {
    "question": TensorSpec(
        BYTES, (1,), "the question, UTF-8; one for all contexts, or one for each"
    ),
    "context": TensorSpec(BYTES, (1,), "the text that may hold the answer, UTF-8"),
}
_QUERY = {
    "query": TensorSpec(BYTES, (1,), "the query, UTF-8; one for all documents, or one for each"),
    "document": TensorSpec(BYTES, (1,), "the document, UTF-8"),
}
_LABELS = {LABELS: TensorSpec(BYTES, (ANY,), "labels to choose from, the same for all texts")}
_TOKENS = {
    INPUT_IDS: TensorSpec(INT64, (ANY,), "tokens instead of texts, special ones included"),
    TYPES: TensorSpec(INT64, (ANY,), "their types; all 0 by default"),
    MASK: TensorSpec(INT64, (ANY,), "1 for each token, 0 for padding before and after"),
}
_COUNTS = {
    "token_count": TensorSpec(INT64, (1,), "tokens of the input"),
    "tokens_read": TensorSpec(INT64, (1,), "of them, those that the model has read"),
    "windows": TensorSpec(INT64, (1,), "windows in which it has read them"),
}
_TOP = Parameter(int, "how many, best first; 1 by default", least=1)
_SCORES = Parameter(
    str,
    "how logits become scores; as the checkpoint says by default",
    choices=("default", "softmax", "sigmoid", "none"),
)
_PROMPT = {"prompt_name": Parameter(str, "a prompt of the model; empty for none")}
_LABELLED = {
    "label": TensorSpec(BYTES, (ANY,), "the best labels, top_k of them, best first"),
    "score": TensorSpec(FP32, (ANY,), "their scores"),
}


def _embedding(manifest: Manifest) -> Surface:
    return Surface(
        _TEXT,
        _TOKENS,
        {"sentence_embedding": TensorSpec(FP32, (manifest.dimensions,), "the vector of the text")},
        {
            "token_embeddings": TensorSpec(
                FP32, (ANY, manifest.hidden_size), "the vectors of its tokens, then zeros"
            ),
            "token_ids": TensorSpec(INT64, (ANY,), "its tokens, special ones included, then zeros"),
            MASK: TensorSpec(INT64, (ANY,), "1 for each token, 0 after them"),
            **_COUNTS,
        },
        {
            **WAITING,
            **WINDOWS,
            **_PROMPT,
            "dimensions": Parameter(
                int, "first values of sentence_embedding; all by default", least=1
            ),
            "output_dtype": Parameter(
                str, "as which numbers sentence_embedding is given", choices=DTYPES
            ),
            "ranges": Parameter(
                str, "of int8 and uint8, a JSON list: lowest and highest, numbers or lists of them"
            ),
        },
    )


def _classification(manifest: Manifest) -> Surface:
    scores = TensorSpec(FP32, (len(manifest.labels),), "of every label, in the model's order")
    return Surface(
        _TEXT,
        {**_PAIR, **_TOKENS},
        {**_LABELLED, "scores": scores},
        _COUNTS,
        {**WAITING, **READING, "top_k": _TOP, "score_function": _SCORES},
    )


def _zero_shot(_manifest: Manifest) -> Surface:
    scores = TensorSpec(FP32, (ANY,), "of every label, in the order of the labels")
    return Surface(
        {**_TEXT, **_LABELS},
        {**_PAIR, **_TOKENS},
        {**_LABELLED, "scores": scores},
        _COUNTS,
        {
            **WAITING,
            **READING,
            "top_k": _TOP,
            "score_function": _SCORES,
            LABELS: Parameter(str, "a JSON list, instead of the input labels"),
            "hypothesis_template": Parameter(str, "with {} where the label goes"),
            "multi_label": Parameter(bool, "whether each label is judged by itself"),
        },
    )


def _ranking(_manifest: Manifest) -> Surface:
    function = Parameter(str, _SCORES.meaning, choices=("default", "sigmoid", "none"))
    return Surface(
        _QUERY,
        {**_TEXT, **_PAIR, **_TOKENS},
        {"score": TensorSpec(FP32, (1,), "relevance: the higher the more relevant")},
        _COUNTS,
        {**WAITING, **WINDOWS, **_PROMPT, "score_function": function},
    )


def _tagging(_manifest: Manifest) -> Surface:
    return Surface(
        _TEXT,
        _TOKENS,
        {"entities": TensorSpec(BYTES, (1,), "a JSON list of entities")},
        _COUNTS,
        {
            **WAITING,
            **WINDOWS,
            "aggregation": Parameter(
                str,
                "how tokens become entities; simple by default",
                choices=("none", "simple", "first", "average", "max"),
            ),
            "include_outside": Parameter(bool, "whether to give what is labelled O too"),
        },
    )


def _answering(_manifest: Manifest) -> Surface:
    return Surface(
        _QUESTION,
        {**_TEXT, **_PAIR, **_TOKENS},
        {
            "answer": TensorSpec(BYTES, (ANY,), "the best answers, top_k of them, best first"),
            "score": TensorSpec(FP32, (ANY,), "their probabilities"),
            "start": TensorSpec(INT64, (ANY,), "their first code points in the context"),
            "end": TensorSpec(INT64, (ANY,), "the code points after their last ones"),
        },
        {
            START_BYTE: TensorSpec(INT64, (ANY,), "their first bytes in the context's UTF-8"),
            END_BYTE: TensorSpec(INT64, (ANY,), "the bytes after their last ones"),
            **_COUNTS,
        },
        {
            **WAITING,
            **WINDOWS,
            "top_k": _TOP,
            "max_answer_tokens": Parameter(int, "longest answer; 15 by default", least=1),
            "allow_no_answer": Parameter(bool, "whether the absence of an answer competes"),
        },
    )


def _filling(_manifest: Manifest) -> Surface:
    return Surface(
        _TEXT,
        _TOKENS,
        {"masks": TensorSpec(BYTES, (1,), "a JSON list of masks with what fits them")},
        {
            SPARSE_INDICES: TensorSpec(
                INT64, (ANY,), "tokens that SPLADE gives weights, ascending, then zeros"
            ),
            SPARSE_VALUES: TensorSpec(FP32, (ANY,), "their weights, then zeros"),
            **_COUNTS,
        },
        {
            **WAITING,
            **READING,
            "prompt_name": Parameter(str, "of sparse vectors, a prompt of the model"),
            "max_active_dims": Parameter(int, "of sparse vectors, weights to keep", least=1),
            "top_k": Parameter(int, "tokens for each mask, best first; 5 by default", least=1),
            "targets": Parameter(str, "a JSON list of single tokens to choose from"),
        },
    )


_BY_TASK = {
    "feature-extraction": _embedding,
    "text-classification": _classification,
    "zero-shot-classification": _zero_shot,
    "text-ranking": _ranking,
    "token-classification": _tagging,
    "question-answering": _answering,
    "fill-mask": _filling,
}
TASKS: tuple[Task, ...] = tuple(_BY_TASK)  # type: ignore[arg-type]


def surface_of(manifest: Manifest) -> Surface:
    """The surface of a model."""
    return _BY_TASK[manifest.task](manifest)
