"""Findings under the rules of gates, five outcomes and tuned comparisons, not run yet.

`python -m ablations plan` prints what they lack and what that costs. The modules beside this folder
judge the committed records by the rules before. They go when the records of these rules are in.
"""
