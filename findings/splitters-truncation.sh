#!/usr/bin/env bash
# semantic-text-splitter 0.33.1, chonkie 1.7.0, tokenizers 0.23.3: splitters that count the tokens of a
# model's own tokenizer.json. Such files often say `truncation`, to 128 for example, with a model that
# takes 256. Into what pieces goes a text of about 900 tokens, of at most 256 each?
#
# Guess: four; a splitter switches truncation off, as it has to count beyond it.
# Seen:  semantic-text-splitter finds no text longer than 128, and so gives one piece of all 900, of
#        which a model then reads the beginning. chonkie's TokenChunker gives one piece of the first
#        126, without an error: the rest is in no piece. Its RecursiveChunker gives one piece of all,
#        SentenceChunker, which counts sentence by sentence, the four. Without truncation each gives four; of
#        TokenChunker each piece is then what the tokens decode to, in lower case and with [UNK] for
#        words that it lacks, and start_index and end_index count in that text, so that they name
#        other places of the original.
# Right: tokenizer.no_truncation() and no_padding() before it is handed to a splitter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet semantic-text-splitter==0.33.1 chonkie==1.7.0 \
  tokenizers==0.23.3 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
from chonkie import RecursiveChunker, SentenceChunker, TokenChunker
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", ".", "the", "train", "to", "busan", "leaves", "at", "nine"]
made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
made.normalizer = normalizers.BertNormalizer()
made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
made.decoder = decoders.WordPiece()
made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
text = "The train to Busan leaves at nine sharp. " * 100
tokens = len(made.encode(text).ids)


def pieces(tokenizer):
    """The pieces' texts, by splitter."""
    return {
        "TextSplitter": TextSplitter.from_huggingface_tokenizer(tokenizer, capacity=256).chunks(text),
        **{
            kind.__name__: [each.text for each in kind(tokenizer, chunk_size=256).chunk(text)]
            for kind in (TokenChunker, SentenceChunker, RecursiveChunker)
        },
    }


print(f"{tokens} tokens, {len(text)} characters")
whole = pieces(made)
made.enable_truncation(max_length=128)
cut = pieces(made)
for name in whole:
    print(f"{name}: {len(whole[name])} pieces; with truncation {len(cut[name])}, of",
          sum(map(len, cut[name])), "characters")
assert tokens == 902
assert all(len(found) == 4 for found in whole.values()), whole
assert len(cut["TextSplitter"]) == 1 and len(cut["TextSplitter"][0]) == len(text.strip())
assert len(cut["TokenChunker"]) == 1 and len(cut["TokenChunker"][0]) < 0.2 * len(text)
assert len(cut["SentenceChunker"]) == 4 and len(cut["RecursiveChunker"]) == 1

made.no_truncation()
first, second = TokenChunker(made, chunk_size=256).chunk(text)[:2]
print("TokenChunker's text:", repr(second.text[:60]))
print("at its place in the original:", repr(text[second.start_index :][:60]))
assert "[UNK]" in first.text and "Busan" not in first.text
assert text[second.start_index : second.end_index] != second.text
PYTHON
