"""How fast this code is beside others': `python -m sweeps bench`, `profile` and `limits`.

A *contender* is one implementation of the same model with the same weights: each back end of ours
(`hybrid.ops.ALL`; `reference` is the plain loop in torch), transformers' Jamba, mambapy's Jamba.
Each is first held against ours, then all are timed in turn, and the ratio to the baseline is taken
within each turn, so that what else happens on the machine cancels.

    setting.py     what is measured
    contender.py   what a contender can be asked; entries.py lists those there are
    ours.py  with_transformers.py  with_mambapy.py   the contenders
    agree.py       whether a contender computes the same; judge.py who takes part therefore
    phases.py      training step, prefill, decode and scans, as tasks of a clock
    clock.py       tasks in turn, medians, quartiles, ratios
    peak.py        memory, in a process of its own
    roof.py        what the machine does at best; reckon.py the share of it that is reached
    record.py      Row <-> one row of Parquet
    run.py         joins these; table.py shows rows, page.py makes docs/speed.md
    profile.py     the share of each part in a training step; parts.py says which operator is what
    limits.py      batches doubled until memory is exhausted; weigh.py what one takes,
                   limits_table.py shows them
    figure.py      throughput by context, batch and ratio
    cli.py         the commands; options.py what they share
"""
