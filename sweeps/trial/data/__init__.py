"""Text and tasks for one trial: from a named source to batches that depend on (seed, step) only.

    sources.py    where text comes from, as plain data (no torch, no tokenizers: a Recipe holds one)
    documents.py  documents, white space, and the split into train, valid and test
    packages.py   reads the default text from installed packages
    user_text.py  reads a user's files, or a data set of the Hugging Face hub
    tokenizer.py  byte-level BPE
    cache.py      the cache folder, its lock and its atomic writes
    streams.py    open_tokens(source, vocab) -> Tokens: built once, then opened from the cache
    batches.py    training batches, held-out windows, bits per byte
    tasks.py      tasks with a known answer, as plain data
    synthetic/    draws and answers them, one file a kind

This file imports nothing, so that importing `sources` stays cheap.
"""
