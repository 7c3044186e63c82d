"""Servers that tests start for themselves: a throw-away PostgreSQL, and the sweeps' own proxy."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psycopg

HOW_TO_INSTALL = "needs PostgreSQL's server: apt-get install postgresql"
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
CONFIG = "\n".join(
    (
        "fsync = off",  # the machine will not lose power; `synchronous_commit` must stay on,
        # since otherwise a commit that was answered is lost when the server is stopped at once
        "full_page_writes = off",
        "listen_addresses = '127.0.0.1'",
        "unix_socket_directories = ''",
    )
)


def find_postgres() -> Path | None:
    """Return the folder of initdb and pg_ctl, Debian's newest or else the one on PATH."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    if found := sorted(debian, key=lambda path: int(path.parts[-3])):
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A cluster of its own in a folder, on a free port of the loopback; can go away and return."""

    def __init__(self, binaries: Path, folder: Path):
        self._binaries = binaries
        self._folder = folder
        self.port = free_port()
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            shutil.chown(folder, UNPRIVILEGED)
        self._run("initdb", "-D", str(folder / "data"), "-U", "tests", "-A", "trust", "-N")
        with (folder / "data/postgresql.conf").open("a") as config:
            config.write(f"\n{CONFIG}\nport = {self.port}\n")

    def start(self) -> Self:
        log = str(self._folder / "server.log")
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", log, "start")
        return self

    def stop(self) -> None:
        """Stop at once, connections cut off in the middle."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def new_database(self, name: str) -> str:
        """Make a database; return its URL."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://tests@127.0.0.1:{self.port}/{name}"

    def dsn(self, name: str) -> str:
        return f"postgresql://tests@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        user = UNPRIVILEGED if os.getuid() == 0 else None
        command = [str(self._binaries / program), *arguments]
        # To a file: the server inherits it, and a pipe would not end before the server does.
        with (self._folder.parent / f"{program}.log").open("a") as log:
            done = subprocess.run(
                command, user=user, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if done.returncode != 0:
            said = (self._folder.parent / f"{program}.log").read_text()
            raise RuntimeError(f"{program} failed with {done.returncode}: {said[-2000:]}")


@contextmanager
def postgres(folder: Path) -> Iterator[Postgres]:
    """A running cluster in `folder`, which any user must be able to reach."""
    binaries = find_postgres()
    if binaries is None:
        raise LookupError(HOW_TO_INSTALL)
    server = Postgres(binaries, folder).start()
    try:
        yield server
    finally:
        server.stop()


class Proxy:
    """The sweeps' proxy before a storage, while the block runs; can go away and return."""

    def __init__(self, storage: str):
        self.port = free_port()
        self.url = f"grpc://127.0.0.1:{self.port}"
        self._storage = storage
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        code = (
            "import sys; from sweeps.study.proxy import serve; "
            "serve(sys.argv[1], host='127.0.0.1', port=int(sys.argv[2]))"
        )
        command = [sys.executable, "-c", code, self._storage, str(self.port)]
        self._process = subprocess.Popen(command)
        wait_for_port(self.port)

    def stop(self) -> int | None:
        """Stop it as Ctrl-C does; return its exit status, None if it did not run."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(20)
        finally:
            process.kill()


def wait_for_port(port: int, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")
