"""Small sentence-transformers folders, exported and served: the vectors are its own `encode`'s."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bertd.bundle import read_manifest
from bertd_export.bundle import export_model
from bertd_export.checkpoint.loading import load
from bertd_export.errors import ExportError
from bertd_server.models.model import Model
from bertd_server.models.startup import ModelOptions
from bertd_server.tasks import embedding
from bertd_server.tokenization.reader import Fit, texts_of
from helpers.served import open_model
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from transformers import BertConfig, BertModel, BertTokenizer

HIDDEN = 32
MAX_TOKENS = 48
TEXTS = (
    "The LIBRARY on Elm Street Opens at Nine.",
    "ΟΔΟΣ ΑΘΗΝΑΣ, İzmir, STRASSE, ÉCOLE",
    "오늘은 BUS 대신 지하철을 타고 출근했습니다.",
    "ПОЕЗД придёт через ДВА часа",
    "no",
    "One Text that is far TOO LONG for the limit of this little model " * 3,
)
PROMPTS = {"question": "Question: ", "passage": "PASSAGE - "}


def letters() -> list[str]:
    """A vocabulary of the texts' characters in lower case: a capital would be unknown."""
    known = sorted(set("".join([*TEXTS, *PROMPTS.values()]).lower()) - {" "})
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known, *(f"##{c}" for c in known)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a cased tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: number for number, word in enumerate(letters())}
    torch.manual_seed(1)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=80,
            initializer_range=0.2,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, do_lower_case=False, strip_accents=False).save_pretrained(
        folder
    )
    return folder


def sentence_model(encoder: Path, modules: Sequence[torch.nn.Module]) -> SentenceTransformer:
    transformer = Transformer(str(encoder), max_seq_length=MAX_TOKENS, do_lower_case=True)
    return SentenceTransformer(
        modules=[transformer, *modules],
        prompts=PROMPTS,
        default_prompt_name="passage",
        device="cpu",
    )


def made(kind: Any, width: int) -> torch.nn.Module:
    """A module of that kind behind so many values, its weights random."""
    if kind == "residual":
        return Dense(width, 24, activation_function=torch.nn.GELU(), use_residual=True)
    if kind is LayerNorm:
        norm = LayerNorm(width)
        torch.nn.init.normal_(norm.norm.weight)
        torch.nn.init.normal_(norm.norm.bias)
        return norm
    module: torch.nn.Module = kind(width, 24) if kind is Dense else kind()
    return module


async def vectors(model: Model, prompt_name: str | None) -> NDArray[np.float32]:
    found = []
    for reply in await embedding.embed(
        model, texts_of(TEXTS), Fit("truncate"), prompt_name=prompt_name
    ):
        assert isinstance(reply.outcome, np.ndarray)
        found.append(reply.outcome)
    return np.stack(found)


@pytest.mark.parametrize(
    ("modes", "tail", "layout"),
    [
        pytest.param(["cls"], [], "new", marks=pytest.mark.slow),
        (["mean"], [Dense, Normalize], "old"),
        pytest.param(["max"], [Dense], "new", marks=pytest.mark.slow),
        pytest.param(["mean_sqrt_len_tokens"], [Normalize], "old", marks=pytest.mark.slow),
        pytest.param(["lasttoken", "cls"], [Dropout, LayerNorm], "new", marks=pytest.mark.slow),
        pytest.param(["weightedmean", "max"], ["residual"], "new", marks=pytest.mark.slow),
    ],
    ids=["cls", "mean", "max", "mean_sqrt_len", "lasttoken", "weightedmean"],
)
async def test_the_vectors_are_those_of_sentence_transformers(
    encoder: Path, tmp_path: Path, modes: list[str], tail: list[Any], layout: str
) -> None:
    """Every pooling mode and every module behind it, prompts, max_seq_length and do_lower_case.

    New folders keep the last two in the tokenizer, older ones in sentence_bert_config.json.
    """
    size = HIDDEN * len(modes)
    torch.manual_seed(2)
    modules: list[torch.nn.Module] = [Pooling(HIDDEN, pooling_mode=modes)]
    modules += [made(kind, size) for kind in tail]
    sentence_model(encoder, modules).save(str(tmp_path / "checkpoint"))
    if layout == "old":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(encoder / name, tmp_path / "checkpoint" / name)
        settings = {"max_seq_length": MAX_TOKENS, "do_lower_case": True}
        path = tmp_path / "checkpoint" / "sentence_bert_config.json"
        path.write_text(json.dumps(settings))
    export_model(str(tmp_path / "checkpoint"), tmp_path / "bundle")

    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.pooling, manifest.max_tokens) == (tuple(modes), MAX_TOKENS)
    assert manifest.normalized == (Normalize in tail)

    theirs = SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu")
    options = ModelOptions()
    model = open_model(tmp_path / "bundle", options)
    seen = []
    for prompt in (None, "question", ""):  # the default, a named one, none
        ours = await vectors(model, prompt)
        expected = theirs.encode(
            list(TEXTS), prompt_name=prompt or None, prompt="" if prompt == "" else None
        )
        np.testing.assert_allclose(ours, expected, atol=2e-5, rtol=1e-5)
        seen.append(ours)
    await model.drain()
    assert np.abs(seen[0] - seen[1]).max() > 0.01  # the prompt matters
    assert np.abs(seen[0] - seen[2]).max() > 0.01
    assert np.abs(seen[2][0] - seen[2][1]).max() > 0.01  # and so does the text


async def test_pooling_leaves_out_the_tokens_of_a_prompt(encoder: Path, tmp_path: Path) -> None:
    """`include_prompt: false`: in a batch with texts without it, cut ones and one of no letters.

    weightedmean keeps the weights that the tokens have in the whole text, cls is the first token
    behind the prompt, and where there are no prompts the setting changes nothing.
    """
    modes = ("weightedmean", "cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken")
    pooling = Pooling(HIDDEN, pooling_mode=modes, include_prompt=False)
    source = tmp_path / "source"
    sentence_model(encoder, [pooling]).save(str(source))
    export_model(str(source), tmp_path / "bundle")
    manifest = read_manifest(tmp_path / "bundle")
    assert not manifest.include_prompt
    theirs = SentenceTransformer(str(source), device="cpu")
    model = open_model(tmp_path / "bundle", ModelOptions())
    both = await asyncio.gather(*(vectors(model, name) for name in (None, "question", "")))
    await model.drain()
    for name, ours in zip((None, "question", ""), both, strict=True):
        expected = theirs.encode(
            list(TEXTS), prompt_name=name or None, prompt="" if name == "" else None
        )
        np.testing.assert_allclose(ours, expected, atol=2e-5, rtol=1e-5)
    settings = json.loads((source / "config_sentence_transformers.json").read_text())
    settings.update(prompts={"query": ""}, default_prompt_name=None)
    (source / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert load(str(source)).include_prompt


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("modules.json", [("WordWeights", "WordWeights")], "the weight of each word would be lost"),
        ("modules.json", [("CNN", "CNN")], "padding too"),
        ("modules.json", [("LSTM", "LSTM")], "from token to token"),
        ("modules.json", [("BoW", "BoW")], "there is no transformer"),
        ("modules.json", [("WeightedLayerPooling", "W")], "of every layer"),
        ("modules.json", [("Router", "R")], "save the modules of one route"),
        ("modules.json", [("Pooling", "1_Pooling")], "lists Transformer, Pooling, Pooling"),
        ("config_sentence_transformers.json", {"model_type": "MultiVectorEncoder"}, "projection"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "yet the folder has"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "'feature-extraction' al"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "'median' is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "names no pooling mode"),
        ("1_Pooling/config.json", {"temperature": 2}, "temperature is not known"),
        ("2_Dense/config.json", {"activation_function": "my.Swish"}, "my.Swish is not supported"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.PReLU"}, "PReLU is not suppor"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "input_name token_emb"),
        ("3_LayerNorm/config.json", {"dimension": 16}, "does not fit its config.json"),
    ],
)
def test_what_a_bundle_cannot_do_is_refused_by_name(
    encoder: Path, tmp_path: Path, file: str, changes: Any, words: str
) -> None:
    """Refused, with the module or the key and what would be lost, rather than computed wrongly."""
    modules = [Pooling(HIDDEN), Dense(HIDDEN, 24), LayerNorm(24)]
    sentence_model(encoder, modules).save(str(tmp_path))
    path = tmp_path / file
    content = json.loads(path.read_text())
    if isinstance(changes, dict):
        content.update(changes)
    else:
        kind, folder = changes[0]
        content[2:] = [{"type": f"sentence_transformers.models.{kind}", "path": folder}]
    path.write_text(json.dumps(content))
    with pytest.raises(ExportError, match=words):
        load(str(tmp_path))


def test_modules_of_other_packages_are_refused(encoder: Path, tmp_path: Path) -> None:
    """Of the same name too, as PyLate's Dense, which projects every token."""
    sentence_model(encoder, [Pooling(HIDDEN), Dense(HIDDEN, 24)]).save(str(tmp_path))
    path = tmp_path / "modules.json"
    path.write_text(path.read_text().replace("sentence_transformers.base.modules.de", "pylate.de"))
    with pytest.raises(ExportError, match=r"pylate.dense.Dense is .*: the projection of every"):
        load(str(tmp_path))
    path.write_text(path.read_text().replace("pylate.de", "my.de"))
    with pytest.raises(ExportError, match=r"my.dense.Dense is not supported: it is not of sente"):
        load(str(tmp_path))


def test_older_names_of_the_transformers_settings_are_read(encoder: Path, tmp_path: Path) -> None:
    """The first file that says anything counts, whatever the family of the model."""
    sentence_model(encoder, [Pooling(HIDDEN)]).save(str(tmp_path))
    (tmp_path / "sentence_bert_config.json").write_text("{}")
    older = {"max_seq_length": 7, "do_lower_case": False}
    (tmp_path / "sentence_roberta_config.json").write_text(json.dumps(older))
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    assert load(str(tmp_path)).max_tokens == theirs.max_seq_length == 7


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_sqrt_len_tokens": True},
            ("cls", "mean_sqrt_len_tokens"),
        ),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_cls_token": False}, ("mean",)),
        ({}, ("mean",)),
        ({"pooling_mode": "max", "pooling_mode_cls_token": True}, ("max",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
    ],
)
def test_pooling_modes_have_the_order_of_sentence_transformers(
    encoder: Path, tmp_path: Path, config: dict[str, Any], modes: tuple[str, ...]
) -> None:
    """The list's own; a fixed one of the flags of older folders; the mean where none is named."""
    sentence_model(encoder, [Pooling(HIDDEN)]).save(str(tmp_path))
    config = {"word_embedding_dimension": HIDDEN, **config}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    theirs = Pooling.load(str(tmp_path), subfolder="1_Pooling").pooling_mode
    assert load(str(tmp_path)).pooling == modes
    assert modes == ((theirs,) if isinstance(theirs, str) else tuple(theirs))
