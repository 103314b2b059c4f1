"""CrossEncoder folders: scores from raw pairs are those of CrossEncoder.predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint.loading import load
from bertd_export.errors import ExportError
from bertd_server.errors import InvalidInput
from bertd_server.models.startup import ModelOptions
from bertd_server.tasks import classification, ranking
from bertd_server.tasks.ask import Reply
from bertd_server.tokenization.reader import Input
from helpers.served import open_model
from helpers.tiny import save_tiny
from sentence_transformers import CrossEncoder

PAIRS = [("the cat", "the dog saw the sea"), ("the cat", "안녕"), ("rain", "a mat")]
PROMPTS = {"search": "the dog in the rain: ", "plain": "on a "}


def save_cross(folder: Path, settings: dict[str, Any], **config: Any) -> Path:
    """What CrossEncoder saves of a random BERT, with some settings changed."""
    save_tiny(folder / "plain", "bert", "text-classification", alphabet=": ", **config)
    CrossEncoder(str(folder / "plain"), device="cpu").save(str(folder / "source"))
    path = folder / "source" / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder / "source"


def inputs() -> list[Input]:
    return [Input(query, document) for query, document in PAIRS]


def values(replies: Sequence[Reply[float]]) -> list[float]:
    found = []
    for reply in replies:
        assert isinstance(reply.outcome, float)
        found.append(reply.outcome)
    return found


async def test_a_prompt_goes_before_the_query_alone(tmp_path: Path) -> None:
    """The default one unless another is named; "" switches it off. The activation is the file's."""
    settings = {
        "prompts": PROMPTS,
        "default_prompt_name": "search",
        "activation_fn": "torch.nn.modules.linear.Identity",
    }
    source = save_cross(tmp_path, settings, num_labels=1)
    export_model(str(source), tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.task, manifest.activation) == ("text-ranking", "identity")
    model = open_model(tmp_path / "bundle", ModelOptions())
    theirs = CrossEncoder(str(source), device="cpu")
    seen = []
    for name in (None, "plain", ""):
        ours = values(await ranking.score_pairs(model, inputs(), prompt_name=name))
        prompt = "" if name == "" else None
        expected = theirs.predict(PAIRS, prompt_name=name or None, prompt=prompt)
        np.testing.assert_allclose(ours, expected, atol=2e-5)
        seen.append(ours)
    assert np.abs(np.diff(seen, axis=0)).max(axis=1).min() > 1e-3  # each prompt matters
    with pytest.raises(InvalidInput, match="'query' is not a prompt of source; it has: plain, sea"):
        await ranking.score_pairs(model, inputs(), prompt_name="query")
    await model.drain()
    assert load(str(source), "feature-extraction").prompts == {}


async def test_several_labels_have_their_logits_as_scores(tmp_path: Path) -> None:
    """As CrossEncoder has it; softmax where a caller asks for it. The default prompt counts too."""
    settings = {"prompts": PROMPTS, "default_prompt_name": "search"}
    source = save_cross(tmp_path, settings, num_labels=3)
    export_model(str(source), tmp_path / "bundle")
    model = open_model(tmp_path / "bundle", ModelOptions())
    theirs = CrossEncoder(str(source), device="cpu")
    for softmax in (False, True):
        replies = await classification.classify(
            model, inputs(), score_function="softmax" if softmax else "default"
        )
        expected = theirs.predict(PAIRS, apply_softmax=softmax)
        for reply, row in zip(replies, expected, strict=True):
            assert isinstance(reply.outcome, list)
            ours = {each.label: each.score for each in reply.outcome}
            np.testing.assert_allclose(
                [ours[f"LABEL_{number}"] for number in range(3)], row, atol=2e-5
            )
    await model.drain()


def test_the_activation_is_read_where_cross_encoder_reads_it(tmp_path: Path) -> None:
    """At the top of its settings, then in config.json; without modules.json there alone."""
    source = save_cross(tmp_path, {"activation_fn": None}, num_labels=1)
    settings, config = source / "config_sentence_transformers.json", source / "config.json"

    def found() -> list[str]:
        theirs = CrossEncoder(str(source), device="cpu").activation_fn
        return [str(load(str(source)).head.activation), type(theirs).__name__.lower()]

    assert found() == ["sigmoid"] * 2
    old = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **old}))
    assert found() == ["identity"] * 2
    top = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **top}))
    assert found() == ["sigmoid"] * 2
    (source / "modules.json").unlink()
    assert found() == ["identity"] * 2
    (source / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Transformer", "path": ""}])
    )
    for refused in ("my.package.Swish", "torch.nn.modules.activation.Softmax"):
        top = {"activation_fn": refused}
        settings.write_text(json.dumps({**json.loads(settings.read_text()), **top}))
        with pytest.raises(
            ExportError, match=f"activation_fn is {refused}, which is not supported"
        ):
            load(str(source))
