"""Entries counted on the wire: what is refused there, and that nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from bertd.oip import grpc_service_pb2 as oip
from bertd.v1 import inference_pb2 as pb
from bertd_server.errors import InvalidInput
from bertd_server.rpc.interceptors import entries
from bertd_server.rpc.interceptors.entries import (
    LEAST_BYTES,
    MOST_FIELDS,
    check_entries,
    pieces,
)

LONG = "a" * LEAST_BYTES


def tensors(**contents: Any) -> oip.ModelInferRequest:
    """A request of three tensors with the same contents."""
    one = oip.ModelInferRequest.InferInputTensor(
        name="a", shape=[1, 2], contents=oip.InferTensorContents(**contents)
    )
    return oip.ModelInferRequest(model_name=LONG, inputs=[one] * 3)


@pytest.mark.parametrize(
    ("request_", "field", "limit"),
    [
        (pb.EmbedRequest(texts=[LONG] * 8), "", 0),
        (pb.EmbedRequest(texts=[""] * 4_000_000), "texts", 8),
        (pb.EmbedRequest(model=LONG, texts=[""] * 9), "texts", 8),
        (pb.EmbedRequest(texts=[LONG], ranges=pb.VectorRanges(lowest=[0.5] * 1_000)), "", 0),
        (pb.ClassifyRequest(inputs=[pb.TextInput(text=LONG)] * 9), "inputs", 8),
        (pb.FillMaskRequest(texts=[LONG], targets=["a"] * 1_000), "", 0),
        (pb.FillMaskRequest(texts=[LONG], targets=["a"] * 1_001), "targets", 1_000),
        (
            pb.DetokenizeRequest(sequences=[pb.TokenIds(ids=range(500_000))] * 2),
            "",
            0,
        ),
        (
            pb.DetokenizeRequest(sequences=[pb.TokenIds(ids=[300] * 500_001)] * 2),
            "sequences.ids",
            1_000_000,
        ),
        (tensors(int64_contents=range(30_000), bytes_contents=[b"a"] * 10), "", 0),
        (tensors(int64_contents=[1] * 400_000), "inputs.contents.int64_contents", 1_000_000),
        (tensors(fp32_contents=[1.0] * 400_000), "inputs.contents.fp32_contents", 1_000_000),
        (tensors(bytes_contents=[b""] * 11), "inputs.contents.bytes_contents", 32),
    ],
)
def test_what_has_too_many_entries_is_refused_by_name(
    request_: Any, field: str, limit: int
) -> None:
    """Of a call that may have 8 texts; what may have more has its own limit."""
    data = request_.SerializeToString()
    assert len(data) > LEAST_BYTES
    if not field:
        check_entries(data, request_.DESCRIPTOR, 8)
        return
    with pytest.raises(InvalidInput, match=f"^{field} has more than {limit} .* split it") as caught:
        check_entries(data, request_.DESCRIPTOR, 8)
    assert (caught.value.field, caught.value.limit) == (field, limit)
    assert caught.value.reason == "too_many"


def test_the_first_entry_beyond_the_limit_ends_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of millions is refused after as many as a call may have."""
    counts = []

    class Counting(entries._Count):
        def message(self, *given: Any) -> None:
            counts.append(self)
            super().message(*given)

    monkeypatch.setattr(entries, "_Count", Counting)
    data = pb.EmbedRequest(texts=[""] * 4_000_000).SerializeToString()
    with pytest.raises(InvalidInput):
        check_entries(data, pb.EmbedRequest.DESCRIPTOR, 256)
    assert counts[0].fields == 257


def test_fields_that_nobody_knows_are_bounded_too() -> None:
    """They are kept, and a walk over millions of them would hold the event loop up."""
    unknown = b"\xf8\x07\x01"  # field 127 is 1
    check_entries(unknown * MOST_FIELDS, pb.EmbedRequest.DESCRIPTOR, 8)
    with pytest.raises(InvalidInput, match=f"has more than {MOST_FIELDS} fields"):
        check_entries(unknown * (MOST_FIELDS + 1), pb.EmbedRequest.DESCRIPTOR, 8)
    with pytest.raises(InvalidInput, match="texts has more than"):
        check_entries(b"\x12\x00" * 40_000, pb.EmbedRequest.DESCRIPTOR)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" * (LEAST_BYTES + 1),
        b"\x12\xff\xff\xff\x7f" + b"a" * LEAST_BYTES,
        b"\x0f" * (LEAST_BYTES + 1),
        b"\x12" + b"\xff" * LEAST_BYTES,
    ],
)
def test_what_is_no_message_is_left_to_who_decodes(data: bytes) -> None:
    """However long its numbers are."""
    check_entries(data, pb.EmbedRequest.DESCRIPTOR, 8)


@pytest.mark.parametrize("size", [1, 100, LEAST_BYTES, 10 * LEAST_BYTES])
def test_pieces_merge_into_the_whole(size: int) -> None:
    """Whatever their size; each holds whole fields alone."""
    whole = pb.EmbedRequest(
        model="m", texts=["a", LONG, "", "b" * 90] * 3, stride=7, ranges=pb.VectorRanges(lowest=[1])
    )
    data, made = whole.SerializeToString(), pb.EmbedRequest()
    parts = list(pieces(data, size))
    assert b"".join(parts) == data
    assert (len(parts) == 1) == (len(data) <= size)
    for part in parts:
        made.MergeFromString(part)
    assert made == whole


def test_pieces_of_what_is_no_message_are_all_of_it() -> None:
    data = pb.EmbedRequest(texts=[LONG]).SerializeToString()[:-1] + b"\xff"
    assert b"".join(pieces(data + b"\xff" * 20, 100)) == data + b"\xff" * 20
