"""Processes that do the work: workers, the trials they start, and where both run."""
