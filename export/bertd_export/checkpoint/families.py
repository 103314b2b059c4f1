"""Which model families can be exported, and how their attention is packed.

==========  ======================================================================================
layout      attention
==========  ======================================================================================
interface   goes through transformers' attention interface, where one operator takes its place
biased      adds a bias that depends on positions; the bias is computed for each sequence alone
==========  ======================================================================================

A family that is not in the table but uses the interface is tried: counting attention calls and
comparing with PyTorch decide.
"""

from typing import Any, Literal, NamedTuple

from transformers import AutoModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from bertd_export.errors import ExportError

Layout = Literal["interface", "biased"]


class ModelFamily(NamedTuple):
    """A family that the tests export."""

    layout: Layout
    note: str = ""


FAMILIES: dict[str, ModelFamily] = {
    "albert": ModelFamily("interface", "layers share weights, and so do their merged projections"),
    "bert": ModelFamily("interface"),
    "camembert": ModelFamily("interface", "positions as RoBERTa"),
    "data2vec-text": ModelFamily("interface", "positions as RoBERTa"),
    "deberta-v2": ModelFamily("biased", "DeBERTa v2 and v3; without a convolution after layer one"),
    "distilbert": ModelFamily("interface", "no token types"),
    "electra": ModelFamily("interface"),
    "ernie": ModelFamily("interface", "task types at their default"),
    "eurobert": ModelFamily("interface", "rotary positions, grouped keys"),
    "modernbert": ModelFamily("interface", "rotary positions, global and local attention"),
    "mpnet": ModelFamily("biased", "positions as RoBERTa, no token types"),
    "nomic_bert": ModelFamily("interface", "rotary positions"),
    "roberta": ModelFamily("interface", "positions from padding_idx + 1, pad tokens not counted"),
    "roberta-prelayernorm": ModelFamily("interface", "positions as RoBERTa"),
    "xlm-roberta": ModelFamily("interface", "positions as RoBERTa"),
    "xlm-roberta-xl": ModelFamily("interface", "positions as RoBERTa"),
    "xmod": ModelFamily("interface", "positions as RoBERTa; the default language's adapters"),
}

REFUSED: dict[str, str] = {
    "mobilebert": "its embeddings join neighbouring tokens, also across texts",
}


def supported() -> str:
    """The families of the table, for a refusal."""
    return f"tested families: {', '.join(sorted(FAMILIES))}"


def _not_an_encoder(config: Any) -> str | None:
    """Why a model is no encoder, as far as its config says it; None where it does not."""
    if getattr(config, "is_encoder_decoder", False):
        return "it has a decoder beside its encoder"
    if getattr(config, "is_decoder", False):
        return "is_decoder in its config.json makes its attention causal"
    kind = config.model_type
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if causal and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES and kind not in FAMILIES:
        return "it is a causal language model, not an encoder"
    return None


def check_family(config: Any) -> None:
    """Refuse, before its weights are read, a model that cannot be packed.

    Raises:
        ExportError: it names the reason, and the families that are supported.
    """
    kind = str(config.model_type)
    reason = REFUSED.get(kind) or _not_an_encoder(config)
    if reason is not None:
        raise ExportError(f"{kind} is not supported: {reason}; {supported()}")
    if kind in FAMILIES:
        return
    mapping: Any = AutoModel._model_mapping  # noqa: SLF001 - transformers has no public name
    if type(config) not in mapping:
        raise ExportError(f"{kind} is not an encoder that transformers knows; {supported()}")
    model = mapping[type(config)]
    if not getattr(model, "_supports_attention_backend", False):
        raise ExportError(
            f"{kind} is not supported: its attention does not go through transformers' "
            f"attention interface; {supported()}"
        )


def check_attention_calls(config: Any, found: int) -> None:
    """Refuse a model whose attention was not replaced in every layer.

    Raises:
        ExportError: the count is not that of the config.
    """
    expected = attention_calls(config)
    if found != expected:
        raise ExportError(
            f"{config.model_type} calls attention {expected} times, but transformers' attention "
            f"interface was called {found} times: its attention cannot be packed"
        )


def describe_family(config: Any) -> str:
    """A line about the family, for whoever exports it."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        return f"{config.model_type} is not among the tested families: the comparison will decide"
    how = "" if family.layout == "interface" else ", with a position bias computed per sequence"
    return f"{config.model_type} is a tested family: packed{how}"


def attention_calls(config: Any) -> int:
    """How often one pass through the model calls attention."""
    return int(config.num_hidden_layers) * int(getattr(config, "inner_group_num", 1))
