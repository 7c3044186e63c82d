"""Serves a storage to hundreds of workers through a few connections: Optuna's gRPC proxy.

The proxy asks for no password: whoever reaches its port may read and change the studies.
"""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import optuna

from sweeps.study.patient import PatientStorage
from sweeps.study.storage import open_storage, parse, shown
from sweeps.terminal import termination_as_interrupt

THREADS = 32
log = logging.getLogger(__name__)


def serve(
    storage: str, *, host: str = "localhost", port: int = 13_000, threads: int = THREADS
) -> None:
    """Serve the storage at the URL `storage` as grpc://host:port until Ctrl-C or SIGTERM.

    Each of `threads` answers one call at a time and may hold one connection to the database.
    ValueError for a storage that is itself a proxy, OSError for a port that cannot be had.
    """
    if parse(storage).drivername == "grpc":
        raise ValueError(f"storage: {shown(storage)} is a proxy already; give the database's URL")
    opened = _opened(storage, threads)
    pool = ThreadPoolExecutor(threads)
    log.warning("serving %s as grpc://%s:%d; Ctrl-C ends it", shown(storage), host, port)
    try:
        with termination_as_interrupt(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.run_grpc_proxy_server(opened, host=host, port=port, thread_pool=pool)
    except KeyboardInterrupt:
        log.warning("the proxy ends; workers wait for the next one")
    except RuntimeError as error:  # gRPC's way to say that the port is taken
        raise OSError(f"the proxy cannot listen on {host}:{port}: {error}") from None
    finally:
        opened.patience.end()  # calls that wait for the database would keep the process
        pool.shutdown(wait=False, cancel_futures=True)


def _opened(storage: str, threads: int) -> PatientStorage:
    """Return the storage at a URL. A new one is made, and that is said: the URL may be mistyped."""
    try:
        return open_storage(storage, connections=threads, make=False)
    except LookupError:
        opened = open_storage(storage, connections=threads)
        log.warning("there were no studies at %s; the tables for them are made", shown(storage))
        return opened
