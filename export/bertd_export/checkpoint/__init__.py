"""A checkpoint, read: the model in memory, and all that its folder says about how to use it.

::

    folder or hub id ──source──> files ──preflight, families──> refused, or worth loading
      sentence_transformers   which modules there are, prompts         ┐
      modules                 pooling, what stands behind it           │
      adapters                merged into the weights                  │
      tokenizer               as transformers or the vocabulary asks   │
      tasks                   what the head is for, what it answers    ├─loading──> Checkpoint
      positions               how they are numbered, how many there are┘

    texts   what goes into its model, and what comes out
"""
