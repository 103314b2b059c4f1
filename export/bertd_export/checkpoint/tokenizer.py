"""The checkpoint's tokenizer, as transformers chooses it, or as its vocabulary demands."""

from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from bertd.bundle import TokenizerRules
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import LARGE_INTEGER

from bertd_export.errors import ExportError


class LoadedTokenizer(NamedTuple):
    """A tokenizer, and what its config says of it as far as it does."""

    tokenizer: tokenizers.Tokenizer
    max_tokens: int | None
    mask_token_id: int | None
    rules: TokenizerRules
    stock: Any


def _lacks_vocabulary(folder: Path, tokenizer: Any) -> bool:
    """Whether transformers passed over the checkpoint's own vocab.txt.

    It chooses the tokenizer by the model's family. Where that is a SentencePiece one and the folder
    holds WordPiece's vocab.txt alone, as Korean ALBERTs do, it makes one that knows special tokens
    and nothing else.
    """
    path = folder / "vocab.txt"
    if not path.is_file() or (folder / "tokenizer.json").is_file():
        return False
    return not tokenizer.get_vocab().keys() >= _vocabulary_lines(path)


def _vocabulary_lines(path: Path) -> set[str]:
    try:
        return {line for line in path.read_text(encoding="utf-8").split("\n") if line}
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error


def _wordpiece(folder: Path) -> Any:
    """BERT's tokenizer from vocab.txt and what tokenizer_config.json says of it."""
    words = _vocabulary_lines(folder / "vocab.txt")
    lacking = {"[UNK]", "[CLS]", "[SEP]"} - words
    if lacking:
        raise ExportError(
            f"{folder}: transformers makes a tokenizer without the tokens of vocab.txt, which is "
            f"not WordPiece's either (no {', '.join(sorted(lacking))}): save the model's tokenizer "
            f"there as tokenizer.json"
        )
    try:
        return BertTokenizer.from_pretrained(folder)
    except Exception as error:
        raise ExportError(f"the tokenizer in {folder} cannot be loaded: {error}") from error


def load_tokenizer(folder: Path, *, lower: bool) -> LoadedTokenizer:
    """Load the checkpoint's tokenizer, without its padding and truncation.

    Args:
        folder: of the transformers model.
        lower: put texts into lower case first, as sentence-transformers' settings may ask.

    Raises:
        ExportError: it cannot be loaded, or is not a fast one.
    """
    loader: Any = AutoTokenizer
    try:
        fast = loader.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ExportError(f"the tokenizer in {folder} cannot be loaded: {error}") from error
    if _lacks_vocabulary(folder, fast):
        fast = _wordpiece(folder)
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise ExportError(f"{type(fast).__name__} is not a fast tokenizer")
    tokenizer = tokenizers.Tokenizer.from_str(fast.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if lower:
        steps = [tokenizers.normalizers.Lowercase()]
        if tokenizer.normalizer is not None:
            steps.append(tokenizer.normalizer)
        tokenizer.normalizer = tokenizers.normalizers.Sequence(steps)  # type: ignore[assignment,unused-ignore]
    limit = int(fast.model_max_length)
    return LoadedTokenizer(
        tokenizer,
        limit if limit < LARGE_INTEGER else None,
        fast.mask_token_id,
        _rules(fast, tokenizer),
        fast,
    )


def _rules(fast: Any, tokenizer: tokenizers.Tokenizer) -> TokenizerRules:
    """What the tokenizer gives of a text and of a pair, seen on what it gives."""
    kind = type(fast).__name__
    types = dict(fast("a", "a")).get("token_type_ids")
    if types is None:
        reason = f"model_input_names of {kind} lists no token_type_ids"
    elif max(types, default=0) == 0:
        reason = f"{kind} gives every token type 0"
    else:
        reason = f"{kind} gives the second text type 1"
    cased, lower = (tokenizer.encode(text).ids for text in ("Berlin WORDS", "berlin words"))
    return TokenizerRules(
        kind=kind,
        token_types=max(types or [0], default=0) > 0,
        token_types_reason=reason,
        lower_case=cased == lower,
    )
