"""Findings of the Jamba paper as claims, designs and verdicts: one file each. None yet."""
