"""The checkpoint's tokenizer, as transformers chooses it, or as its vocabulary demands."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from bertd.bundle import TokenizerRules
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.tokenization_utils_base import LARGE_INTEGER

from bertd_export.checkpoint.kinds import TOKENIZER, check_kinds
from bertd_export.checkpoint.settings import check_tokenizer_config
from bertd_export.checkpoint.source import read_object
from bertd_export.checkpoint.vocabulary import check_survival
from bertd_export.errors import ExportError

_VOCABULARIES = ("vocab.txt", "vocab.json", "spiece.model", "spm.model", "sentencepiece.bpe.model")
_OBJECTS = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")
# What reads SentencePiece models; later versions need a newer protobuf than grpcio-tools does.
_SENTENCEPIECE = "sentencepiece==0.2.1"
# Tokenizers that gave token types in transformers 4 and do not in 5.
_TYPED_BEFORE = ("AlbertTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")


class LoadedTokenizer(NamedTuple):
    """A tokenizer, and what its config says of it as far as it does."""

    tokenizer: tokenizers.Tokenizer
    max_tokens: int | None
    mask_token_id: int | None
    rules: TokenizerRules
    stock: Any
    notes: tuple[str, ...] = ()


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
    """BERT's tokenizer from vocab.txt and what tokenizer_config.json says of it.

    Raises:
        ExportError: the folder asks for another one, or vocab.txt is not for it.
    """
    asked = _stated(folder).get("tokenizer_class")
    if asked is not None and not str(asked).startswith("BertTokenizer"):
        raise ExportError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class is {asked}, with which "
            f"transformers reads no word of vocab.txt, so that every word is unknown: name "
            f"BertTokenizer, which reads it, or save the model's tokenizer there as tokenizer.json"
        )
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


class _Warnings(logging.Handler):
    """Keeps what transformers says while it tries one way of loading after another."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def _stated(folder: Path) -> dict[str, Any]:
    """What tokenizer_config.json says; nothing where there is none.

    Raises:
        ExportError: a key has a value that it cannot have.
    """
    path = folder / "tokenizer_config.json"
    stated = read_object(path) if path.is_file() else {}
    check_kinds(path, stated, TOKENIZER)
    return stated


def _check_kind(folder: Path, stated: dict[str, Any]) -> None:
    """Refuse a tokenizer that is a program, before transformers asks for that program's packages.

    Raises:
        ExportError: it is code of the checkpoint, or of transformers in Python.
    """
    kind = stated.get("tokenizer_class") or read_object(folder / "config.json").get(
        "tokenizer_class"
    )
    kind = kind if isinstance(kind, str) else None
    has_file = (folder / "tokenizer.json").is_file()
    known = tokenizer_class_from_name(kind) if kind else None
    if known is None and not has_file:
        if "auto_map" in stated:
            raise ExportError(
                f"{folder / 'tokenizer_config.json'}: auto_map names a tokenizer whose code comes "
                f"with the checkpoint, and a checkpoint's code is never run; if the tokenizer can "
                f"be written as tokenizer.json, put that beside it"
            )
        if kind is not None and not any((folder / name).is_file() for name in _VOCABULARIES):
            raise ExportError(
                f"{folder / 'tokenizer_config.json'}: tokenizer_class {kind} is unknown to "
                f"transformers, and there is no tokenizer.json: put the model's own there"
            )
    if known is not None and not issubclass(known, PreTrainedTokenizerFast):
        raise ExportError(
            f"{folder / 'tokenizer_config.json'}: tokenizer_class {kind} splits texts with a "
            f"program in Python, which a bundle cannot hold: its tokenizer.json holds rules alone, "
            f"and the server runs no code of models"
        )


def _load(folder: Path) -> Any:
    """The tokenizer as transformers chooses it.

    Raises:
        ExportError: it cannot be loaded; the message has the cause that transformers passed over.
    """
    loader: Any = AutoTokenizer
    heard = _Warnings()
    source = logging.getLogger("transformers")
    level = source.level
    source.addHandler(heard)
    source.setLevel(logging.WARNING)
    try:
        return loader.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        for name in _OBJECTS:
            if (folder / name).is_file():
                read_object(folder / name)  # names the file that is no JSON object
        pieces = next((line for line in heard.lines if "SentencePiece" in line), None)
        if pieces is None:
            names = ("tokenizer_config.json", *_OBJECTS, *_VOCABULARIES)
            found = [name for name in names if (folder / name).is_file()]
            raise ExportError(
                f"the tokenizer in {folder} cannot be loaded: {error}; its files are "
                f"{', '.join(found) or 'missing'}: take them from where the model comes from"
            ) from error
        cause = pieces.partition("due to")[2].rpartition("Falling back")[0].strip(" .\n") or pieces
        raise ExportError(
            f"the tokenizer in {folder} is a SentencePiece model that cannot be read: {cause}. It "
            f"takes `pip install '{_SENTENCEPIECE}'`, or the tokenizer saved as tokenizer.json by "
            f"transformers where that reads it"
        ) from error
    finally:
        source.setLevel(level)
        source.removeHandler(heard)


def load_tokenizer(folder: Path, *, lower: bool) -> LoadedTokenizer:
    """Load the checkpoint's tokenizer, without its padding and truncation.

    Args:
        folder: of the transformers model.
        lower: put texts into lower case first, as sentence-transformers' settings may ask.

    Raises:
        ExportError: it cannot be loaded, or is not a fast one.
    """
    stated = _stated(folder)
    _check_kind(folder, stated)
    fast = _load(folder)
    notes: list[str] = []
    if _lacks_vocabulary(folder, fast):
        notes.append(
            f"vocab.txt: {type(fast).__name__}, which transformers chooses by the family, reads "
            f"no word of it; the bundle reads it as BertTokenizer does"
        )
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
    rules = _rules(fast, tokenizer)
    return LoadedTokenizer(
        tokenizer,
        limit if limit < LARGE_INTEGER else None,
        fast.mask_token_id,
        rules,
        fast,
        (
            *notes,
            *check_tokenizer_config(folder, fast),
            *check_survival(folder, tokenizer, stated.get("do_lower_case")),
            *_read_differently(stated, rules),
        ),
    )


def _read_differently(stated: dict[str, Any], rules: TokenizerRules) -> tuple[str, ...]:
    """A note where transformers 4 gave token types of a pair and transformers 5 gives none."""
    if rules.token_types or "model_input_names" in stated or rules.kind not in _TYPED_BEFORE:
        return ()
    note = (
        f"transformers 4 gave the second text of a pair token type 1 with {rules.kind}, "
        f"transformers 5 gives type 0, and so does the bundle: to have type 1, list "
        f"token_type_ids under model_input_names in tokenizer_config.json"
    )
    return (note,)


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
