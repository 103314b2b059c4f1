"""token-classification: entities, put together from tokens as transformers' pipelines do.

::

    tokens with probabilities ──words?──> labelled pieces ──group──> entities
                                 first, average, max: one label for each word
                                 none, simple: one for each token
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from bertd import bundle
from bertd.bundle import heads
from bertd.bundle.arrays import Float32Array
from tokenizers import Tokenizer

from bertd_server.engine.engine import GraphOutputs
from bertd_server.models.model import Model
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.windows import owners
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading

Aggregation = Literal["none", "simple", "first", "average", "max"]

_OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity, or a token where nothing is aggregated.

    Attributes:
        label: without its "B-" or "I-" where tokens are aggregated.
        score: its probability; of several tokens or words, the mean.
        start: first code point in the text.
        end: after the last one.
        word: its tokens, as the tokenizer's decoder writes them.
    """

    label: str
    score: float
    start: int
    end: int
    word: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """A token, or a word of several."""

    scores: Float32Array
    start: int
    end: int
    word: str
    goes_on: bool = False  # with the word that the piece before it belongs to


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A piece with its label."""

    label: str
    score: float
    piece: _Piece


async def tag(  # noqa: PLR0913 - the choices of one call
    model: Model,
    texts: Sequence[Input],
    fit: Fit = FIT,
    caller: CallContext = NO_DEADLINE,
    *,
    aggregation: Aggregation = "simple",
    include_outside: bool = False,
) -> list[Reply[list[Entity]]]:
    """Find the entities of each text, in its order.

    Of windows, each token's label is from the window in which it has more context.

    Args:
        model: for token-classification.
        texts: no pairs.
        fit: what to do with long texts.
        caller: how long they wait.
        aggregation: how tokens become entities.
        include_outside: whether to give what is labelled "O" too.

    Raises:
        RequestError: the call as a whole cannot be answered.
    """
    require(model, "TagTokens", "token-classification")

    def conclude(reading: Reading, outputs: Sequence[GraphOutputs]) -> list[Entity]:
        logits = np.concatenate([each[bundle.LOGITS] for each in outputs])
        places, rows = owners(reading)
        pieces = _pieces(model.tokenizer, reading, places.tolist(), heads.softmax(logits[rows]))
        found = _entities(model.tokenizer, pieces, model.manifest.labels, aggregation)
        return [one for one in found if include_outside or one.label != _OUTSIDE]

    query = TaskQuery((bundle.LOGITS,), conclude, offsets=True)
    return await ask(model, texts, fit, caller, query)


def _pieces(
    tokenizer: Tokenizer, reading: Reading, places: Iterable[int], scores: Float32Array
) -> Iterator[_Piece]:
    """The tokens that the text itself has."""
    encoding = reading.encoding
    text = reading.source
    special, offsets, ids = encoding.special_tokens_mask, encoding.offsets, encoding.ids
    unknown = _unknown(tokenizer)
    knows_words = bool(getattr(tokenizer.model, "continuing_subword_prefix", None))
    for row, place in enumerate(places):
        if special[place]:
            continue
        start, end = offsets[place]
        token = tokenizer.id_to_token(ids[place]) or ""
        if ids[place] == unknown:
            yield _Piece(scores[row], start, end, text[start:end])
        elif knows_words:  # the prefix makes the token longer than what it stands for
            yield _Piece(scores[row], start, end, token, len(token) != end - start)
        else:
            inside = start > 0 and " " not in text[start - 1 : start + 1]
            yield _Piece(scores[row], start, end, token, inside)


def _unknown(tokenizer: Tokenizer) -> int | None:
    """Id of the token for what the vocabulary lacks; None if there is none.

    A Unigram model does not tell, and a byte-level one has a token for texts that spell it out:
    then it is the one that transformers' tokenizers of such models know.
    """
    named = getattr(tokenizer.model, "unk_token", None)
    ids = (tokenizer.token_to_id(name) for name in ([named] if named else ("<unk>", "[UNK]")))
    return next((id_ for id_ in ids if id_ is not None), None)


def _entities(
    tokenizer: Tokenizer, pieces: Iterable[_Piece], labels: Sequence[str], aggregation: Aggregation
) -> list[Entity]:
    if aggregation in {"none", "simple"}:
        labelled = [_label(piece, piece.scores, labels) for piece in pieces]
    else:
        labelled = [_of_word(tokenizer, word, labels, aggregation) for word in _words(pieces)]
    if aggregation == "none":
        return [
            Entity(one.label, one.score, one.piece.start, one.piece.end, one.piece.word)
            for one in labelled
        ]
    return [_joined(tokenizer, group) for group in _groups(labelled)]


def _label(piece: _Piece, scores: Float32Array, labels: Sequence[str]) -> _Labelled:
    best = int(scores.argmax())
    return _Labelled(labels[best], float(scores[best]), piece)


def _words(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    word: list[_Piece] = []
    for piece in pieces:
        if word and not piece.goes_on:
            yield word
            word = []
        word.append(piece)
    if word:
        yield word


def _of_word(
    tokenizer: Tokenizer, word: Sequence[_Piece], labels: Sequence[str], aggregation: Aggregation
) -> _Labelled:
    """One label for a word of several tokens."""
    if aggregation == "first":
        scores = word[0].scores
    elif aggregation == "max":
        scores = max((piece.scores for piece in word), key=lambda each: float(each.max()))
    else:
        scores = np.mean([piece.scores for piece in word], axis=0, dtype=np.float32)
    text = written(tokenizer, [piece.word for piece in word])
    return _label(_Piece(scores, word[0].start, word[-1].end, text), scores, labels)


def _groups(labelled: Iterable[_Labelled]) -> Iterator[list[_Labelled]]:
    """Neighbours of one entity: the same label, and none but the first begins one."""
    group: list[_Labelled] = []
    for one in labelled:
        if group and (one.label.startswith("B-") or _kind(one.label) != _kind(group[-1].label)):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _kind(label: str) -> str:
    """A label without "B-" or "I-"."""
    return label[2:] if label.startswith(("B-", "I-")) else label


def _joined(tokenizer: Tokenizer, group: Sequence[_Labelled]) -> Entity:
    return Entity(
        label=group[0].label.split("-", 1)[-1],
        score=float(np.mean([one.score for one in group])),
        start=group[0].piece.start,
        end=group[-1].piece.end,
        word=written(tokenizer, [one.piece.word for one in group]),
    )


def written(tokenizer: Tokenizer, tokens: Sequence[str]) -> str:
    """Tokens as text, as transformers' `convert_tokens_to_string` has it."""
    if tokenizer.decoder is None:
        return " ".join(tokens)
    text: str = tokenizer.decoder.decode(list(tokens))
    return text
