"""Tokens of texts, which no model computes: to them, from them, and their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from bertd.v1 import inference_pb2 as pb

from bertd_client.calling import requests
from bertd_client.calling.answered import Stretch, stretch
from bertd_client.calling.asking import BulkRequest, Rpc
from bertd_client.calling.options import CallOptions
from bertd_client.calling.responses import ReadResponse, each, plain


class TokenizeOptions(CallOptions, total=False):
    """Of ``tokenize``, where they are on by default, and of ``detokenize``, where they are off."""

    special_tokens: bool
    """Whether special tokens, such as [CLS], are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Stretch):
    """A token and where it stands in its text."""

    id: int
    """Its id in the vocabulary."""
    token: str
    """As the vocabulary writes it."""
    special: bool
    """Whether the tokenizer added it, such as [CLS]."""


def read_token(token: pb.Token) -> Token:
    """Reads a token."""
    return Token(id=token.id, token=token.token, special=token.special, **stretch(token.offsets))


def _tokens(result: pb.TokenizeResult, _: object) -> tuple[Token, ...]:
    return tuple(map(read_token, result.tokens))


_COUNTS: ReadResponse[int] = plain("counts")
_TEXTS: ReadResponse[str] = plain("texts")
_TOKENIZE = Rpc(
    "tokenize",
    pb.TokenizeRequest,
    "inputs",
    TokenizeOptions,
    requests.texts_or_pairs,
    each(_tokens),
)
_COUNT_TOKENS = Rpc(
    "count_tokens", pb.CountTokensRequest, "inputs", CallOptions, requests.texts_or_pairs, _COUNTS
)
_DETOKENIZE = Rpc(
    "detokenize", pb.DetokenizeRequest, "sequences", TokenizeOptions, requests.token_ids, _TEXTS
)


def tokenize(
    inputs: Sequence[str | tuple[str, str]], **options: Unpack[TokenizeOptions]
) -> BulkRequest[tuple[Token, ...]]:
    """Turns texts or pairs into tokens, as the model reads them; none is cut off."""
    without = not options.get("special_tokens", True)
    return _TOKENIZE.bulk(inputs, options, without_special_tokens=without)


def count_tokens(
    inputs: Sequence[str | tuple[str, str]], **options: Unpack[CallOptions]
) -> BulkRequest[int]:
    """Counts the tokens of texts or pairs, special tokens included."""
    return _COUNT_TOKENS.bulk(inputs, options)


def detokenize(
    sequences: Sequence[Sequence[int]], **options: Unpack[TokenizeOptions]
) -> BulkRequest[str]:
    """Writes token ids as texts."""
    with_ = options.get("special_tokens", False)
    return _DETOKENIZE.bulk(sequences, options, with_special_tokens=with_)
