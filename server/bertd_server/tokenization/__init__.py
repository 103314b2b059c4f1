"""Texts and pairs of texts to what a model reads.

::

    text_queue     texts wait for the tokenizer: bounded, in slices, on the loop or on a thread
    reader         tokenizer.json ──> a Reading: one sequence, or windows that overlap
      truncation     which tokens stay where not all fit; pure
      prompts        which of them pooling leaves out
      pretokenized   sequences that callers made themselves
    tokens         tokens and where they stand, in code points and in bytes of UTF-8
"""
