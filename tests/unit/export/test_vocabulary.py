"""Whether a vocabulary survives its own tokenizer: known by its words, none else."""

from pathlib import Path

import pytest
from bertd_export.checkpoint.vocabulary import check_survival, survival, words_of
from bertd_export.errors import ExportError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]
LOWER = ["berlin", "paris", "the", "##lin", "ber", "river", "7", "!"]
CASED = ["Berlin", "Paris", "the", "##lin", "ber", "b", "river", "p", "##erlin", "##aris"]
AMINO_ACIDS = list("ACDEFGHIKLMNPQRSTVWY")
SMILES = ["C", "N", "O", "c", "n", "o", "Cl", "Br", "[nH]", "[C@H]", "(", ")", "=", "1"]
PIECES = ["▁나는", "▁오늘", "▁학교에", "▁갔다", "▁the"]
FOLDER = Path("checkpoint")


def wordpiece(words: list[str], *, lowercase: bool = True) -> Tokenizer:
    ids = {word: number for number, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106 - no password
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.normalizer = normalizer  # type: ignore[assignment,unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment,unused-ignore]
    tokenizer.add_special_tokens(SPECIAL[:5])
    return tokenizer


def test_words_are_what_stands_for_itself_in_a_text() -> None:
    assert words_of([*SPECIAL, *LOWER], SPECIAL) == ["berlin", "paris", "the", "ber", "river", "7"]


def test_words_are_spread_over_a_large_vocabulary() -> None:
    words = words_of([f"w{number}" for number in range(30_000)], ())
    assert (len(words), words[0], words[-1]) == (2000, "w0", "w29985")


@pytest.mark.parametrize(
    ("words", "lowercase"),
    [(LOWER, True), (LOWER, False), (CASED, False), (AMINO_ACIDS, False)],
)
def test_a_vocabulary_that_survives(words: list[str], lowercase: bool) -> None:
    found = survival(wordpiece(words, lowercase=lowercase))
    assert (found.unknown, found.changed) == ([], [])
    assert check_survival(FOLDER, wordpiece(words, lowercase=lowercase), None) == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (AMINO_ACIDS, r"20 of 20 words become unknown .*'A', 'C'.* set do_lower_case in .*false"),
        ([word.upper() for word in LOWER], "do_lower_case"),
        (SMILES, "do_lower_case"),
        (PIECES, "SentencePiece's pieces .*'▁나는'.* 5 of 5 words become unknown"),
    ],
    ids=["amino acids", "upper case", "SMILES", "SentencePiece"],
)
@pytest.mark.parametrize("stated", [None, True])
def test_words_that_become_unknown_are_refused(
    words: list[str], message: str, stated: bool | None
) -> None:
    with pytest.raises(ExportError, match=message):
        check_survival(FOLDER, wordpiece(words), stated)


def test_words_that_are_read_as_others_are_refused_unless_that_is_stated() -> None:
    """A cased vocabulary whose words still have pieces in lower case."""
    found = survival(wordpiece(CASED))
    assert (found.unknown, found.changed) == ([], ["Berlin", "Paris"])
    with pytest.raises(
        ExportError,
        match=r"2 of 7 words are read as other .* to false, .* set do_lower_case to true",
    ):
        check_survival(FOLDER, wordpiece(CASED), None)
    (note,) = check_survival(FOLDER, wordpiece(CASED), True)
    assert "2 of 7 words are read as other tokens ('Berlin', 'Paris')" in note


def test_pieces_of_a_unigram_vocabulary_survive_as_words() -> None:
    pieces = [("<unk>", 0.0), *((piece, -1.0) for piece in PIECES)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))  # type: ignore[arg-type,unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment,unused-ignore]
    assert survival(tokenizer) == (PIECES, [], [])
    tokenizer.normalizer = normalizers.Replace("the", "THE")  # type: ignore[assignment,unused-ignore]
    assert survival(tokenizer).unknown == ["▁the"]


def test_bytes_are_never_unknown() -> None:
    alphabet = {token: number for number, token in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    assert survival(tokenizer).words == []


def test_a_tokenizer_without_a_token_for_the_unknown_is_refused() -> None:
    tokenizer = wordpiece(LOWER)
    tokenizer.model.unk_token = "[WHAT]"  # noqa: S105 - no password
    with pytest.raises(ExportError, match=r"characters that it does not know .* unk_token"):
        check_survival(FOLDER, tokenizer, None)


def test_bytes_need_a_vocabulary_of_bytes() -> None:
    """A RobertaTokenizer on BERT's words reads nothing of a Korean text, and does not say so."""
    letters = {letter: place for place, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    for vocabulary in (letters, {letter: id_ for letter, id_ in letters.items() if letter != "Ġ"}):
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()  # type: ignore[assignment,unused-ignore]
        if "Ġ" in vocabulary:
            assert check_survival(FOLDER, tokenizer, None) == ()
        else:
            with pytest.raises(ExportError, match=r"a blank .* tokenizer_class"):
                check_survival(FOLDER, tokenizer, None)


def test_pieces_of_a_sentencepiece_model_are_not_called_misplaced() -> None:
    """It reads them; what it loses, an AlbertTokenizer's Korean for instance, is another matter."""
    pieces = [("<unk>", 0.0), *((piece.upper(), -1.0) for piece in ("▁cat", "▁dog", "▁sea"))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    lower = normalizers.Lowercase()
    tokenizer.normalizer = lower  # type: ignore[assignment,unused-ignore]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment,unused-ignore]
    with pytest.raises(ExportError, match=r"3 of 3 words become unknown tokens .* do_lower_case"):
        check_survival(FOLDER, tokenizer, None)
