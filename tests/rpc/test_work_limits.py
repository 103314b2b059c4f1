"""What one legal request may cause is bounded before anything of it is built or computed.

Each refusal names the field, the count, the limit and the remedy; the server has computed nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as oip
from bertd.oip import grpc_service_pb2_grpc as oip_grpc
from bertd.tei.v1 import tei_pb2 as tei
from bertd.tei.v1 import tei_pb2_grpc as tei_grpc
from bertd.v1 import inference_pb2 as pb
from bertd.v1 import inference_pb2_grpc
from bertd_client import Client, InvalidArgument
from bertd_client.errors import BertdError, from_rpc_error
from helpers.running import RunningServer, quick_settings

WINDOW = pb.LONG_TEXT_POLICY_WINDOW
TRUNCATE = pb.LONG_TEXT_POLICY_TRUNCATE
MESSAGE = 32 * 1024
TOKENS = 600


@pytest.fixture(scope="module")
def small(task_bundle: Callable[[Task], Path]) -> Iterator[RunningServer]:
    """A server of embeddings that gives little to a request."""
    running = RunningServer(
        task_bundle("feature-extraction"),
        quick_settings(max_message_bytes=MESSAGE, max_request_tokens=TOKENS),
    )
    yield running
    running.stop()


def stub(running: RunningServer, kind: Any = inference_pb2_grpc.InferenceServiceStub) -> Any:
    return kind(grpc.insecure_channel(running.address))


def refused(running: RunningServer, call: Callable[[], object], *words: str) -> BertdError:
    """The refusal of a call, which has computed nothing."""
    model = running.server.model
    before = model.statistics.answered
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert model.statistics.answered == before
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument), error
    for word in words:
        assert word in error.message
    return error


def fields(error: BertdError) -> list[str]:
    return [violation.field for violation in error.violations]


def test_windows_of_a_request_are_counted_before_they_are_built(
    task_server: Callable[[Task], RunningServer],
) -> None:
    """64 short texts with a large stride would be tens of thousands of windows."""
    running = task_server("feature-extraction")
    limit = running.server.model.manifest.max_tokens
    request = pb.EmbedRequest(texts=["a " * 700] * 64, long_text=WINDOW, stride=limit - 3)
    each = (700 - (limit - 3)) * limit
    over = -(-262_144 // each)  # texts with which it is too much
    error = refused(
        running,
        lambda: stub(running).Embed(request),
        f"up to texts[{over - 1 + (over * each <= 262_144)}] have at least",
        "a request may have 262144",
        "make stride smaller",
        "--max-request-tokens",
    )
    assert (error.reason, fields(error)) == ("TOO_MANY", ["texts"])
    stream = list(stub(running).EmbedStream(iter([request])))
    assert "a request may have 262144" in stream[0].results[0].error.message


def test_our_client_splits_what_is_too_much_for_one_request(small: RunningServer) -> None:
    """By tokens and by bytes of answer; one that is too much by itself has its own error."""
    texts = [f"{'cat ' * 30} {number}" for number in range(40)]
    with Client(small.address) as client:
        together = client.embed(texts)
        with Client(small.address, inputs_per_call=1) as alone:
            np.testing.assert_array_equal(together, alone.embed(texts))
        vectors = client.embed_tokens(texts)
        assert [len(one.text_tokens) for one in vectors] == [33] * len(texts) or all(vectors)
        long = "cat " * 2_000
        *good, wrong = client.embed_each([*texts[:9], long], long_text="window")
    assert not any(isinstance(one, BertdError) for one in good)
    assert isinstance(wrong, InvalidArgument)
    assert (wrong.reason, wrong.index) == ("TOO_LONG", 9)
    assert f"tokens to read, those of each window counted, and a request may have {TOKENS}" in str(
        wrong
    )


def test_an_answer_is_refused_for_its_bytes_before_it_is_computed(small: RunningServer) -> None:
    """Of the same texts in each protocol: 16 of them as vectors of tokens."""
    words = f"a request may have {MESSAGE}", "bytes of answer", "--max-message-bytes"
    texts = ["cat " * 30] * 15
    error = refused(
        small, lambda: stub(small).EmbedTokens(pb.EmbedTokensRequest(texts=texts)), *words
    )
    assert (error.reason, fields(error)) == ("TOO_MANY", ["texts"])
    named = small.server.model.name
    request = oip.ModelInferRequest(model_name=named)
    request.inputs.add(name="text", datatype="BYTES", shape=[15, 1]).contents.bytes_contents.extend(
        text.encode() for text in texts
    )
    request.outputs.add(name="token_embeddings")
    infer = stub(small, oip_grpc.GRPCInferenceServiceStub).ModelInfer
    refused(small, lambda: infer(request), *words)
    del request.outputs[:]
    assert infer(request).outputs[0].shape[0] == 15
    inputs = [pb.TextInput(text="cat " * 400)] * 4
    tokenize = pb.TokenizeRequest(inputs=inputs)
    refused(small, lambda: stub(small).Tokenize(tokenize), "up to inputs[2]", *words)
    cat = small.server.model.tokenizer.token_to_id("cat") or 0
    ids = [pb.TokenIds(ids=[cat] * 4_000)] * 3
    detokenize = pb.DetokenizeRequest(sequences=ids)
    refused(small, lambda: stub(small).Detokenize(detokenize), "up to sequences[2]", *words)
    one = tei.EncodeRequest(inputs="cat " * 1_500)
    refused(small, lambda: stub(small, tei_grpc.TokenizeStub).Tokenize(one), "inputs has", *words)


def test_all_token_vectors_of_one_text_may_be_too_much_for_tei(
    task_bundle: Callable[[Task], Path],
) -> None:
    running = RunningServer(
        task_bundle("feature-extraction"), quick_settings(max_message_bytes=1_024)
    )
    try:
        call = stub(running, tei_grpc.EmbedStub).EmbedAll
        request = tei.EmbedAllRequest(inputs="cat " * 30)
        refused(running, lambda: call(request), "inputs has", "a request may have 1024")
        assert len(call(tei.EmbedAllRequest(inputs="cat")).token_embeddings) > 1
    finally:
        running.stop()


def test_labels_are_counted_before_they_are_compared_or_paired(
    task_server: Callable[[Task], RunningServer],
) -> None:
    """256 labels of 16,000 characters; many labels with a long text; a list of them in JSON."""
    running = task_server("zero-shot-classification")
    call = stub(running).ZeroShotClassify
    labels = [f"{number} {'x' * 16_000}" for number in range(256)]
    request = pb.ZeroShotClassifyRequest(texts=["a cat"], labels=labels)
    error = refused(
        running, lambda: call(request), "labels[0] has 16002 characters", "at most 1000 are taken"
    )
    assert (error.reason, fields(error)) == ("TOO_LONG", ["labels[0]"])
    pairs = pb.ZeroShotClassifyRequest(texts=["cat " * 5_000], labels=[str(n) for n in range(250)])
    error = refused(running, lambda: call(pairs), "characters, and a call takes at most 4000000")
    assert (error.reason, fields(error)) == ("TOO_MANY", ["texts"])
    twice = pb.ZeroShotClassifyRequest(texts=["a cat"], labels=["dog", "cat", "dog"])
    refused(running, lambda: call(twice), "labels[2] is 'dog', which is there already")
    infer = oip.ModelInferRequest(model_name=running.server.model.name)
    infer.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a")
    infer.parameters["labels"].string_param = json.dumps(labels)
    v2 = stub(running, oip_grpc.GRPCInferenceServiceStub).ModelInfer
    refused(running, lambda: v2(infer), "parameter labels has", "at most 500000 are taken")


def test_a_long_query_is_not_read_again_with_hundreds_of_documents(
    task_server: Callable[[Task], RunningServer],
) -> None:
    running = task_server("text-ranking")
    request = pb.RerankRequest(query="cat " * 20_000, documents=["dog"] * 60, long_text=TRUNCATE)
    words = "query is read with each of 60 documents", "4720000 characters", "4000000"
    error = refused(running, lambda: stub(running).Rerank(request), *words)
    assert (error.reason, fields(error)) == ("TOO_MANY", ["documents"])
    texts = tei.RerankRequest(query=request.query, texts=request.documents, truncate=True)
    refused(running, lambda: stub(running, tei_grpc.RerankStub).Rerank(texts), "60 texts")


def test_stretches_of_contexts_are_counted_before_they_are_scored(
    task_server: Callable[[Task], RunningServer],
) -> None:
    running = task_server("question-answering")
    limit = running.server.model.manifest.max_tokens
    asked = [pb.QuestionInput(question="a", context="b " * 800)] * 4
    request = pb.AnswerRequest(
        inputs=asked, long_text=WINDOW, stride=limit - 5, max_answer_tokens=128
    )
    tokens = 4 * (800 - (limit - 5)) * limit
    assert 262_144 > tokens > 16_777_216 / 128
    error = refused(
        running,
        lambda: stub(running).Answer(request),
        "stretches to score, and a request may have 16777216",
        "max_answer_tokens",
    )
    assert (error.reason, fields(error)) == ("TOO_MANY", ["inputs"])
