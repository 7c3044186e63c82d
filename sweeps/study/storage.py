"""Where a study is kept: opens Optuna storages by URL, and keeps their passwords out of sight.

    sqlite:////path/study.sqlite3                    one file; the default
    postgresql+psycopg://user:password@host/name     a server (extra `postgres`)
    grpc://host:port                                 Optuna's proxy before a server (extra `grpc`)

What is opened waits for a database that is away (`sweeps/study/patient.py`).
"""

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import Connection, create_engine, event, exc, inspect
from sqlalchemy.engine import URL, make_url

from sweeps.study.patient import PATIENCE_SECONDS, Patience, PatientStorage, passes

FORMS = "sqlite:///FILE, postgresql+psycopg://USER:PASSWORD@HOST/NAME or grpc://HOST:PORT"
SQLITE_BUSY_SECONDS = 60
# Of Python's driver, as SQLAlchemy takes them in a URL. With `uri`, SQLite's own are taken as well.
SQLITE_OPTIONS = {
    "timeout",
    "isolation_level",
    "detect_types",
    "check_same_thread",
    "cached_statements",
}
# What the later of two says who make the tables at once: of a table, and of the row in it.
MADE_TWICE = ("already exists", "alembic_version", "version_info")
# libpq's own names. A server whose machine is gone is noticed by these, not by an answer.
POSTGRES_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # the default lets two minutes pass
    # The server takes pings more often than every five minutes for an attack, and cannot be told.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


def open_storage(
    url: str, *, patience_s: float = PATIENCE_SECONDS, connections: int = 5, make: bool = True
) -> PatientStorage:
    """Return the storage at `url`; it waits up to `patience_s` when the database is away.

    `connections` is how many threads may talk to a PostgreSQL server at once. Without `make`,
    nothing is made where no studies are kept yet: LookupError. ValueError for a URL of no known
    form, ImportError for a missing driver, StorageAway when patience ends.
    """
    parsed = parse(url)
    patience = Patience(shown(url), patience_s)
    if not make and parsed.drivername != "grpc":
        patience(lambda: _require_studies(parsed), passes=passes)
    match parsed.get_backend_name():
        case "sqlite":
            database = patience(lambda: _sqlite(parsed), passes=_passes_at_opening)
        case "postgresql":
            database = patience(lambda: _postgres(parsed, connections), passes=_passes_at_opening)
        case _:
            return PatientStorage(_proxy(parsed), patience)
    return PatientStorage(optuna.storages.get_storage(database), patience, database)


def parse(url: str) -> URL:
    """Return `url` in parts; ValueError, without the password, if it is of no known form."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise ValueError(f"storage: what was given is not a URL; it would be {FORMS}") from None
    known = ("sqlite", "postgresql", "postgresql+psycopg", "grpc")
    if parsed.drivername not in known:
        raise ValueError(f"storage: {shown(url)} is of no known form; it would be {FORMS}")
    if parsed.drivername == "grpc" and not (parsed.host and parsed.port):
        raise ValueError(f"storage: {shown(url)} must be grpc://HOST:PORT")
    if parsed.drivername == "sqlite":
        _check_options(parsed, url)
        _check_folder(parsed)
    return parsed.set(drivername="postgresql+psycopg") if _is_postgres(parsed) else parsed


def absolute(url: str) -> str:
    """Return `url` so that it names the same database in every folder; ValueError as in `parse`."""
    parsed = parse(url)
    named = parsed.database not in (None, "", ":memory:") and "uri" not in parsed.query
    if parsed.drivername != "sqlite" or not named:
        return url
    path = str(Path(str(parsed.database)).resolve())
    return parsed.set(database=path).render_as_string(hide_password=False)


def shown(url: str) -> str:
    """Return the URL as it may be printed: a password in it is three stars."""
    parsed = make_url(url)
    secret = {key: "hidden" for key in parsed.query if "pass" in key.lower()}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)


def _is_postgres(parsed: URL) -> bool:
    return parsed.get_backend_name() == "postgresql"


def _check_options(parsed: URL, url: str) -> None:
    """Refuse what follows a question mark and is no option: it is cut off a path without a word."""
    _, mark, _ = url.partition("?")
    unknown = set() if parsed.query.get("uri") else parsed.query.keys() - SQLITE_OPTIONS
    if mark and (unknown or not parsed.query):
        raise ValueError(
            f"storage: what follows ? in {url} is no option of sqlite; "
            "in a path, ? is written %3F and % is written %25"
        )


def _require_studies(parsed: URL) -> None:
    """Raise LookupError where no studies are kept, and make nothing."""
    database = parsed.database or ":memory:"
    made = parsed.drivername != "sqlite" or parsed.query.get("uri") or Path(database).is_file()
    if not (made and _has_studies(parsed)):
        raise LookupError(
            f"there are no studies at {shown(parsed.render_as_string(hide_password=False))}; "
            "`python -m sweeps run` makes them"
        )


def _has_studies(parsed: URL) -> bool:
    try:
        engine = create_engine(parsed)
    except ImportError:
        raise _no_driver(parsed) from None
    try:
        return inspect(engine).has_table("studies")  # Optuna's
    except exc.DatabaseError as error:
        if "file is not a database" not in str(error):  # SQLite's words
            raise
        raise ValueError(f"storage: {parsed.database} is no SQLite database") from None
    finally:
        engine.dispose()


def _check_folder(parsed: URL) -> None:
    database = parsed.database or ":memory:"
    if database != ":memory:" and not Path(database).parent.is_dir():
        raise ValueError(f"storage: the folder of {database} does not exist")


def _sqlite(parsed: URL) -> RDBStorage:
    storage = _relational(parsed, {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}})

    # Optuna claims a trial by reading its state and then writing it. SQLite has no row locks, and
    # Python's driver begins a transaction at the first write, so two workers could both read
    # "waiting". Locking at the beginning makes a claim atomic.
    # A commit in a write-ahead log waits for no disk: a killed process loses nothing, a power cut
    # at most the last changes and never the file; and what is lost here, the records still hold.
    def by_hand(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()
    event.listen(storage.engine, "connect", by_hand)
    event.listen(storage.engine, "begin", begin)
    return storage


def _postgres(parsed: URL, connections: int) -> RDBStorage:
    return _relational(
        parsed,
        {
            # No `pool_pre_ping`: it doubles the transactions, and a connection found broken is only
            # one more call that is made again.
            "connect_args": POSTGRES_CONNECT,
            "pool_size": 1,  # a worker that trains holds one connection of the server's, not five
            "max_overflow": max(connections - 1, 0),
        },
    )


def _relational(parsed: URL, engine_kwargs: dict[str, Any]) -> RDBStorage:
    # Optuna fills in braces. There are none: in a URL they are written %7B and %7D.
    try:
        return RDBStorage(parsed.render_as_string(hide_password=False), engine_kwargs=engine_kwargs)
    except ImportError:
        raise _no_driver(parsed) from None


def _no_driver(parsed: URL) -> ImportError:
    return ImportError(
        f"storage: {parsed.get_backend_name()} needs its driver: "
        "pip install 'hybrid-workbench[postgres]'"
    )


def _passes_at_opening(error: BaseException) -> bool:
    """As `passes`, and two workers may make the tables at the same moment: one of them fails."""
    made_twice = isinstance(error, exc.IntegrityError | exc.ProgrammingError | exc.OperationalError)
    said = str(error)
    return passes(error) or (made_twice and any(words in said for words in MADE_TWICE))


def _proxy(parsed: URL) -> BaseStorage:
    try:
        import grpc
    except ImportError:
        raise ImportError(
            "storage: grpc:// needs gRPC: pip install 'hybrid-workbench[grpc]'"
        ) from None
    from optuna.storages._grpc import client

    assert parsed.host is not None
    assert parsed.port is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=parsed.host, port=parsed.port)
    # Optuna has no parameter for a channel's options, and with gRPC's own a worker would be blind
    # for up to two minutes after the proxy is back: longer than the grace of a heartbeat.
    storage.close()
    storage._channel = grpc.insecure_channel(f"{parsed.host}:{parsed.port}", options=CHANNEL)
    storage._stub = client.api_pb2_grpc.StorageServiceStub(storage._channel)
    storage._cache = client.GrpcClientCache(storage._stub)
    return storage
