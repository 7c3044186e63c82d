"""Findings of the Jamba paper as claims, designs and verdicts: one file each, listed in catalog.py.

A claim could fail. A design is fixed before it is run: named arms times paired seeds. A verdict is
computed from records alone: holds, does not hold, inconclusive, or not testable.
"""
