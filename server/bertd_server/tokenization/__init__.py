"""Texts and pairs of texts to what a model reads.

::

    text_queue     texts wait for the tokenizer: bounded, in slices, on the loop or on a thread
    reader         tokenizer.json ──> a Reading: one sequence, or windows that overlap
      refusals       texts that cannot be read
      windows        how many windows, of how many tokens, before one is built
      budget         how much one request may have
      least          what a text has at least, before it is read
      truncation     which tokens stay where not all fit; pure
      prompts        which of them pooling leaves out
      details        what is known of the tokens that are read
      pretokenized   sequences that callers made themselves
    tokens         tokens and where they stand, in code points and in bytes of UTF-8
"""
