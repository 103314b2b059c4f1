"""The answers of the Open Inference Protocol are those of bertd.v1, for every task."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bertd.bundle import Task
from bertd.oip import grpc_service_pb2 as pb
from bertd.v1 import inference_pb2 as v1
from helpers.v2_served import LABELS, LONG, MASKED, QUESTIONS, TEXTS, Served
from tritonclient.utils import InferenceServerException


def test_vectors_are_those_of_the_typed_api_bit_for_bit(at: Callable[[Task], Served]) -> None:
    """Alone, in a batch, from texts, and from tokens with padding on either side."""
    served = at("feature-extraction")
    theirs = served.v1.Embed(v1.EmbedRequest(texts=TEXTS)).results
    expected = np.stack([np.frombuffer(one.embedding, np.float32) for one in theirs])
    assert (served.infer({"text": TEXTS})("sentence_embedding") == expected).all()
    for text, vector in zip(TEXTS, expected, strict=True):
        flat = np.array([text.encode()], object)
        assert (served.infer({"text": flat})("sentence_embedding") == vector).all()
    ids, _, mask = served.tokens(*TEXTS)
    left = np.stack(
        [np.roll(row, int((kept == 0).sum())) for row, kept in zip(ids, mask, strict=True)]
    )
    for given, kept in ((ids, mask), (left, np.sort(mask, axis=1))):
        answer = served.infer({"input_ids": given, "attention_mask": kept})
        assert (answer("sentence_embedding") == expected).all()
    narrow = {"input_ids": ids[2:].astype(np.int32)}
    assert (served.infer(narrow)("sentence_embedding") == expected[2:]).all()


def test_tokens_have_vectors_and_say_which_they_are(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    names = ("token_embeddings", "token_ids", "attention_mask", "sentence_embedding", "tokens_read")
    answer = served.infer({"text": TEXTS}, *names)
    ids, _, mask = served.tokens(*TEXTS)
    assert (answer("token_ids") == ids).all()
    assert (answer("attention_mask") == mask).all()
    assert (answer("tokens_read") == mask.sum(axis=1, keepdims=True)).all()
    results = served.v1.EmbedTokens(v1.EmbedTokensRequest(texts=TEXTS)).results
    for row, result in enumerate(results):
        count = len(result.vectors.tokens)
        vectors = np.frombuffer(result.vectors.vectors, np.float32).reshape(count, -1)
        assert (answer("token_embeddings")[row, :count] == vectors).all()
        assert not answer("token_embeddings")[row, count:].any()
    assert (
        served.infer({"text": TEXTS})("sentence_embedding") == answer("sentence_embedding")
    ).all()


def test_vectors_of_bytes_and_of_bits_are_those_of_the_typed_api(
    at: Callable[[Task], Served],
) -> None:
    """Cut, and as numbers of one byte, with a range for all dimensions or one for each."""
    served = at("feature-extraction")
    asked: list[tuple[Any, dict[str, Any], Any]] = [
        (np.float32, {}, {}),
        (np.int8, {"ranges": "[-1, 1.5]"}, {"lowest": [-1], "highest": [1.5]}),
        (
            np.uint8,
            {"ranges": json.dumps([[-1] * 12, [2] * 12])},
            {"lowest": [-1] * 12, "highest": [2] * 12},
        ),
        (np.int8, {"output_dtype": "binary"}, {}),
        (np.uint8, {"output_dtype": "ubinary"}, {}),
    ]
    for kind, options, ranges in asked:
        dtype = options.get("output_dtype", np.dtype(kind).name)
        parameters = {"dimensions": 12, "output_dtype": dtype, **options}
        answer = served.infer({"text": TEXTS}, parameters=parameters)("sentence_embedding")
        number = v1.VectorDtype.Value(f"VECTOR_DTYPE_{dtype.upper()}")
        given = v1.VectorRanges(**ranges)
        request = v1.EmbedRequest(texts=TEXTS, dimensions=12, output_dtype=number, ranges=given)
        expected = [np.frombuffer(one.embedding, kind) for one in served.v1.Embed(request).results]
        assert answer.dtype == kind
        assert (answer == np.stack(expected)).all()
    typed = pb.ModelInferRequest(model_name="tiny")
    text = typed.inputs.add(name="text", datatype="BYTES", shape=[1])
    text.contents.bytes_contents.append(TEXTS[0].encode())
    for dtype, field in (("binary", "int_contents"), ("ubinary", "uint_contents")):
        typed.parameters["output_dtype"].string_param = dtype
        (output,) = served.v2.ModelInfer(typed).outputs
        assert (output.datatype, list(output.shape)) == (
            {"binary": "INT8", "ubinary": "UINT8"}[dtype],
            [1, 4],
        )
        assert len(getattr(output.contents, field)) == 4


def test_classes_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("text-classification")
    pairs = list(reversed(TEXTS))
    given = [v1.TextInput(text=a, text_pair=b) for a, b in zip(TEXTS, pairs, strict=True)]
    results = served.v1.Classify(v1.ClassifyRequest(inputs=given)).results
    answer = served.infer({"text": TEXTS, "text_pair": pairs}, parameters={"top_k": 2})
    for row, result in enumerate(results):
        expected = [(one.label, np.float32(one.score)) for one in result.labels.labels]
        assert answer("label")[row] == [label for label, _ in expected[:2]]
        assert answer("score")[row].tolist() == [score for _, score in expected[:2]]
        by_label = dict(expected)
        assert answer("scores")[row].tolist() == [by_label[one] for one in ("bad", "so so", "good")]
    ids, types, mask = served.tokens(*TEXTS, pairs=pairs)
    tokens = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    assert (served.infer(tokens)("scores") == answer("scores")).all()
    assert served.infer({"text": TEXTS})("label") != []
    logits = served.infer({"text": TEXTS}, "scores", parameters={"score_function": "none"})(
        "scores"
    )
    assert np.abs(logits.sum(axis=1) - 1).min() > 1e-3


def test_labels_of_the_caller_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    """From an input of either shape, or from a parameter; pairs have the model's own labels."""
    served = at("zero-shot-classification")
    request = v1.ZeroShotClassifyRequest(texts=TEXTS[:2], labels=LABELS, multi_label=True)
    expected = [
        {one.label: np.float32(one.score) for one in result.labels.labels}
        for result in served.v1.ZeroShotClassify(request).results
    ]
    flat = np.array([one.encode() for one in LABELS], object)
    text: dict[str, Any] = {"text": TEXTS[:2]}
    for tensors, options in (
        ({**text, "labels": flat}, {"multi_label": True}),
        ({**text, "labels": np.stack([flat, flat])}, {"multi_label": True}),
        (text, {"multi_label": True, "labels": json.dumps(LABELS)}),
    ):
        answer = served.infer(tensors, parameters={**options, "top_k": 3})
        for row, scores in enumerate(expected):
            assert answer("scores")[row].tolist() == [scores[label] for label in LABELS]
            assert answer("label")[row] == sorted(LABELS, key=lambda one: -scores[one])
    own = served.infer({"text": TEXTS[:2], "text_pair": TEXTS[1:]})
    assert own("scores").shape == (2, 3)


def test_relevance_is_that_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    """A query for all documents, or for each; under the other names too; in windows."""
    served = at("text-ranking")
    documents = [*TEXTS, LONG]
    request = v1.RerankRequest(
        query="the cat",
        documents=documents,
        long_text=v1.LONG_TEXT_POLICY_WINDOW,
        stride=4,
    )
    expected = np.zeros((4, 1), np.float32)
    for result in served.v1.Rerank(request).results:
        expected[result.index] = result.score
    options = {"long_text": "window", "stride": 4}
    for query in (["the cat"], ["the cat"] * 4):
        for first, second in (("query", "document"), ("text", "text_pair")):
            answer = served.infer(
                {first: query, second: documents}, "score", "windows", parameters=options
            )
            assert (answer("score") == expected).all()
            assert (answer("windows")[:, 0] > 1).tolist() == [False, False, False, True]
    ids, types, mask = served.tokens(*["the cat"] * 3, pairs=TEXTS)
    tokens = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    assert (served.infer(tokens)("score") == expected[:3]).all()


@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_the_typed_api(
    at: Callable[[Task], Served], aggregation: str
) -> None:
    """From tokens: the same entities, whose places are those of tokens."""
    served = at("token-classification")
    request = v1.TagTokensRequest(
        texts=TEXTS,
        aggregation=getattr(v1, f"AGGREGATION_{aggregation.upper()}"),
        include_outside=True,
    )
    options = {"aggregation": aggregation, "include_outside": True}
    found = served.infer({"text": TEXTS}, parameters=options)("entities")
    ids, _, mask = served.tokens(*TEXTS)
    padded = {
        "input_ids": np.pad(ids, ((0, 0), (2, 0))),
        "attention_mask": np.pad(mask, ((0, 0), (2, 0))),
    }
    of_tokens = served.infer(padded, parameters=options)("entities")
    results = served.v1.TagTokens(request).results
    for text, result, row, tokens in zip(TEXTS, results, found, of_tokens, strict=True):
        expected = [
            {
                "label": one.label,
                "score": one.score,
                "word": one.word,
                "text": one.text,
                "start": one.offsets.start,
                "end": one.offsets.end,
                "start_byte": one.offsets.start_byte,
                "end_byte": one.offsets.end_byte,
            }
            for one in result.entities.entities
        ]
        entities = json.loads(row)
        assert [{**one, "score": np.float32(one["score"])} for one in entities] == expected
        given = served.v1.Tokenize(v1.TokenizeRequest(inputs=[v1.TextInput(text=text)])).results[0]
        starts = [token.offsets.start for token in given.tokens]
        ends = [token.offsets.end for token in given.tokens]
        for one, same in zip(json.loads(tokens), entities, strict=True):
            assert (one["label"], one["score"], one["word"]) == (
                same["label"],
                same["score"],
                same["word"].replace("안녕", "[UNK]"),
            )
            places = range(one["start"] - 2, one["end"] - 2)  # without the padding before
            assert (starts[places[0]], ends[places[-1]]) == (same["start"], same["end"])


def test_answers_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("question-answering")
    given = [
        v1.QuestionInput(question=question, context=context)
        for question, context in zip(QUESTIONS, TEXTS, strict=True)
    ]
    request = v1.AnswerRequest(inputs=given, top_k=3, allow_no_answer=True, max_answer_tokens=2)
    options = {"top_k": 3, "allow_no_answer": True, "max_answer_tokens": 2}
    names = ("answer", "score", "start", "end", "start_byte", "end_byte")
    answer = served.infer({"question": QUESTIONS, "context": TEXTS}, *names, parameters=options)
    ids, types, mask = served.tokens(*QUESTIONS, pairs=TEXTS)
    tokens = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    of_tokens = served.infer(tokens, parameters=options)
    with pytest.raises(InferenceServerException, match="end_byte counts bytes"):
        served.infer(tokens, "answer", "start", "end_byte")
    for row, result in enumerate(served.v1.Answer(request).results):
        spans = result.spans.spans
        assert answer("answer")[row] == [one.text for one in spans]
        assert answer("score")[row].tolist() == [one.score for one in spans]
        assert answer("start")[row].tolist() == [one.offsets.start for one in spans]
        assert answer("end")[row].tolist() == [one.offsets.end for one in spans]
        assert answer("start_byte")[row].tolist() == [one.offsets.start_byte for one in spans]
        assert answer("end_byte")[row].tolist() == [one.offsets.end_byte for one in spans]
        assert of_tokens("score")[row].tolist() == [one.score for one in spans]
        for column, span in enumerate(spans):
            begin, end = (of_tokens(name)[row, column] for name in ("start", "end"))
            assert of_tokens("answer")[row][column].replace(" ", "") == span.text.replace(" ", "")
            assert (end - begin <= 2, end > begin) == (True, not span.no_answer)
    asked = {"question": ["the cat"], "context": ["sat"]}
    few = served.infer(asked, "start", "end_byte", parameters={"top_k": 3})
    assert (few("start").tolist(), few("end_byte").tolist()) == ([[0, -1, -1]], [[3, -1, -1]])


def test_sparse_vectors_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    """In columns of two, alone or beside what fits the masks."""
    served = at("fill-mask")
    sparse = v1.EmbedSparseRequest(texts=TEXTS, max_active_dims=9)
    names = ("sparse_indices", "sparse_values", "tokens_read")
    answer = served.infer({"text": TEXTS}, *names, parameters={"max_active_dims": 9})
    for row, one in enumerate(served.v1.EmbedSparse(sparse).results):
        assert answer("sparse_indices")[row].tolist() == list(one.vector.indices)
        assert answer("sparse_values")[row].tolist() == list(one.vector.values)
        assert answer("tokens_read")[row] == one.tokens.read
    both = served.infer({"text": MASKED}, "masks", "sparse_values")
    assert both("sparse_values").shape[0] == len(both("masks")) == len(MASKED)


def test_targets_of_masks_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("fill-mask")
    targets = ["cat", "dog", "mat"]
    few = v1.FillMaskRequest(texts=MASKED[:1], targets=targets, top_k=2)
    (best,) = served.v1.FillMask(few).results
    options = {"top_k": 2, "targets": json.dumps(targets)}
    (row,) = served.infer({"text": MASKED[:1]}, parameters=options)("masks")
    chosen = [(one["id"], one["score"]) for one in json.loads(row)[0]["candidates"]]
    assert chosen == [(one.id, one.score) for one in best.masks.masks[0].candidates]


def test_masks_are_those_of_the_typed_api(at: Callable[[Task], Served]) -> None:
    served = at("fill-mask")
    results = served.v1.FillMask(v1.FillMaskRequest(texts=MASKED, top_k=3)).results
    found = served.infer({"text": MASKED}, parameters={"top_k": 3})("masks")
    ids, _, mask = served.tokens(*MASKED)
    tokens = {"input_ids": ids, "attention_mask": mask}
    of_tokens = served.infer(tokens, parameters={"top_k": 3})("masks")
    for number, result in enumerate(results):
        masks, same = json.loads(found[number]), json.loads(of_tokens[number])
        assert [one["start"] for one in masks] == [one.offsets.start for one in result.masks.masks]
        assert [one["start"] for one in same] == np.flatnonzero(ids[number] == 4).tolist()
        for ours, also, theirs in zip(masks, same, result.masks.masks, strict=True):
            expected = [(one.id, one.text, one.score, one.sequence) for one in theirs.candidates]
            assert expected == [
                (one["id"], one["token"], float(np.float32(one["score"])), one["sequence"])
                for one in ours["candidates"]
            ]
            assert [one["id"] for one in also["candidates"]] == [one[0] for one in expected]


def test_typed_contents_have_typed_answers(at: Callable[[Task], Served]) -> None:
    """The same values as raw ones, of every type."""
    embedder, finder = at("feature-extraction"), at("question-answering")
    request = pb.ModelInferRequest(id="a")
    text = request.inputs.add(name="text", datatype="BYTES", shape=[3])
    text.contents.bytes_contents.extend(one.encode() for one in TEXTS)
    response = embedder.v2.ModelInfer(request)
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "a")
    assert not response.raw_output_contents
    vectors = embedder.infer({"text": TEXTS})("sentence_embedding")
    (output,) = response.outputs
    typed = np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)
    assert (typed == vectors).all()
    ids, _, _ = embedder.tokens(TEXTS[0])
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="input_ids", datatype="INT64", shape=ids.shape)
    tensor.contents.int64_contents.extend(ids[0].tolist())
    (output,) = embedder.v2.ModelInfer(request).outputs
    assert (np.array(output.contents.fp32_contents, np.float32) == vectors[0]).all()
    request = pb.ModelInferRequest()
    for name, value in (("question", "the cat"), ("context", TEXTS[1])):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
        tensor.contents.bytes_contents.append(value.encode())
    outputs = {one.name: one.contents for one in finder.v2.ModelInfer(request).outputs}
    answer = finder.infer({"question": ["the cat"], "context": [TEXTS[1]]})
    assert [one.decode() for one in outputs["answer"].bytes_contents] == answer("answer")
    assert list(outputs["start"].int64_contents) == answer("start")[0].tolist()


def test_long_texts_are_cut_or_read_in_windows(at: Callable[[Task], Served]) -> None:
    served = at("feature-extraction")
    names = ("sentence_embedding", "token_count", "tokens_read", "windows")
    seen = {}
    for options in (
        {"truncate": True},
        {"long_text": "truncate", "truncation_side": "left"},
        {"long_text": "window", "stride": 8},
    ):
        answer = served.infer({"text": [LONG]}, *names, parameters=options)
        seen[json.dumps(options)] = answer("sentence_embedding").tobytes()
        counts = [int(answer(name)[0, 0]) for name in names[1:]]
        assert counts == ([122, 122, 3] if "stride" in options else [122, 64, 1])
    assert len(set(seen.values())) == 3
    for policy, code in (
        ("TRUNCATE", '{"truncate": true}'),
        ("WINDOW", '{"long_text": "window", "stride": 8}'),
    ):
        request = v1.EmbedRequest(
            texts=[LONG], long_text=getattr(v1, f"LONG_TEXT_POLICY_{policy}"), stride=8
        )
        assert served.v1.Embed(request).results[0].embedding == seen[code]
