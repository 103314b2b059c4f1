"""Every setting and every tensor of a folder is read, known to be harmless, told, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bertd_export.checkpoint.loading import Checkpoint, load
from bertd_export.checkpoint.sentence_settings import sentence_notes
from bertd_export.checkpoint.settings import check_config
from bertd_export.cli import export
from bertd_export.errors import ExportError
from click.testing import CliRunner
from helpers.checkpoints import WORDS, save_checkpoint
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer_config.json"
SENTENCE = "config_sentence_transformers.json"
MODULE = "sentence_bert_config.json"
Weights = dict[str, torch.Tensor]
DISTANCE = "encoder.layer.0.attention.self.distance_embedding.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Random checkpoints by family and head, each written once."""
    root = tmp_path_factory.mktemp("saved")

    def find(family: str, head: str) -> Path:
        folder = root / f"{family}{head}"
        if not folder.is_dir():
            save_checkpoint(folder, family, head, num_hidden_layers=1)
        return folder

    return find


@pytest.fixture
def copied(saved: Callable[[str, str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy that a test may change."""

    def copy(head: str = "ForSequenceClassification", family: str = "Bert") -> Path:
        return Path(shutil.copytree(saved(family, head), tmp_path / "checkpoint"))

    return copy


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value != ...}))


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = change(load_file(folder / WEIGHTS))
    save_file({k: v.clone() for k, v in weights.items()}, folder / WEIGHTS, {"format": "pt"})


def pooled(folder: Path, **settings: Any) -> Path:
    """The checkpoint made a sentence-transformers folder with mean pooling."""
    prefix = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{prefix}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{prefix}.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / CONFIG).write_text('{"pooling_mode": "mean"}')
    if settings:
        edit(folder / SENTENCE, **settings)
    return folder


@pytest.mark.parametrize(
    ("family", "head", "task"),
    [
        ("Bert", "ForPreTraining", "feature-extraction"),
        ("Bert", "ForPreTraining", "fill-mask"),  # as bert-base-uncased: a further head beside
        ("Roberta", "ForSequenceClassification", "feature-extraction"),
        ("Electra", "ForPreTraining", "feature-extraction"),
        ("Albert", "ForPreTraining", "fill-mask"),
    ],
)
def test_heads_of_other_tasks_and_buffers_are_harmless(
    family: str, head: str, task: str, copied: Callable[..., Path]
) -> None:
    folder = copied(head, family)
    position_ids = {f"{family.lower()}.embeddings.position_ids": torch.arange(64)[None]}
    rewrite(folder, lambda weights: {**weights, **position_ids})
    assert load(str(folder), task).notes == ()


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
@pytest.mark.parametrize("name", [f"bert.{DISTANCE}", "bert.adapter.weight", "encoder.new.weight"])
def test_weights_in_the_encoder_that_nothing_reads(
    name: str, task: str, copied: Callable[..., Path]
) -> None:
    folder = copied()
    rewrite(folder, lambda weights: {**weights, name: torch.ones(2)})
    with pytest.raises(ExportError, match=f"does not read: {name}; .* save it again"):
        load(str(folder), task)


@pytest.mark.parametrize("name", ["classifier.second.weight", "crf.transitions"])
def test_weights_of_a_head_that_nothing_reads(name: str, copied: Callable[..., Path]) -> None:
    """Refused where the head counts; told where only the encoder does."""
    folder = copied()
    rewrite(folder, lambda weights: {**weights, name: torch.ones(2)})
    with pytest.raises(ExportError, match=f"does not read: {name};"):
        load(str(folder))
    (note,) = load(str(folder), "feature-extraction").notes
    assert note == f"weights beside the encoder are left aside: {name}"


def test_of_an_encoder_alone_nothing_may_be_left_aside(copied: Callable[..., Path]) -> None:
    """Its names have no prefix that would tell what lies beside it."""
    folder = copied("Model")
    rewrite(folder, lambda weights: {**weights, "projection.weight": torch.ones(2)})
    with pytest.raises(ExportError, match=r"does not read: projection\.weight;"):
        load(str(folder))


@pytest.mark.parametrize(
    ("prefix", "strip", "words"),
    [
        ("module.", "", r"torch\.nn\.DataParallel does that: .* take 'module\.bert\.' off"),
        ("_orig_mod.", "", r"torch\.compile does that"),
        ("_orig_mod.", "bert.", r"take '_orig_mod\.' off"),
        ("net.", "", r"looks for 'embeddings.*take 'net\.bert\.' off"),
        ("electra.", "bert.", r"the weights are those of model_type 'electra'"),
    ],
)
@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
def test_weights_under_the_name_of_a_wrapper(
    prefix: str, strip: str, words: str, task: str, copied: Callable[..., Path]
) -> None:
    folder = copied()
    rewrite(folder, lambda w: {prefix + name.removeprefix(strip): w[name] for name in w})
    with pytest.raises(ExportError, match=words):
        load(str(folder), task)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tf_model.h5", "TensorFlow's weights, which transformers 5 does not read; .*from_tf"),
        ("flax_model.msgpack", "Flax's weights, .*from_flax"),
        ("model.onnx", "use the PyTorch checkpoint that it was made from"),
        ("model.fp16.safetensors", "rename it to model.safetensors"),
    ],
)
def test_weights_of_another_format(name: str, words: str, copied: Callable[..., Path]) -> None:
    folder = copied()
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(ExportError, match=f"{name} is there instead: .*{words}"):
        load(str(folder))


def test_a_pointer_of_git_lfs(copied: Callable[..., Path]) -> None:
    folder = copied()
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ExportError, match="git lfs pull"):
        load(str(folder))


def test_a_config_without_model_type_says_which_it_was(copied: Callable[..., Path]) -> None:
    folder = copied()
    edit(folder / CONFIG, model_type=...)
    with pytest.raises(ExportError, match=r'names BertForSequence.*add "model_type": "bert"'):
        load(str(folder))
    edit(folder / CONFIG, architectures=["Mine"])
    with pytest.raises(ExportError, match="of another library"):
        load(str(folder))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (CONFIG, {"position_embedding_type": "relative_key_query"}, "no longer reads"),
        (CONFIG, {"pruned_heads": {"0": [1]}}, "pruned_heads is .* no longer reads"),
        (CONFIG, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config says"),
        (CONFIG, {"id2label": {"0": "a"}}, r"classifier\.bias \[1\], but the weights hold \[2\]"),
        (TOKENIZER, {"truncation_side": "left"}, "truncation_side is 'left'"),
        (TOKENIZER, {"split_special_tokens": True}, "split_special_tokens is true"),
        (TOKENIZER, {"tokenizer_class": "BertJapaneseTokenizer"}, "a program in Python"),
    ],
)
def test_settings_that_would_change_answers(
    file: str, changes: dict[str, Any], words: str, copied: Callable[..., Path]
) -> None:
    folder = copied()
    edit(folder / file, **changes)
    with pytest.raises(ExportError, match=f"{file}.*{words}"):
        load(str(folder))


def test_a_template_for_chats_is_refused_where_sentence_transformers_would_use_it(
    copied: Callable[..., Path],
) -> None:
    folder = copied()
    edit(folder / TOKENIZER, chat_template="{{ messages }}")
    with pytest.raises(ExportError, match="chat_template is set, and SentenceTransformer"):
        load(str(folder), "feature-extraction")
    load(str(folder), "text-classification")
    edit(folder / CONFIG, num_labels=1, id2label={"0": "score"}, label2id={"score": 0})
    with pytest.raises(ExportError, match="chat_template is set, and CrossEncoder"):
        load(str(folder), "text-ranking")


def test_a_limit_beyond_the_positions_is_refused(copied: Callable[..., Path]) -> None:
    """RoBERTa reserves two positions; sentence-transformers fails on the texts that need them."""
    folder = pooled(copied("Model", "Roberta"))
    positions = json.loads((folder / CONFIG).read_text())["max_position_embeddings"]
    edit(folder / MODULE, max_seq_length=positions - 2)
    load(str(folder), "feature-extraction")
    edit(folder / MODULE, max_seq_length=positions)
    with pytest.raises(ExportError, match=f"max_seq_length is {positions}.*set it to"):
        load(str(folder), "feature-extraction")


def test_a_head_that_config_unties(copied: Callable[..., Path]) -> None:
    folder = copied("ForMaskedLM", "Roberta")
    edit(folder / CONFIG, tie_word_embeddings=False)
    with pytest.raises(ExportError, match=r"lacks weights.*tie_word_embeddings false"):
        load(str(folder), "fill-mask")


def test_a_tokenizer_of_code_alone(copied: Callable[..., Path]) -> None:
    folder = copied()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    code = {"AutoTokenizer": ["mine.Tokenizer", None]}
    edit(folder / TOKENIZER, auto_map=code, tokenizer_class="MyTokenizer")
    with pytest.raises(ExportError, match="auto_map names a tokenizer whose code"):
        load(str(folder))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"zzz": 1}, "zzz is unknown to sentence-transformers"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs"),
        ({"config_args": {"num_hidden_layers": 1}}, "config_args sets num_hidden_layers"),
        ({"tokenizer_args": {"model_max_length": 8}}, "tokenizer_args sets model_max_length"),
        ({"model_args": [1]}, r"model_args is \[1\]; it must be an object"),
        ({"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        ({"transformer_task": "text-generation"}, "'text-generation' is not supported"),
        ({"module_output_name": "other"}, "module_output_name is 'other'"),
        ({"modality_config": {"text": {"method": "encode"}}}, "modality_config reads None"),
        ({"query_length": 32}, "query_length is 32"),
    ],
)
def test_settings_of_the_transformer_module(
    changes: dict[str, Any], words: str, copied: Callable[..., Path]
) -> None:
    folder = pooled(copied("Model"))
    edit(folder / MODULE, **changes)
    with pytest.raises(ExportError, match=f"{MODULE}.*{words}"):
        load(str(folder))


def test_the_settings_of_an_older_name_are_read(copied: Callable[..., Path]) -> None:
    """sentence-transformers takes the first of several names."""
    folder = pooled(copied("Model"))
    edit(folder / "sentence_roberta_config.json", max_seq_length=7)
    assert load(str(folder)).max_tokens == 7
    edit(folder / MODULE, max_seq_length=9)
    assert load(str(folder)).max_tokens == 9


UNUSED = "that comes with the checkpoint, which is never run"


def test_what_nobody_reads_is_told(copied: Callable[..., Path]) -> None:
    folder = pooled(copied("Model"), similarity_fn_name="dot", made_by="me")
    edit(
        folder / CONFIG, gap_size=0, position_embedding_type="absolute", auto_map={"AutoModel": "x"}
    )
    edit(folder / TOKENIZER, never_split=[])
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["colour"] = "red"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert load(str(folder)).notes == (
        "config_sentence_transformers.json: nobody reads made_by",
        "modules.json: nobody reads colour",
        f"config.json: auto_map names code {UNUSED}: the model is transformers' own bert",
        "config.json: nobody reads gap_size",
        "tokenizer_config.json: nobody reads never_split",
    )


def test_notes_are_shown_by_the_command(copied: Callable[..., Path], tmp_path: Path) -> None:
    """While it exports, and in the summary at its end."""
    folder = copied("Model")
    edit(folder / CONFIG, gap_size=0)
    arguments = [str(folder), "--output", str(tmp_path / "bundle")]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert "note: config.json: nobody reads gap_size" in result.stderr.splitlines()
    assert "  note    config.json: nobody reads gap_size" in result.stdout.splitlines()


def test_a_truncation_beyond_the_vector_changes_nothing(copied: Callable[..., Path]) -> None:
    checkpoint = load(str(pooled(copied("Model"), truncate_dim=33)))
    assert (checkpoint.dimensions, checkpoint.after_pooling) == (32, [])


@pytest.mark.parametrize("size", [0, -1, True, "8", 2.5])
def test_a_truncation_to_no_size(size: Any, copied: Callable[..., Path]) -> None:
    with pytest.raises(ExportError, match=f"truncate_dim is {size!r}; it must be a positive"):
        load(str(pooled(copied("Model"), truncate_dim=size)))


def test_labels_are_those_of_the_loaded_model(copied: Callable[..., Path]) -> None:
    """As many as logits: transformers names them anew where id2label names fewer."""
    folder = copied()
    head = {"classifier.weight": torch.randn(5, 32), "classifier.bias": torch.zeros(5)}
    rewrite(folder, lambda weights: {**weights, **head})
    edit(folder / CONFIG, num_labels=5, id2label={"0": "bad", "1": "good"}, label2id=...)
    checkpoint: Checkpoint = load(str(folder))
    assert checkpoint.head.labels == tuple(checkpoint.model.config.id2label.values())
    assert checkpoint.head.labels == tuple(f"LABEL_{number}" for number in range(5))
    (note,) = checkpoint.notes
    assert note.startswith("config.json: id2label names 2 labels and num_labels says 5")


def test_names_in_label2id_alone_are_not_read(copied: Callable[..., Path]) -> None:
    folder = copied()
    edit(folder / CONFIG, id2label=..., label2id={"bad": 0, "good": 1})
    checkpoint = load(str(folder))
    assert checkpoint.head.labels == ("LABEL_0", "LABEL_1")
    assert "not from label2id" in checkpoint.notes[0]


def test_token_types_that_the_model_has_no_embedding_for(copied: Callable[..., Path]) -> None:
    """As Korean RoBERTas with BERT's tokenizer: PyTorch fails on every pair."""
    folder = copied()
    rewrite(folder, lambda w: {k: v[:1] if "token_type" in k else v for k, v in w.items()})
    edit(folder / CONFIG, type_vocab_size=1)
    with pytest.raises(ExportError, match=r"type_vocab_size .* is 1.*model_input_names"):
        load(str(folder))
    edit(folder / TOKENIZER, model_input_names=["input_ids", "attention_mask"])
    assert not load(str(folder)).rules.token_types


def test_a_pair_that_transformers_5_reads_differently_is_told(
    copied: Callable[..., Path],
) -> None:
    folder = copied()
    edit(folder / TOKENIZER, tokenizer_class="PreTrainedTokenizerFast")
    checkpoint = load(str(folder))
    assert not checkpoint.rules.token_types
    told = [note for note in checkpoint.notes if "nobody reads" not in note]
    assert len(told) == 1
    assert "transformers 5 gives type 0, and so does the bundle" in told[0]
    names = ["input_ids", "token_type_ids", "attention_mask"]
    edit(folder / TOKENIZER, model_input_names=names)
    checkpoint = load(str(folder))
    assert checkpoint.rules.token_types
    assert all("nobody reads" in note for note in checkpoint.notes)


def test_a_sentencepiece_model_that_cannot_be_read_says_why(copied: Callable[..., Path]) -> None:
    """What transformers only logs before it asks for tiktoken."""
    folder = copied("Model", "Albert")
    for name in ("tokenizer.json", TOKENIZER):
        (folder / name).unlink()
    (folder / "spiece.model").write_bytes(b"no SentencePiece model")
    with pytest.raises(ExportError, match=r"cannot be read: \w.*sentencepiece==0\.2\.1"):
        load(str(folder))


def test_a_sentencepiece_model_alone_is_read(copied: Callable[..., Path], tmp_path: Path) -> None:
    """As many hubs carry XLM-R: no tokenizer.json, and no tokenizer_config.json."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = copied("Model", "XLMRoberta")
    for name in ("tokenizer.json", TOKENIZER):
        (folder / name).unlink()
    texts = [f"a cat sat on mat {number} and saw the dog" for number in range(100)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(tmp_path / "pieces"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "pieces.model").rename(folder / "sentencepiece.bpe.model")
    ours = load(str(folder)).tokenizer.encode("the cat saw 7 mats").ids
    assert ours == AutoTokenizer.from_pretrained(folder)("the cat saw 7 mats").input_ids
    assert ours.count(3) == 0  # <unk>


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config_setfit.json", {}, "of SetFit.*model_head.pkl"),
        ("model_head.pkl", {}, "of SetFit"),
        ("gliner_config.json", {}, "of GLiNER"),
        ("artifact.metadata", {}, "of ColBERT"),
        (CONFIG, {"architectures": ["HF_ColBERT"]}, "of ColBERT"),
        (CONFIG, {"model_type": "span-marker"}, "of SpanMarker"),
        (CONFIG, {"model_type": "model2vec"}, "of model2vec"),
        (CONFIG, {"model_type": ..., "architectures": ["StaticModel"]}, "of model2vec"),
        (SENTENCE, {"model_type": "ColBERT"}, "of ColBERT"),
        (SENTENCE, {"model_type": "MultiVectorEncoder"}, "of MultiVectorEncoder"),
        (SENTENCE, {"model_type": "SparseEncoder"}, "says SparseEncoder, but .* no modules.json"),
        (SENTENCE, {"model_type": "Unheard"}, "of Unheard"),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}, "1_Pooling but no modules.json"),
    ],
)
def test_a_folder_that_only_looks_plain(
    file: str, content: dict[str, Any], words: str, copied: Callable[..., Path]
) -> None:
    folder = copied("Model")
    (folder / "1_Pooling").mkdir()
    edit(folder / file, **content)
    with pytest.raises(ExportError, match=words):
        load(str(folder))


@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        (
            0,
            {"type": "custom_st.Transformer"},
            "custom_st.Transformer is not supported: it is not of",
        ),
        (1, {"name": "0"}, "several modules of the name 0"),
    ],
)
def test_modules_that_sentence_transformers_would_not_read(
    number: int, changes: dict[str, str], words: str, copied: Callable[..., Path]
) -> None:
    folder = pooled(copied("Model"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[number].update(changes)
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ExportError, match=words):
        load(str(folder))


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (CONFIG, "num_hidden_layers", 10**20),
        (CONFIG, "hidden_size", 10**8),
        (CONFIG, "num_labels", 0),
        (CONFIG, "architectures", 5),
        (TOKENIZER, "model_max_length", "512"),
        (SENTENCE, "default_prompt_name", ["query"]),
        (MODULE, "max_seq_length", True),
        ("1_Pooling/config.json", "pooling_mode", "median"),
    ],
)
def test_nonsense_is_refused_by_file_and_key(
    file: str, key: str, value: object, copied: Callable[..., Path]
) -> None:
    folder = pooled(copied("Model"), prompts={"query": "w1 "})
    edit(folder / file, **{key: value})
    with pytest.raises(ExportError) as refused:
        load(str(folder))
    assert f"{file}: {key} " in str(refused.value)


def test_a_model_type_of_null_is_none_at_all(copied: Callable[..., Path]) -> None:
    folder = pooled(copied("Model"), model_type=None)
    assert load(str(folder)).pooling == ("mean",)


def test_what_the_code_of_a_model_reads_by_name_is_read(copied: Callable[..., Path]) -> None:
    """DeBERTa asks for settings that its configuration does not declare."""
    folder = copied("Model", "DebertaV2")
    edit(folder / CONFIG, position_buckets=-1, share_att_key=False, norm_rel_ebd="none", gap=1)
    raw = json.loads((folder / CONFIG).read_text())
    notes = check_config(folder, raw, AutoConfig.from_pretrained(folder))
    assert notes == ("config.json: nobody reads gap",)


@pytest.mark.parametrize(
    ("model_type", "notes"),
    [
        ("SparseEncoder", ()),
        (
            "SentenceTransformer",
            ("config_sentence_transformers.json: nobody reads max_active_dims",),
        ),
    ],
)
def test_max_active_dims_is_of_sparse_encoders(
    model_type: str, notes: tuple[str, ...], tmp_path: Path
) -> None:
    edit(tmp_path / SENTENCE, model_type=model_type, max_active_dims=7)
    assert sentence_notes(tmp_path) == notes


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_file_of_the_tokenizer_is_named(
    name: str, content: str, copied: Callable[..., Path]
) -> None:
    folder = copied()
    (folder / name).write_text(content)
    with pytest.raises(ExportError, match=rf"{name} (cannot be read|must hold a JSON object)"):
        load(str(folder))
