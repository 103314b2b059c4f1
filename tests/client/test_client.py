"""Both clients against real servers of tiny models: every call, splitting, order, balancing."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bertd.bundle import Task
from bertd.v1 import inference_pb2
from bertd_client import (
    AsyncClient,
    BertdError,
    Client,
    Embedding,
    InvalidArgument,
    NotFound,
    Ranked,
    WrongTask,
)
from bertd_client.connection.channel import INFERENCE, target
from helpers.paths import ROOT
from helpers.patience import PATIENCE
from helpers.rpcs import CALLS, PERSON, Asked
from helpers.running import LABELS, RunningServer, quick_settings
from helpers.tiny import WORDS

Started = Callable[[Task], RunningServer]

TIMES = {"tokenize_s", "queue_s", "compute_s", "total_s", "batch_sequences", "batch_tokens"}


def told(outcome: Any) -> Any:
    """What does not differ from run to run."""
    if isinstance(outcome, BertdError):
        return (type(outcome), outcome.code, outcome.message, outcome.index)
    if isinstance(outcome, np.ndarray):
        return outcome.tobytes()
    if dataclasses.is_dataclass(outcome):
        names = [field.name for field in dataclasses.fields(outcome) if field.name not in TIMES]
        return [told(getattr(outcome, name)) for name in names]
    return outcome


@pytest.mark.parametrize("asked", CALLS, ids=lambda asked: asked.method)
async def test_both_clients_ask_every_task(asked: Asked, task_server: Started) -> None:
    """The same answers, and the error of an input beside the answers of the others."""
    address = task_server(asked.task).address
    with Client(address) as client:
        plain = getattr(client, asked.method)(*asked.arguments, **asked.options)
        each = getattr(client, f"{asked.method}_each")(*asked.arguments, **asked.options)
        mixed = getattr(client, f"{asked.method}_each")(*asked.bad) if asked.bad else []
        if asked.bad:
            with pytest.raises(InvalidArgument) as caught:
                getattr(client, asked.method)(*asked.bad)
            assert caught.value.index == 1
    async with AsyncClient(address) as client_:
        plain_ = await getattr(client_, asked.method)(*asked.arguments, **asked.options)
        mixed_ = await getattr(client_, f"{asked.method}_each")(*asked.bad) if asked.bad else []
    assert len(plain) == len(each) > 0
    if asked.method == "embed":
        each = [one.vector for one in each]
    for one, two, three in zip(plain, plain_, each, strict=True):
        assert told(one) == told(two) == told(three)
    assert [told(one) for one in mixed] == [told(one) for one in mixed_]
    wrong = [one for one in mixed if isinstance(one, BertdError)]
    assert [one.index for one in wrong] == [1] * bool(asked.bad)
    assert len(mixed) == 3 * bool(asked.bad)


def test_results_are_plain_values(task_server: Started) -> None:
    """What each kind of result holds, on one input each."""
    with Client(task_server("feature-extraction").address) as client:
        (tokens,) = client.embed_tokens([PERSON])
        assert tokens.vectors.shape == (tokens.tokens, 32)
        assert [PERSON[one.start : one.end] for one in tokens.text_tokens[4:6]] == ["안녕", "🙂"]
        data = PERSON.encode()
        assert (
            data[tokens.text_tokens[5].start_byte : tokens.text_tokens[5].end_byte] == "🙂".encode()
        )
        long = client.embed_each(["cat " * 100], long_text="window")[0]
        assert isinstance(long, Embedding)
        assert (long.windows, long.tokens, long.truncated_tokens) == (2, 102, 0)
        ids = [token.id for token in client.tokenize(["the cat sat"])[0]]
        assert client.detokenize([ids, ids[1:-1]]) == ["the cat sat"] * 2
        assert client.detokenize([ids], special_tokens=True) == ["[CLS] the cat sat [SEP]"]
        assert client.count_tokens(["the cat sat"]) == [len(ids)]
        assert client.get_model().vocab_size >= 320
    with Client(task_server("zero-shot-classification").address) as client:
        (labels,) = client.classify(["the cat"])
        assert {one.label for one in labels.labels} == set(LABELS["text-classification"])
        assert sum(one.score for one in labels.labels) == pytest.approx(1, abs=1e-5)
        (own,) = client.classify_zero_shot(["the cat"], ["sea", "mat", "dog"])
        assert {one.label for one in own.labels} == {"sea", "mat", "dog"}
        assert client.get_model().labels == LABELS["text-classification"]
    with Client(task_server("token-classification").address) as client:
        (found,) = client.tag([PERSON], aggregation="none", include_outside=True)
        assert [one.text for one in found.entities] == PERSON.split()
        assert {one.label for one in found.entities} <= set(LABELS["token-classification"])
    with Client(task_server("question-answering").address) as client:
        context = "안녕 🙂 the dog sat on a mat"
        (answers,) = client.answer([("the cat", context)], top_k=4)
        assert len(answers.spans) == 4
        assert all(context[one.start : one.end] == one.text for one in answers.spans)
    with Client(task_server("fill-mask").address) as client:
        mask = client.get_model().mask_token
        (filled,) = client.fill_mask([f"the {mask} sat on a {mask}"], top_k=3)
        assert [len(one.candidates) for one in filled.masks] == [3, 3]
        assert filled.masks[0].start == 4


def test_the_twins_have_the_same_methods() -> None:
    """Names, parameters and results; one awaits."""

    def methods(client: type) -> dict[str, tuple[str, str]]:
        found = inspect.getmembers(client, inspect.isfunction)
        return {
            name: (str(inspect.signature(one)), inspect.getdoc(one) or "")
            for name, one in found
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)
    for asked in CALLS:
        assert {asked.method, f"{asked.method}_each"} <= methods(Client).keys()


def test_generated_methods_are_fresh(tmp_path: Path) -> None:
    """`make protos` would change nothing."""
    folder = ROOT / "client"
    subprocess.run([sys.executable, str(folder / "generate.py"), str(tmp_path)], check=True)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["methods.py", "results.py"]
    for name in made:
        assert (folder / "bertd_client" / name).read_text() == (tmp_path / name).read_text(), name


@pytest.fixture(scope="module")
def narrow(task_bundle: Callable[[Task], Path]) -> Iterator[RunningServer]:
    """A server that takes four texts in a call."""
    folder = task_bundle("zero-shot-classification")
    running = RunningServer(folder, quick_settings(max_texts_per_call=4))
    yield running
    running.stop()


async def test_a_large_input_is_split_as_the_server_needs_it(narrow: RunningServer) -> None:
    """However it is split, the answers are the same, in order; errors name their own places."""
    asked = [f"{one} {two}" for one in WORDS[:12] for two in WORDS[:2]]
    asked[9] = asked[17] = ""
    asked[20] = "\ud800"
    with Client(narrow.address) as client:
        split = [told(one) for one in client.classify_each(asked)]
        pairs = client.classify_zero_shot(asked[:5], ["cat", "dog"], multi_label=True)
    async with AsyncClient(narrow.address, inputs_per_call=3, concurrency=2) as client_:
        assert [told(one) for one in await client_.classify_each(asked)] == split
    with Client(narrow.address, bytes_per_call=1) as client:  # one by one
        assert [told(one) for one in client.classify_each(asked)] == split
    wrong = {index: one for index, one in enumerate(split) if isinstance(one, tuple)}
    assert list(wrong) == [9, 17, 20]
    for index, (kind, _, message, place) in wrong.items():
        assert kind is InvalidArgument
        assert place == index
        assert f"inputs[{index}].text" in message or "lone surrogate" in message
    assert len(pairs) == 5
    assert all(len(one.labels) == 2 for one in pairs)


def test_documents_of_several_calls_have_one_order(task_server: Started) -> None:
    """The same as in one call, top_n and equal scores included; errors last."""
    documents = [*WORDS[:12], "", "the cat", *WORDS[:12]]
    address = task_server("text-ranking").address
    orders = []
    for inputs_per_call in (256, 5):
        with Client(address, inputs_per_call=inputs_per_call) as client:
            orders.append([told(one) for one in client.rerank_each("the sea", documents)])
            best = client.rerank("the sea", documents[:12], top_n=3)
            assert [one.index for one in best] == [
                one.index for one in client.rerank("the sea", documents[:12])[:3]
            ]
    assert orders[0] == orders[1]
    assert orders[0][-1][3] == 12
    with Client(address) as client:
        ranked = [
            one for one in client.rerank_each("the sea", documents) if isinstance(one, Ranked)
        ]
    keys = [(-one.score, one.index) for one in ranked]
    assert keys == sorted(keys)


class Meeting:
    """Counts tokens when as many calls are here as may be at once, and counts the calls."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)
        self._lock = threading.Lock()
        self._here = 0
        self.most = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        count = grpc.unary_unary_rpc_method_handler(
            self.count,
            inference_pb2.CountTokensRequest.FromString,
            inference_pb2.CountTokensResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(INFERENCE, {"CountTokens": count})

    def count(
        self, request: inference_pb2.CountTokensRequest, _: object
    ) -> inference_pb2.CountTokensResponse:
        """The characters of a text."""
        with self._lock:
            self._here += 1
            self.most = max(self.most, self._here)
        self._barrier.wait(PATIENCE)
        with self._lock:
            self._here -= 1
        return inference_pb2.CountTokensResponse(counts=[len(request.inputs[0].text)])


async def test_as_many_calls_as_the_setting_says_are_made_at_once() -> None:
    """Twelve calls by threes: a fourth never comes before one has left."""
    servant = Meeting(3)
    server = grpc.server(ThreadPoolExecutor(12))
    server.add_generic_rpc_handlers([servant.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    texts = ["x" * length for length in range(12)]
    with Client(f"127.0.0.1:{port}", inputs_per_call=1, concurrency=3) as client:
        assert client.count_tokens(texts) == list(range(12))
    async with AsyncClient(f"127.0.0.1:{port}", inputs_per_call=1, concurrency=3) as client_:
        assert await client_.count_tokens(texts) == list(range(12))
    server.stop(None).wait()
    assert servant.most == 3


async def test_a_call_that_fails_for_another_reason_is_one_error(task_server: Started) -> None:
    """Of several calls the first failure ends all."""
    address = task_server("feature-extraction").address
    with Client(address, inputs_per_call=1) as client:
        with pytest.raises(NotFound, match="nobody"):
            client.embed_each(["the", "cat", "sat"] * 3, model="nobody")
        with pytest.raises(WrongTask, match="ask another model"):
            client.tag(["the cat"])
        with pytest.raises(InvalidArgument, match="at least one"):
            client.embed([])
        with pytest.raises(InvalidArgument, match="stride is 99"):
            client.embed(["cat " * 100], long_text="window", stride=99)
    async with AsyncClient(address, inputs_per_call=1) as client_:
        with pytest.raises(NotFound, match="nobody"):
            await client_.embed_each(["the", "cat", "sat"] * 3, model="nobody")


def test_inputs_that_all_fail_have_their_own_errors(task_server: Started) -> None:
    """The server ends such a call with one status, which names as many as it has room for."""
    with Client(task_server("feature-extraction").address) as client:
        outcomes = client.embed_each([" "] * 120)
    assert [told(one)[3] for one in outcomes] == list(range(120))
    assert all(f"texts[{index}] is empty" in str(one) for index, one in enumerate(outcomes))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda client: client.embed("text"), TypeError, "texts is a single str"),
        (lambda client: client.embed([1]), TypeError, r"texts\[0\] is a int"),
        (lambda client: client.embed(["a"], truncate=True), TypeError, "no option 'truncate': it"),
        (
            lambda client: client.embed(["a"], dimensions=-1),
            ValueError,
            "is -1: pass a whole number",
        ),
        (lambda client: client.embed(["a"], dimensions=[8]), TypeError, r"is \[8\]: pass a whole"),
        (
            lambda client: client.embed(["a"], prompt_name=5),
            TypeError,
            "prompt_name is 5: pass a str",
        ),
        (lambda client: client.embed(["a"], output_dtype=["int8"]), ValueError, "pass 'float32'"),
        (lambda client: client.embed(["a"], ranges="x"), ValueError, "ranges are no numbers"),
        (lambda client: client.tag(["a"], aggregation="all"), ValueError, "'none' or 'simple' or"),
        (lambda client: client.embed(["a"], stride=-1), ValueError, "stride is -1"),
        (lambda client: client.answer(["a"]), TypeError, r"a pair \(question, context\)"),
        (lambda client: client.classify([("a", "b", "c")]), TypeError, "a pair of strings"),
        (lambda client: client.detokenize([[-1]]), ValueError, r"sequences\[0\] is no sequence"),
        (lambda client: client.rerank("\udc00", ["a"]), InvalidArgument, "query: character 0"),
        (lambda _: Client("127.0.0.1:1,[::1]:1"), ValueError, "cannot mix"),
        (lambda _: Client(["127.0.0.1:1", "here"]), ValueError, "must be host:port"),
        (lambda _: Client("127.0.0.1:99999"), ValueError, "port 99999 is above"),
        (lambda _: Client(concurrency=0), ValueError, "concurrency is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_remedy(
    call: Callable[[Client], object], error: type[Exception], words: str
) -> None:
    """Before a call is made: nobody listens there."""
    with Client("127.0.0.1:1") as client, pytest.raises(error, match=words):
        call(client)


@pytest.mark.parametrize(
    ("address", "expected", "balanced"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", False),
        ("[::1]:1", "[::1]:1", False),
        ("unix:/run/bertd.sock", "unix:/run/bertd.sock", False),
        ("bertd.example:8001", "bertd.example:8001", True),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2", True),
        (["[::1]:1", "[::2]:2"], "ipv6:[::1]:1,[::2]:2", True),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2", True),
        ("localhost:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2", True),
    ],
)
def test_addresses_become_targets(
    address: str | Sequence[str], expected: str, *, balanced: bool
) -> None:
    """Several take turns, watched by gRPC's health check."""
    found, options = target(address)
    assert found == expected
    config = str(dict(options)["grpc.service_config"])
    assert ("round_robin" in config) == ("healthCheckConfig" in config) == balanced
    assert int(dict(options)["grpc.max_reconnect_backoff_ms"]) <= 2_000  # docs/operations.md


async def test_calls_take_turns_and_pass_over_a_server_that_stops(
    task_bundle: Callable[[Task], Path],
) -> None:
    """Two servers share the calls; one drains while calls go on, and none fails."""
    bundle = task_bundle("feature-extraction")
    first, second = (RunningServer(bundle, quick_settings()) for _ in range(2))
    addresses = [first.address, second.address]
    stopped = threading.Event()

    def stop() -> None:
        first.stop()
        stopped.set()

    with Client(addresses, inputs_per_call=1) as client:
        before = client.embed(["the cat"] * 40)
        while not all(answered(one) for one in (first, second)):  # the second may connect later
            client.embed(["the cat"])
        threading.Thread(target=stop).start()
        calls = 0
        while not stopped.is_set() or calls < 20:
            assert client.embed(["the cat"])[0].tobytes() == before[0].tobytes()
            calls += 1
        async with AsyncClient(addresses) as client_:  # one of them is down from the start
            assert (await client_.embed(["the cat"]))[0].tobytes() == before[0].tobytes()
    second.stop()


def answered(running: RunningServer) -> int:
    """Texts that a server has answered."""
    return running.server.model.statistics.answered
