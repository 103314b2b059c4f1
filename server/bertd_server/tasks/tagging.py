"""token-classification: entities, put together from tokens as transformers' pipelines do.

::

    tokens with probabilities ──words?──> labelled pieces ──group──> entities
                                 first, average, max: one label for each word
                                 none, simple: one for each token

Words are the tokenizer's own. Where the pipeline gives an entity the blank before it, or calls a
blank an entity, entities here begin and end with a character; those of words are disjoint.

All stages are iterators, which hand on a None after some tokens: there the work may pause.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from bertd import bundle
from bertd.bundle import heads
from bertd.bundle.arrays import Float32Array, Int64Array
from bertd.bundle.tags import Tag, begins, read
from tokenizers import Tokenizer

from bertd_server.engine.engine import GraphOutputs
from bertd_server.models.model import Model
from bertd_server.scheduling.executor import Steps
from bertd_server.tasks.ask import NO_DEADLINE, CallContext, Reply, TaskQuery, ask, require
from bertd_server.tasks.windows import merged
from bertd_server.tokenization.details import NONE
from bertd_server.tokenization.reader import FIT, Fit, Input, Reading

Aggregation = Literal["none", "simple", "first", "average", "max"]

_ENTITY_BYTES = 36  # of a token with its label, score and offsets
_TOKENS = 64  # between two pauses: some tenths of a ms
_METASPACE = "▁"
_JOINERS = "\u200c\u200d"  # zero width, inside words and emoji
# With those that SentencePiece's normalisation makes spaces of. No space is above U+3000: to look
# at all characters would take 50 ms of a start.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\ufeff"


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity, or a token where nothing is aggregated.

    Attributes:
        label: where tokens are aggregated the name alone, without the "B" of "B-PER".
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
    """A token, or a word of several.

    Attributes:
        scores: of each label.
        stretch: the code points that the tokenizer gives it.
        start: its first character.
        end: after its last one; equal to `start` if it has none but blanks.
        word: as it is written.
        goes_on: with the word that the piece before it belongs to.
    """

    scores: Float32Array
    stretch: tuple[int, int]
    start: int
    end: int
    word: str
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A piece with its label."""

    label: str
    tag: Tag
    score: float
    piece: _Piece


@dataclass(frozen=True, slots=True)
class _Labels:
    """The labels of a model, and what each says."""

    names: Sequence[str]
    tags: Sequence[Tag]

    def best(self, piece: _Piece | None) -> _Labelled | None:
        """A piece with its most probable label; a pause stays one."""
        if piece is None:
            return None
        best = int(piece.scores.argmax())
        return _Labelled(self.names[best], self.tags[best], float(piece.scores[best]), piece)


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

    names = model.manifest.labels
    labels = _Labels(names, [read(name, model.manifest.label_scheme) for name in names])

    def conclude(reading: Reading, outputs: list[GraphOutputs]) -> Steps[list[Entity]]:
        places, logits = yield from merged(reading, outputs, bundle.LOGITS)
        pieces = _pieces(model.tokenizer, reading, places, logits)
        found: list[Entity] = []
        for one in _entities(model.tokenizer, pieces, labels, aggregation, outside=include_outside):
            if one is None:
                yield
            else:
                found.append(one)
        return found

    # Where each token is given, so many are known; else there are fewer.
    each = _ENTITY_BYTES if include_outside and aggregation == "none" else 0
    query = TaskQuery((bundle.LOGITS,), conclude, offsets=True, token_bytes=each)
    return await ask(model, texts, fit, caller, query)


def _pieces(
    tokenizer: Tokenizer, reading: Reading, places: Int64Array, logits: Float32Array
) -> Iterator[_Piece | None]:
    """The tokens that the text itself has."""
    encoding = reading.encoding
    text = reading.source
    special, offsets = encoding.special.tolist(), encoding.offsets.tolist()
    ids, words = encoding.ids.tolist(), encoding.words.tolist()
    unknown = _unknown(tokenizer)
    word = NONE  # that the last token belongs to
    written, last = False, 0  # whether it has a character yet, and after its last one
    torn = False  # whether a mark on a letter was taken for a word
    scores = logits
    for row, place in enumerate(places.tolist()):
        if not row % _TOKENS:
            yield None
            scores = heads.softmax(logits[row : row + _TOKENS])
        if special[place]:
            continue
        begin, stop = offsets[place]
        token = tokenizer.id_to_token(ids[place]) or ""
        if ids[place] == unknown:
            token = text[begin:stop]
        start, end = _characters(text, begin, stop, token)
        # Of a tokenizer that splits no words, what begins with a blank begins one.
        goes_on = words[place] == word and not (written and text[begin:stop][:1].isspace())
        if not goes_on and last == start < end:  # byte-level ones split at such marks
            marked = _is_mark(text[start])
            torn = marked or (torn and text[start].isalpha())
            goes_on = torn and written
        elif not goes_on:
            torn = False
        word = words[place]
        written = start < end or (goes_on and written)
        last = end if start < end else last
        yield _Piece(scores[row % _TOKENS], (begin, stop), start, end, token, goes_on)


def _characters(text: str, begin: int, stop: int, token: str) -> tuple[int, int]:
    """What a token covers without the blanks at its ends; nothing if it is but a word's mark.

    A word's mark alone has the offsets of the blank that it stands for, or of what follows it.
    """
    stretch = text[begin:stop]
    if not token.strip(_METASPACE) and token != stretch:
        return stop, stop
    start = stop - len(stretch.lstrip(_BLANKS))
    return start, max(start, begin + len(stretch.rstrip(_BLANKS)))


def _is_mark(character: str) -> bool:
    """Whether it stands on, or ties together, the letters beside it."""
    return unicodedata.category(character)[0] == "M" or character in _JOINERS


def _unknown(tokenizer: Tokenizer) -> int | None:
    """Id of the token for what the vocabulary lacks; None if there is none.

    A Unigram model does not tell, and a byte-level one has a token for texts that spell it out:
    then it is the one that transformers' tokenizers of such models know.
    """
    named = getattr(tokenizer.model, "unk_token", None)
    ids = (tokenizer.token_to_id(name) for name in ([named] if named else ("<unk>", "[UNK]")))
    return next((id_ for id_ in ids if id_ is not None), None)


def _entities(
    tokenizer: Tokenizer,
    pieces: Iterable[_Piece | None],
    labels: _Labels,
    aggregation: Aggregation,
    *,
    outside: bool,
) -> Iterator[Entity | None]:
    if aggregation == "none":
        for one in map(labels.best, pieces):
            if one is None:
                yield None
            elif outside or one.tag.role != "outside":
                yield Entity(one.label, one.score, *one.piece.stretch, one.piece.word)
        return
    if aggregation != "simple":
        pieces = _apart(_words(tokenizer, pieces, aggregation))
    for group in _groups(map(labels.best, pieces)):
        if group is None:
            yield None
        elif outside or group[0].tag.role != "outside":
            entity = _joined(tokenizer, group)
            if entity.start < entity.end:
                yield entity


def _words(
    tokenizer: Tokenizer, pieces: Iterable[_Piece | None], aggregation: Aggregation
) -> Iterator[_Piece | None]:
    word: list[_Piece] = []
    for piece in pieces:
        if piece is None:
            yield None
            continue
        if word and not piece.goes_on:
            yield _as_piece(tokenizer, word, aggregation)
            word = []
        word.append(piece)
    if word:
        yield _as_piece(tokenizer, word, aggregation)


def _as_piece(tokenizer: Tokenizer, word: Sequence[_Piece], aggregation: Aggregation) -> _Piece:
    """A word of several tokens."""
    if aggregation == "first":
        scores = word[0].scores
    elif aggregation == "max":
        scores = max((piece.scores for piece in word), key=lambda each: float(each.max()))
    else:
        scores = np.mean([piece.scores for piece in word], axis=0, dtype=np.float32)
    start, end = _extent(word)
    text = written(tokenizer, [piece.word for piece in word])
    return _Piece(scores, (start, end), start, end, text)


def _apart(words: Iterable[_Piece | None]) -> Iterator[_Piece | None]:
    """Words that do not overlap, none of blanks: of a character of several, the first has it."""
    last = 0
    for word in words:
        if word is None:
            yield None
        elif word.start < word.end > last:
            yield replace(word, start=max(word.start, last))
            last = word.end


def _groups(labelled: Iterable[_Labelled | None]) -> Iterator[list[_Labelled] | None]:
    """Neighbours of one entity."""
    group: list[_Labelled] = []
    for one in labelled:
        if one is None:
            yield None
            continue
        if group and begins(one.tag, group[-1].tag) and not _repeats(one, group[-1]):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _repeats(one: _Labelled, before: _Labelled) -> bool:
    """Whether a token has the "S" or "E" of its whole word, which the token before had too."""
    return one.piece.goes_on and one.tag == before.tag and one.tag.role in ("end", "single")


def _joined(tokenizer: Tokenizer, group: Sequence[_Labelled]) -> Entity:
    start, end = _extent([one.piece for one in group])
    return Entity(
        label=group[0].label if group[0].tag.role == "outside" else group[0].tag.name,
        score=float(np.mean([one.score for one in group])),
        start=start,
        end=end,
        word=written(tokenizer, [one.piece.word for one in group]),
    )


def _extent(pieces: Sequence[_Piece]) -> tuple[int, int]:
    """From the first character of pieces to after their last; empty if they have none."""
    filled = [piece for piece in pieces if piece.start < piece.end] or pieces[:1]
    return filled[0].start, filled[-1].end


def written(tokenizer: Tokenizer, tokens: Sequence[str]) -> str:
    """Tokens as text, as transformers' `convert_tokens_to_string` has it."""
    if tokenizer.decoder is None:
        return " ".join(tokens)
    text: str = tokenizer.decoder.decode(list(tokens))
    return text
