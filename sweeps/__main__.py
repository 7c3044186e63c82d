"""python -m sweeps: the command line of `sweeps.cli`, started as fast as it can be.

What runs trials has their server load beside the command itself. Nothing that is loaded here is
garbage, and not looking for it saves a second.
"""

import gc
import sys

from sweeps.trial.progress_log import saying
from sweeps.workers import server

if __name__ == "__main__":
    if sys.argv[1:2] in (["run"], ["worker"]):
        server.begin_loading()
    gc.disable()
    with saying("loading the program"):
        from sweeps.cli import app

    gc.enable()
    sys.exit(app())
