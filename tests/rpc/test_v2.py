"""The Open Inference Protocol, driven by Triton's own client, sync, aio and streaming."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as pb
from bertd.oip import model_config_pb2
from helpers.patience import PATIENCE
from helpers.v2_served import MOST, TASKS, TEXTS, Served, inputs
from tritonclient.utils import InferenceServerException


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_asked_as_its_metadata_says(at: Callable[[Task], Served], task: Task) -> None:
    """What is listed is what load generators send and ask for, in the shapes that it says."""
    served = at(task)
    metadata = served.triton.get_model_metadata("tiny", as_json=True)
    config = served.triton.get_model_config("tiny").config
    assert (config.name, config.max_batch_size, metadata["versions"]) == ("tiny", MOST, ["1"])
    assert config.parameters["task"].string_value == task
    assert not config.model_transaction_policy.decoupled
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    for listed, described in (
        (metadata["inputs"], config.input),
        (metadata["outputs"], config.output),
    ):
        assert [one["name"] for one in listed] == [one.name for one in described]
        for one, same in zip(listed, described, strict=True):
            assert [int(axis) for axis in one["shape"]] == [-1, *same.dims]
            kind = one["datatype"].replace("BYTES", "STRING")
            assert model_config_pb2.DataType.Name(same.data_type) == f"TYPE_{kind}"
    filler = "the [MASK]" if task == "fill-mask" else "the cat"
    tensors = {
        one["name"]: np.full(
            [2, *(abs(int(axis)) for axis in one["shape"][1:])], filler.encode(), object
        )
        for one in metadata["inputs"]
    }
    wanted = [triton.InferRequestedOutput(one["name"]) for one in metadata["outputs"]]
    result = served.triton.infer("tiny", inputs(tensors), outputs=wanted, request_id="7")
    assert result.get_response().id == "7"
    for one in metadata["outputs"]:
        shape = result.as_numpy(one["name"]).shape
        assert len(shape) == len(one["shape"])
        assert shape[0] == 2
        assert all(int(axis) in (-1, size) for axis, size in zip(one["shape"], shape, strict=True))
    extra = json.loads(config.parameters["optional_outputs"].string_value)
    more = served.triton.infer(
        "tiny", inputs(tensors), outputs=[triton.InferRequestedOutput(name) for name in extra]
    )
    for name, slot in extra.items():
        array = more.as_numpy(name)
        assert array.ndim == len(slot["shape"])
        assert str(array.dtype).upper().replace("FLOAT", "FP") == slot["datatype"]


def test_priority_and_timeout_are_honoured(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    expected = served.infer({"text": TEXTS})("sentence_embedding")
    for options in ({"priority": 1}, {"priority": 9}, {"timeout": 60_000_000}):
        assert (served.infer({"text": TEXTS}, **options)("sentence_embedding") == expected).all()
    with pytest.raises(InferenceServerException, match=r"deadline|time") as caught:
        served.infer({"text": TEXTS}, timeout=1)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def deadlines_of(served: Served, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list to which each computation of the model adds its deadline."""
    model = served.server.server.model
    compute, deadlines = model.compute, []

    async def watched(*given: Any) -> Any:
        deadlines.append(given[1])
        return await compute(*given)

    monkeypatch.setattr(model, "compute", watched)
    return deadlines


@pytest.mark.parametrize(("parameter", "deadline"), [(30, 60), (60, 30)])
def test_the_earlier_of_the_timeout_and_the_grpc_deadline_counts(
    at: Callable[[Task], Served], monkeypatch: pytest.MonkeyPatch, parameter: int, deadline: int
) -> None:
    served = at("feature-extraction")
    deadlines = deadlines_of(served, monkeypatch)
    called = time.monotonic()
    served.infer({"text": TEXTS}, timeout=parameter * 1_000_000, client_timeout=deadline)
    (kept,) = deadlines
    # gRPC sends the time that is left, in units that lose up to a thousandth of it.
    assert called + 29.9 <= kept <= time.monotonic() + 30.1


def test_a_timeout_is_of_the_request_however_often_the_model_is_asked_for_it(
    at: Callable[[Task], Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of texts and of tokens are computed one after the other, by one deadline."""
    served = at("feature-extraction")
    deadlines = deadlines_of(served, monkeypatch)
    arrived = time.monotonic()
    names = ("sentence_embedding", "token_embeddings")
    served.infer({"text": TEXTS}, *names, timeout=60_000_000)
    first, second = deadlines
    assert first == second
    assert arrived + 60 <= first <= time.monotonic() + 60


def test_a_stream_answers_each_request_in_order_and_survives_errors(
    at: Callable[[Task], Served],
) -> None:
    """As clients of decoupled models read it: until the final response of each request."""
    served = at("feature-extraction")
    expected = served.infer({"text": TEXTS})("sentence_embedding")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(served.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            text = "" if number == 5 else TEXTS[number % 3]
            client.async_stream_infer(
                "tiny",
                inputs({"text": [text]}),
                request_id=str(number),
                enable_empty_final_response=True,
            )
        for number in range(20):
            result, error = answers.get(timeout=PATIENCE)
            if number == 5:
                assert "text[0] is empty" in error.message()
                continue
            assert error is None
            response = result.get_response()
            assert response.id == str(number)
            assert response.parameters["triton_final_response"].bool_param
            assert (result.as_numpy("sentence_embedding")[0] == expected[number % 3]).all()
        client.stop_stream()


def test_an_error_is_the_status_of_a_stream_that_asks_for_it(at: Callable[[Task], Served]) -> None:
    """Triton's header; what came before the error is answered, what comes after is not."""
    served = at("feature-extraction")
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(served.address) as client:
        client.start_stream(
            lambda result, error: answers.put((result, error)),
            headers={"triton_grpc_error": "true"},
        )
        for text in ("a", "", "b"):
            client.async_stream_infer("tiny", inputs({"text": [text]}))
        assert answers.get(timeout=PATIENCE)[1] is None
        result, error = answers.get(timeout=PATIENCE)
        assert result is None
        assert error.status() == "StatusCode.INVALID_ARGUMENT"
        assert "text[0] is empty" in error.message()
        client.stop_stream()
    assert answers.empty()


def test_what_sdks_say_of_their_own_encoding_is_left_aside(at: Callable[[Task], Served]) -> None:
    """As KServe's InferInput.set_data_from_numpy and MLServer's codecs write requests."""
    served = at("feature-extraction")
    expected = served.infer({"text": TEXTS})("sentence_embedding")
    request = pb.ModelInferRequest(model_name="tiny")
    request.parameters["binary_data_output"].bool_param = True
    request.parameters["content_type"].string_param = "pd"
    given = request.inputs.add(name="text", datatype="BYTES", shape=[len(TEXTS), 1])
    given.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    given.parameters["binary_data_size"].int64_param = 45
    given.parameters["content_type"].string_param = "str"
    wanted = request.outputs.add(name="sentence_embedding")
    wanted.parameters["binary_data"].bool_param = True
    wanted.parameters["content_type"].string_param = "np"
    (found,) = served.v2.ModelInfer(request).outputs
    assert np.array_equal(np.array(found.contents.fp32_contents, np.float32), expected.ravel())


async def test_the_aio_client_asks_and_streams(at: Callable[[Task], Served]) -> None:
    served = at("text-classification")
    expected = served.infer({"text": TEXTS})("scores")

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number, text in enumerate(TEXTS):
            yield {
                "model_name": "tiny",
                "inputs": inputs({"text": [text]}),
                "request_id": str(number),
            }

    async with triton_aio.InferenceServerClient(served.address) as client:
        assert await client.is_server_live()
        assert await client.is_model_ready("tiny", "1")
        result = await client.infer("tiny", inputs({"text": TEXTS}))
        assert (result.as_numpy("scores") == expected).all()
        count = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None
            assert (result.as_numpy("scores")[0] == expected[count]).all()
            count += 1
        assert count == 3


def test_the_server_and_its_models_describe_themselves(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    client = served.triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("tiny", "2")
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("bertd", "0.1.0")
    assert {"statistics", "model_configuration"} <= set(metadata.extensions)
    (index,) = client.get_model_repository_index().models
    assert (index.name, index.version, index.state) == ("tiny", "1", "READY")
    served.managing.load_model("tiny")
    load = served.managing.load_model
    for call in (client.get_model_metadata, client.get_model_config, load):
        with pytest.raises(InferenceServerException, match="served: tiny") as caught:
            call("nobody")
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_statistics_rise(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    served.infer({"text": ["cat"]})
    before = served.triton.get_inference_statistics("tiny").model_stats[0]
    served.infer({"text": [*TEXTS, "dog"]})
    (after,) = served.triton.get_inference_statistics().model_stats
    assert after.version.isdecimal()
    assert after.inference_count == before.inference_count + 4
    assert after.execution_count > before.execution_count
    assert after.last_inference > 1_600_000_000_000
    ours, theirs = after.inference_stats, before.inference_stats
    assert ours.success.count == theirs.success.count + 1
    assert ours.queue.count == theirs.queue.count + 4
    for stage in ("success", "queue", "compute_input", "compute_infer"):
        assert getattr(ours, stage).ns >= getattr(theirs, stage).ns > 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.get_system_shared_memory_status(), "no shared memory"),
        (lambda client: client.register_system_shared_memory("a", "b", 8), "no shared memory"),
        (lambda client: client.unregister_system_shared_memory(), "no shared memory"),
        (lambda client: client.get_cuda_shared_memory_status(), "no shared memory"),
        (lambda client: client.register_cuda_shared_memory("a", b"", 0, 8), "no shared memory"),
        (lambda client: client.unregister_cuda_shared_memory(), "no shared memory"),
        (lambda client: client.get_trace_settings(), "no trace settings"),
        (lambda client: client.update_log_settings({"log_info": True}), "log settings"),
    ],
)
def test_what_is_not_there_says_so(
    at: Callable[[Task], Served], call: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        call(at("feature-extraction").triton)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.unload_model("tiny"), "cannot be unloaded"),
        (lambda client: client.load_model("tiny", config="{}"), "parameter 'config'"),
    ],
)
def test_what_changes_the_server_is_for_the_management_address(
    at: Callable[[Task], Served], call: Callable[[Any], Any], words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        call(at("feature-extraction").managing)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException, match="management address alone") as caught:
        call(at("feature-extraction").triton)
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
