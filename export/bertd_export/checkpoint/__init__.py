"""A checkpoint, read: model, tokenizer, task, family, modules of sentence-transformers."""
