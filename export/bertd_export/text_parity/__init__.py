"""Whether a bundle answers raw texts as the library does that a user would compare it with.

::

    raw texts, pairs, prompts ──references──> sentence-transformers or transformers, same folder ─┐
              └────────────────served───────> the bundle: reader, engine, head ───────────────────┤
                                              the largest difference, the first differing text <──┘

The parity of a graph begins at token ids that bertd has made; this begins where a user does.
"""
