"""Every family: the written bundle, as the server runs it, against PyTorch for each text alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bertd.bundle import GRAPH_NAME, Manifest, read_manifest
from bertd.bundle.arrays import Float32Array
from bertd_export.bundle import export_model
from bertd_export.checkpoint import families
from bertd_export.checkpoint import loading as checkpoint
from bertd_export.errors import ExportError
from bertd_export.verification.verify import verify
from bertd_server.engine.engine import Engine
from bertd_server.engine.packing import TokenSequence
from bertd_server.tokenization.reader import Reader
from helpers.paths import ROOT
from helpers.tiny import FAMILIES, VOCABULARY, save_tiny
from transformers import AutoModel, AutoTokenizer

TEXTS = (
    "the cat sat on a mat",
    "안녕 in the rain, and 🌧 e\u0301 ﬁn!",
    "a",
    "the dog saw <pad> and [PAD] on the mat <pad>",
    "the cat and the dog sat in the rain on",
)


# Up to far past the window of local attention (8 to either side), past its block of 128 queries,
# and past the distance from which DeBERTa and MPNet put positions into common buckets.
LENGTHS = (8, 9, 10, 40, 128, 300, 130, 2, 257)
ROTARY = {"eurobert", "modernbert", "nomic_bert"}
COUNT_WITHOUT_PAD = {
    "camembert",
    "data2vec-text",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}


@dataclass
class Exported:
    """A bundle as the server loads it, and the checkpoint it came from."""

    source: Path
    folder: Path
    manifest: Manifest
    engine: Engine
    reader: Reader
    model: Any

    def vectors(self, sequences: list[TokenSequence]) -> Float32Array:
        """One batch through the engine."""
        return self.engine.embed(sequences)

    def check(self, sequences: list[TokenSequence]) -> None:
        """The batch equals PyTorch within 1e-4, and each text alone bit for bit."""
        together = self.vectors(sequences)
        for sequence, vector in zip(sequences, together, strict=True):
            np.testing.assert_array_equal(self.vectors([sequence])[0], vector)
            ids = torch.from_numpy(sequence.input_ids)[None]
            with torch.inference_mode():
                rows = self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
            expected = rows.last_hidden_state[0].mean(dim=0).numpy()
            np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-4)


def export_tiny(tmp_path: Path, family: str, **changes: Any) -> Exported:
    """Make a checkpoint, export it, load it."""
    source = save_tiny(tmp_path / "source", family, **changes)
    folder = tmp_path / "bundle"
    export_model(str(source), folder)
    manifest = read_manifest(folder)
    model = AutoModel.from_pretrained(source).eval()
    return Exported(
        source, folder, manifest, Engine(folder, manifest), Reader.of(folder, manifest), model
    )


def random_tokens(length: int) -> TokenSequence:
    """Random tokens of the given number, different for each length."""
    ids = np.random.default_rng(length).integers(5, VOCABULARY, length)
    return TokenSequence(ids, np.zeros(length, np.int64))


def graph_of(exported: Exported) -> onnx.GraphProto:
    """The graph as it was saved."""
    return onnx.load(str(exported.folder / GRAPH_NAME), load_external_data=False).graph


def attention_nodes(exported: Exported) -> list[onnx.NodeProto]:
    """The nodes of the saved graph that call attention."""
    return [node for node in graph_of(exported).node if node.op_type.endswith("Attention")]


# One of each layout; the others are read alike, and BERT is what most tests export.
QUICK = {"deberta-v2", "modernbert"}


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=[] if family in QUICK else [pytest.mark.slow])
        for family in sorted(FAMILIES)
    ],
)
def test_texts_agree_with_pytorch(family: str, tmp_path: Path) -> None:
    exported = export_tiny(tmp_path, family)
    reference = AutoTokenizer.from_pretrained(exported.source)
    sequences = exported.reader.sequences(TEXTS)
    for text, sequence in zip(TEXTS, sequences, strict=True):
        assert sequence.input_ids.tolist() == reference(text)["input_ids"]
    pad = exported.model.config.pad_token_id
    assert any(pad in sequence.input_ids for sequence in sequences)  # a text spells it out
    assert exported.manifest.unnumbered_token_id == (pad if family in COUNT_WITHOUT_PAD else None)
    longest = exported.manifest.max_tokens
    exported.check([*sequences, random_tokens(longest), random_tokens(1)])
    exported.check([random_tokens(length) for length in LENGTHS if length <= longest])
    nodes = [node.op_type for node in graph_of(exported).node]
    if family in ROTARY:  # rotation stands between projection and attention
        assert nodes.count("RotaryEmbedding") == 4  # q and k, in two layers
        assert "Neg" not in nodes
    else:
        assert all(node.input[0].startswith("qkv") for node in attention_nodes(exported))
    windows = [
        attribute.i
        for node in attention_nodes(exported)
        for attribute in node.attribute
        if attribute.name == "window"
    ]
    assert windows == ([8] if family == "modernbert" else [])  # layer 2 of 2 is local
    onnx.checker.check_model(str(exported.folder / GRAPH_NAME))
    if family == "albert":  # calls attention more often than it has layers
        assert not verify(exported.folder, str(exported.source)).failures


@pytest.mark.slow
def test_deberta_with_projections_of_its_own_and_without_buckets(tmp_path: Path) -> None:
    exported = export_tiny(
        tmp_path, "deberta-v2", share_att_key=False, pos_att_type=["c2p"], position_buckets=-1
    )
    exported.check([random_tokens(length) for length in (64, 3, 40)])


def refusal(tmp_path: Path, family: str, **changes: Any) -> str:
    """The message with which a model is refused; nothing is written."""
    source = save_tiny(tmp_path / "source", family, **changes)
    with pytest.raises(ExportError) as caught:
        export_model(str(source), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [source]
    return caught.value.message


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("mobilebert", "neighbouring tokens"),
        ("megatron-bert", "attention interface"),
        ("gpt2", "a causal language model"),
        ("bart", "a decoder beside its encoder"),
    ],
)
def test_other_families_are_refused(family: str, reason: str, tmp_path: Path) -> None:
    changes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1} if family == "bart" else {}
    message = refusal(tmp_path, family, **changes)
    assert reason in message
    assert all(supported in message for supported in families.FAMILIES)


def test_a_decoder_is_refused_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(checkpoint, "_model")
    message = refusal(tmp_path, "bert", is_decoder=True)
    assert "is_decoder in its config.json makes its attention causal" in message
    assert all(supported in message for supported in families.FAMILIES)


def test_a_wordpiece_vocabulary_of_a_sentencepiece_family_is_read(tmp_path: Path) -> None:
    """Korean ALBERTs come with vocab.txt alone, for which transformers makes an empty tokenizer."""
    source = save_tiny(tmp_path / "source", "albert")
    for path in source.glob("*token*"):
        path.unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##s", "cat"]
    (source / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    loaded = checkpoint.load(str(source))
    assert loaded.tokenizer.encode("the cats").tokens == ["[CLS]", "the", "cat", "##s", "[SEP]"]
    assert any("the bundle reads it as BertTokenizer does" in note for note in loaded.notes)
    settings = source / "tokenizer_config.json"
    settings.write_text('{"tokenizer_class": "AlbertTokenizer"}', encoding="utf-8")
    with pytest.raises(ExportError, match="tokenizer_class is AlbertTokenizer, with which"):
        checkpoint.load(str(source))
    settings.unlink()
    (source / "vocab.txt").write_text("\n".join(words[4:]), encoding="utf-8")
    with pytest.raises(ExportError, match=r"no \[CLS\], \[SEP\], \[UNK\]"):
        checkpoint.load(str(source))


def test_a_family_that_mixes_neighbours_fails_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MobileBERT calls attention as it should; only batches of several texts give it away."""
    monkeypatch.setattr(families, "REFUSED", {})
    assert "not bit-identical to the text alone" in refusal(
        tmp_path, "mobilebert", num_hidden_layers=1
    )


def test_attention_that_is_not_called_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the table of families is wrong about one of them."""
    wrong = {**families.FAMILIES, "megatron-bert": families.ModelFamily("interface")}
    monkeypatch.setattr(families, "FAMILIES", wrong)
    assert "called 0 times" in refusal(tmp_path, "megatron-bert")


def test_an_untested_family_that_passes_is_exported(tmp_path: Path) -> None:
    notes: list[str] = []
    source = save_tiny(tmp_path / "source", "esm", num_hidden_layers=1)
    export_model(str(source), tmp_path / "bundle", progress=notes.append)
    assert any("esm" in note and "not among the tested families" in note for note in notes)


@pytest.mark.parametrize("changes", [{"conv_kernel_size": 3}, {"relative_attention": False}])
def test_variants_of_deberta_that_are_not_supported(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    assert "deberta-v2" in refusal(tmp_path, "deberta-v2", **changes)


def test_the_table_of_families_is_what_is_tested_and_documented() -> None:
    assert set(FAMILIES) == set(families.FAMILIES)
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for kind, family in families.FAMILIES.items():
        assert f"| {kind} | {family.layout} | {family.note} |" in text
