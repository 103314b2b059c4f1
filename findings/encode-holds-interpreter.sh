#!/usr/bin/env bash
# tokenizers 0.23.3: a server's event loop hands a long text to a thread, to tokenise it there. Does
# the loop have Python's interpreter meanwhile?
#
# Guess: yes, always: a text is encoded in Rust, so that encode, encode_batch, decode and
#        decode_batch all let go of the interpreter, as hashlib and numpy do for long work.
# Seen:  the batch calls do, and the plain ones do not. While encode or decode of 50,000 tokens runs
#        on a thread, 50 to 70 ms, no line of Python runs on any other: a thread that counts gets a
#        tenth of the time, between two calls. With encode_batch([text])[0] and decode_batch([ids])[0]
#        it gets as much as the tokeniser. So asyncio.to_thread(tokenizer.encode, text) stops the loop
#        for as long as tokenizer.encode(text) does; async_encode, which is there too, does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet tokenizers==0.23.3
"$folder/env/bin/python" - <<'PYTHON'
import asyncio
import sys
import threading
import time

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

words = {word: number for number, word in enumerate(["[UNK]", *"abcdefghij"])}
tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.decoder = decoders.WordPiece()
text = "a b c d e f g h i j " * 5_000
ids = tokenizer.encode(text).ids
assert len(ids) == 50_000

sys.setswitchinterval(0.0005)
counted, ends = 0.0, False


def count():
    """Python on another thread; notes the CPU time that it had."""
    global counted
    while not ends:
        for _ in range(1_000):
            pass
        counted = time.thread_time()


def share(call):
    """CPU time of Python beside 8 calls, as a multiple of theirs."""
    call()
    own, other = time.thread_time(), counted
    for _ in range(8):
        call()
    return (counted - other) / (time.thread_time() - own)


async def beside_async():
    """Steps that the event loop makes while a text is encoded."""
    steps, done = 0, asyncio.ensure_future(tokenizer.async_encode(text))
    while not done.done():
        await asyncio.sleep(0)
        steps += 1
    return steps


thread = threading.Thread(target=count)
thread.start()
try:
    alone = {"encode": lambda: tokenizer.encode(text), "decode": lambda: tokenizer.decode(ids)}
    batch = {
        "encode_batch": lambda: tokenizer.encode_batch([text]),
        "encode_batch_fast": lambda: tokenizer.encode_batch_fast([text]),
        "decode_batch": lambda: tokenizer.decode_batch([ids]),
    }
    shares = {name: share(call) for name, call in (alone | batch).items()}
finally:
    ends = True
    thread.join()
print({name: round(each, 2) for name, each in shares.items()})
assert max(shares[name] for name in alone) < 0.4, shares
assert min(shares[name] for name in batch) > 0.5, shares
steps = asyncio.run(beside_async())
print("steps of the loop beside async_encode:", steps)
assert steps > 10
PYTHON
