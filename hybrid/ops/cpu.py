"""The ops on CPU. Placeholder while the kernels are written: the reference, under this name."""

from hybrid.ops.reference import attend, conv, scan

__all__ = ["attend", "conv", "scan"]
