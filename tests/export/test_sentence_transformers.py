"""Small sentence-transformers folders, exported and served: the vectors are its own `encode`'s."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

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
        (["cls"], [], "new"),
        (["mean"], [Normalize], "old"),
        (["max"], [Dense], "new"),
        (["mean_sqrt_len_tokens"], [Dense, Normalize], "old"),
        (["lasttoken", "cls"], [], "new"),
    ],
    ids=["cls", "mean", "max", "mean_sqrt_len", "lasttoken"],
)
async def test_the_vectors_are_those_of_sentence_transformers(
    encoder: Path, tmp_path: Path, modes: list[str], tail: list[type[torch.nn.Module]], layout: str
) -> None:
    """Every pooling mode, Dense, Normalize, prompts, max_seq_length and do_lower_case.

    New folders keep the last two in the tokenizer, older ones in sentence_bert_config.json.
    """
    size = HIDDEN * len(modes)
    torch.manual_seed(2)
    modules: list[torch.nn.Module] = [Pooling(HIDDEN, pooling_mode=modes)]
    modules += [Dense(size, 24) if kind is Dense else kind() for kind in tail]
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


@pytest.mark.parametrize(
    ("pooling", "words"),
    [
        (Pooling(HIDDEN, pooling_mode="weightedmean"), "'weightedmean' is not supported"),
        (Pooling(HIDDEN, include_prompt=False), "include_prompt=false is not supported"),
    ],
    ids=["weightedmean", "include_prompt"],
)
def test_pooling_that_a_bundle_cannot_do_is_refused(
    encoder: Path, tmp_path: Path, pooling: torch.nn.Module, words: str
) -> None:
    """Refused by name, as the README says, rather than computed wrongly."""
    sentence_model(encoder, [pooling]).save(str(tmp_path))
    with pytest.raises(ExportError, match=words):
        load(str(tmp_path))


def test_pooling_flags_of_older_folders_are_read(encoder: Path, tmp_path: Path) -> None:
    """Before `pooling_mode` there was one flag for each mode."""
    sentence_model(encoder, [Pooling(HIDDEN)]).save(str(tmp_path))
    flags = {
        "word_embedding_dimension": HIDDEN,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": True,
    }
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    assert load(str(tmp_path)).pooling == ("cls", "mean_sqrt_len_tokens")
