"""Benchmarks of models that have been trained: the paper's suite through lm-eval, and the needle.

`python -m sweeps eval RUN` runs a suite and writes records. Only `adapter.py` and `harness.py` need
lm-eval (extra `eval`), and nothing imports them before a suite of theirs is asked for.
"""
