"""LoRA adapters beside a model's weights: merged once, or refused by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bertd_export.checkpoint.adapters import check_adapter
from bertd_export.checkpoint.loading import load
from bertd_export.errors import ExportError
from helpers.tiny import save_tiny
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

RANK = 4
QUERY = "bert.encoder.layer.{}.attention.self.query"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "nobody/base",
    "r": RANK,
    "lora_alpha": 8,
    "target_modules": ["query"],
    "bias": "none",
    "init_lora_weights": True,
    "inference_mode": True,
    "task_type": "SEQ_CLS",
}
IDS = torch.arange(5, 25)[None]


def save_adapted(folder: Path, *, head: bool = False, **config: Any) -> dict[str, torch.Tensor]:
    """A random classifier with an adapter of its queries beside it; the adapter's weights."""
    save_tiny(folder, "bert", "text-classification", num_labels=2)
    generator = torch.Generator().manual_seed(5)
    weights = {
        f"base_model.model.{QUERY.format(layer)}.lora_{side}.weight": torch.randn(
            shape, generator=generator
        )
        * 0.4
        for layer in range(2)
        for side, shape in (("A", (RANK, 32)), ("B", (32, RANK)))
    }
    if head:
        weights["base_model.model.classifier.weight"] = torch.randn((2, 32), generator=generator)
        weights["base_model.model.classifier.bias"] = torch.randn(2, generator=generator)
        config["modules_to_save"] = ["classifier"]
    if config.get("use_dora"):
        for layer in range(2):
            name = f"base_model.model.{QUERY.format(layer)}.lora_magnitude_vector"
            weights[name] = torch.rand(32, generator=generator) + 0.5
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return weights


def base_of(folder: Path) -> Any:
    """The model without the adapter, which transformers would apply where peft is there."""
    aside, adapter = folder / "aside.json", folder / "adapter_config.json"
    adapter.rename(aside)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    aside.rename(adapter)
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is dep:FutureWarning")  # peft's
@pytest.mark.parametrize(
    ("config", "scale"),
    [({}, 8 / RANK), ({"use_rslora": True}, 8 / RANK**0.5), ({"use_dora": True}, 8 / RANK)],
    ids=["lora", "rslora", "dora"],
)
def test_an_adapter_is_merged_once(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    """W + s·B·A, s = alpha / r or alpha / √r; DoRA scales each row to a length that it knows.

    The adapter's classifier takes the place of the base's. peft's own model says the same,
    unmerged. (Of DoRA transformers 5.23.0 leaves the lengths aside where it applies the adapter.)
    """
    peft = pytest.importorskip("peft")
    weights = save_adapted(tmp_path, head=True, **config)
    model = base_of(tmp_path)
    plain = logits(model)
    own = {name.removeprefix("base_model.model."): value for name, value in weights.items()}
    with torch.no_grad():
        for layer in range(2):
            name = QUERY.format(layer)
            change = own[f"{name}.lora_B.weight"] @ own[f"{name}.lora_A.weight"]
            weight = model.get_submodule(name).weight
            weight += scale * change
            if config.get("use_dora"):
                length = own[f"{name}.lora_magnitude_vector"] / weight.norm(dim=1)
                weight *= length[:, None]
        model.classifier.weight.copy_(own["classifier.weight"])
        model.classifier.bias.copy_(own["classifier.bias"])
    ours = logits(load(str(tmp_path)).model)
    torch.testing.assert_close(ours, logits(model), atol=2e-5, rtol=1e-5)
    assert (ours - plain).abs().max() > 0.01
    theirs = peft.PeftModel.from_pretrained(base_of(tmp_path), str(tmp_path))
    torch.testing.assert_close(ours, logits(theirs), atol=2e-5, rtol=1e-5)


def test_a_merged_model_beside_its_adapter_is_refused(tmp_path: Path) -> None:
    """It would get the adapter twice; and so may one whose adapter is too small to be seen."""
    pytest.importorskip("peft")
    save_adapted(tmp_path)
    load(str(tmp_path)).model.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=r"may be .* \(they hold its change already\): if they"):
        load(str(tmp_path))
    weights = save_adapted(tmp_path)
    small = {name: value * 1e-3 for name, value in weights.items()}
    save_file(small, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ExportError, match=r"it is too small to tell\): if they are, remove"):
        load(str(tmp_path))


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Of another task, of other layers: whatever peft would leave aside or make up."""
    pytest.importorskip("peft")
    save_adapted(tmp_path)
    with pytest.raises(ExportError, match=r"it lacks base_model.model.encoder.*; choose the task"):
        load(str(tmp_path), "feature-extraction")
    weights = save_adapted(tmp_path)
    del weights[f"base_model.model.{QUERY.format(1)}.lora_A.weight"]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ExportError, match=r"it lacks base_model.model.bert.encoder.layer.1"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; LORA alone"),
        ({"peft_type": None}, "peft_type is None; LORA alone"),
        ({"bias": "all"}, "bias is 'all', which is not supported: merge it with peft"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"alora_invocation_tokens": [3]}, r"alora_invocation_tokens is \[3\]"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    save_adapted(tmp_path, **config)
    with pytest.raises(ExportError, match=words):
        load(str(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_adapter_alone_names_its_model(tmp_path: Path, missing: str) -> None:
    """Whatever head the base would get: a classifier of it may be random."""
    save_adapted(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ExportError, match=r"adapter without its model, which is 'nobody/base' by"):
        load(str(tmp_path))


def test_a_head_that_the_adapter_does_not_hold_stays_missing(tmp_path: Path) -> None:
    """A base without a classifier, and an adapter without one: it would be random."""
    pytest.importorskip("peft")
    save_adapted(tmp_path)
    save_tiny(tmp_path, "bert", "feature-extraction")
    with pytest.raises(ExportError, match="lacks weights that text-classification needs: classif"):
        load(str(tmp_path), "text-classification")
    save_adapted(tmp_path, head=True)
    save_tiny(tmp_path, "bert", "feature-extraction")
    assert load(str(tmp_path), "text-classification").model.num_labels == 2


def test_the_remedy_without_peft_is_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_adapted(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ExportError, match=r"pip install 'bertd\[export,peft\]'; or merge it with"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_weights_of_an_adapter_without_its_settings_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        ExportError, match=r"adapter_config\.json that says .* is missing: fetch it"
    ):
        check_adapter(tmp_path)
