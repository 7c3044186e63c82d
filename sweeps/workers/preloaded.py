"""What every trial's process would do again: done here once, by the server they are forked from.

Nothing here may start a thread: a fork has none of its parent's, and OpenMP does not survive that.
"""

import numba
import pandas as pd  # which pyarrow loads when a first table is made, a quarter of a second
import torch._dynamo  # which the first optimiser would load

from sweeps.trial import child, provenance

__all__ = ["child", "pd", "torch"]  # with torch, and all that a trial imports

# Whatever numba compiles or loads first makes it set its compiler up, half a second of one core.
numba.njit(lambda x: x)(1)
# Remembered from here on; it is also the moment at which the code was loaded.
provenance.git_commit()
provenance.versions()
