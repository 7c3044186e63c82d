"""The ops on CPU, through numba kernels on lanes of sixteen channels; float32 or bfloat16."""
