"""Vectors as sentence-transformers gives them: cut, quantised, sparse; over gRPC and the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.v1 import inference_pb2 as pb
from bertd_client import Client, ServerError
from bertd_client.calling.responses import quantized
from helpers.running import RunningServer
from helpers.sentences import SENTENCES
from helpers.served import OF_TASK, export_tiny
from helpers.servers import Servers
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.util import quantize_embeddings

TEXTS = SENTENCES[:12]
DTYPES = ("float32", "int8", "uint8", "binary", "ubinary")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dimensions", [None, 19])
def test_vectors_are_quantised_as_sentence_transformers_does(
    server: RunningServer, dtype: Any, dimensions: int | None
) -> None:
    """The same bytes from the same float32 vectors, with a range for each dimension and for all."""
    with Client(server.address) as client:
        floats = client.embed(TEXTS, dimensions=dimensions)
        each = np.stack([floats.min(axis=0), floats.max(axis=0)])
        for ranges in (each, np.array([-0.1, 0.1])) if dtype.endswith("int8") else (None,):
            ours = client.embed(TEXTS, dimensions=dimensions, output_dtype=dtype, ranges=ranges)
            whole = ranges if ranges is None else np.broadcast_to(ranges.reshape(2, -1), each.shape)
            theirs: Any = quantize_embeddings(floats, dtype, ranges=whole)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        lone = client.embed(TEXTS[3:4], dimensions=dimensions, output_dtype=dtype, ranges=ranges)
        np.testing.assert_array_equal(lone[0], ours[3])  # whatever else is in its call


def test_fewer_dimensions_are_of_length_one_again(server: RunningServer, checkpoint: Path) -> None:
    """As sentence-transformers cuts, and normalises if it is asked to; all of them are no cut."""
    reference = SentenceTransformer(str(checkpoint), device="cpu")
    expected = reference.encode(TEXTS, truncate_dim=24, normalize_embeddings=True)
    with Client(server.address) as client:
        np.testing.assert_allclose(client.embed(TEXTS, dimensions=24), expected, rtol=0, atol=1e-5)
        whole = client.embed(TEXTS)
        np.testing.assert_array_equal(client.embed(TEXTS, dimensions=384), whole)
        long = [" ".join(TEXTS) * 3]
        one, two = (
            client.embed(long, long_text="window", dimensions=count) for count in (None, 24)
        )
    first = one[:, :24] / np.linalg.norm(one[:, :24])
    np.testing.assert_allclose(two, first, rtol=0, atol=1e-6)


def test_a_model_that_does_not_normalise_is_only_cut(servers: Servers) -> None:
    """The response says what it holds; a stream answers the same."""
    stub = servers.stub("feature-extraction")
    whole = stub.Embed(pb.EmbedRequest(texts=TEXTS[:2]))
    request = pb.EmbedRequest(texts=TEXTS[:2], dimensions=9)
    for response in (stub.Embed(request), *stub.EmbedStream(iter([request]))):
        assert (response.dimensions, response.dtype) == (9, pb.VECTOR_DTYPE_FLOAT32)
        for one, other in zip(response.results, whole.results, strict=True):
            assert one.embedding == other.embedding[: 4 * 9]
    request.output_dtype = pb.VECTOR_DTYPE_UBINARY
    packed = stub.Embed(request)
    assert (packed.dimensions, packed.dtype) == (9, pb.VECTOR_DTYPE_UBINARY)
    assert [len(one.embedding) for one in packed.results] == [2, 2]


def test_an_answer_of_an_older_server_is_float32() -> None:
    """One that does not say as which numbers; one of a newer server's is an error."""
    data = np.arange(3, dtype="<f4").tobytes()
    assert quantized(data, 3, pb.VECTOR_DTYPE_UNSPECIFIED).tolist() == [0, 1, 2]
    for length, dtype in ((4, pb.VECTOR_DTYPE_INT8), (25, pb.VECTOR_DTYPE_BINARY), (12, 99)):
        with pytest.raises(ServerError):
            quantized(data, length, dtype)


def test_sparse_vectors_are_those_of_a_sparse_encoder(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All weights, and the largest of them; ids ascending, one bad text among good ones."""
    source, _ = export_tiny(tmp_path_factory, "bert", "fill-mask", **OF_TASK["fill-mask"])
    reference: Any = SparseEncoder(str(source), device="cpu")
    stub = servers.stub("fill-mask")
    for most in (None, 5):
        expected = reference.encode(
            TEXTS, max_active_dims=most, convert_to_sparse_tensor=False, save_to_cpu=True
        ).numpy()
        response = stub.EmbedSparse(pb.EmbedSparseRequest(texts=[*TEXTS, ""], max_active_dims=most))
        assert response.dimensions == expected.shape[1]
        *results, refused = response.results
        assert refused.error.message.startswith("texts[12] is empty")
        for result, row in zip(results, expected, strict=True):
            indices = list(result.vector.indices)
            assert indices == np.flatnonzero(row).tolist()
            np.testing.assert_allclose(result.vector.values, row[indices], rtol=0, atol=1e-4)
            assert result.tokens.read > 2
    with pytest.raises(grpc.RpcError, match="max_active_dims is 0: ask for "):
        stub.EmbedSparse(pb.EmbedSparseRequest(texts=["a"], max_active_dims=0))
