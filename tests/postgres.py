"""A Postgres server of the test's own: in a temporary folder, on a Unix socket there, without any network address."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.patience import PATIENCE_S

USER, DATABASE = "dagster", "dagster"


def find_postgres() -> Path | None:
    """Return the folder with `initdb` and `postgres`: of PATH, or of the newest Debian package."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def start_postgres(binaries: Path) -> Iterator[str]:
    """Start an empty server, and yield the URL of a database."""
    # Root may not run it; the user of the package or nobody must then be able to enter the folder.
    account = _find_account() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="mvl-pg-"))
    try:
        if account is not None:
            shutil.chown(folder, account, account if account != "nobody" else "nogroup")
        identity = {} if account is None else {"user": account}
        subprocess.run(
            [binaries / "initdb", "--pgdata", folder / "data", "--username", USER, "--auth", "trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            **identity,
        )
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-F"],
                stdout=log,
                stderr=log,
                cwd=folder,
                **identity,
            )
        try:
            _wait_until_ready(binaries, folder)
            subprocess.run([binaries / "createdb", "-h", folder, "-U", USER, DATABASE], check=True, cwd=folder)
            yield f"postgresql+psycopg2://{USER}@/{DATABASE}?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
            server.wait(PATIENCE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_account() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait_until_ready(binaries: Path, folder: Path) -> None:
    for _ in range(600):
        ready = subprocess.run([binaries / "pg_isready", "-q", "-h", folder, "-U", USER], check=False, cwd=folder)
        if ready.returncode == 0:
            return
        time.sleep(0.1)
    raise TimeoutError((folder / "log").read_text())
