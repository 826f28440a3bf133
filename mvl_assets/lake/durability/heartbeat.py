"""Keeping a lease in an object store alive while its holder works.

Nothing there ends with the process that made it, so a lease lives for a limited time, and a thread of its holder renews
it. A holder that was paused, or cut off, for too long has to stop before others take its lease for dead: every commit
of a table asks first (`require_held_leases`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mvl_assets.lake.errors import LeaseHeld

RENEWALS_PER_LIFETIME = 6
# The rest of the lifetime is for a commit that has begun.
SAFE_SHARE = 0.5

_running: set[Heartbeat] = set()


def require_held_leases() -> None:
    """Raise `LeaseHeld` if this process has lost a lease that it works under."""
    for heartbeat in tuple(_running):
        heartbeat.require_held()


def read_clock() -> float:
    """Return seconds that also pass while the machine sleeps, whatever happens to the date."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Heartbeat:
    """Renewal of one lease by a thread, from `start` to `stop`."""

    def __init__(self, renew: Callable[[], None], lease_name: str, lifetime_s: float) -> None:
        """Prepare the renewal.

        Args:
            renew: Renews the lease. Raises `LeaseHeld` if another process has it; any other error is tried again.
            lease_name: What is leased, for messages.
            lifetime_s: Time after which others take a lease that was not renewed for dead.
        """
        self._renew = renew
        self._lease_name = lease_name
        self._lifetime_s = lifetime_s
        self._renewed_at = 0.0
        self._is_lost = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, taken_at: float) -> None:
        """Begin to renew a lease that was taken not before `taken_at`, by `read_clock`.

        Raises:
            LeaseHeld: That was too long ago.
        """
        self._renewed_at = taken_at
        self.require_held()
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="mvl-lease", daemon=True)
        self._thread.start()
        _running.add(self)

    def stop(self) -> None:
        """End the renewal."""
        _running.discard(self)
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def require_held(self) -> None:
        """Raise `LeaseHeld` if the lease is lost, or was not renewed for so long that it may be soon."""
        self._is_lost = self._is_lost or read_clock() - self._renewed_at > SAFE_SHARE * self._lifetime_s
        if self._is_lost:
            raise LeaseHeld(
                f"{self._lease_name}: this process was paused, or cut off from the store, and has lost its lease",
                hint="run the same command again; what was committed stays",
            )

    def renew(self) -> None:
        """Renew the lease now. Raises as `require_held`, and what the renewal raises."""
        self.require_held()
        started_at = read_clock()
        try:
            self._renew()
        except LeaseHeld:
            self._is_lost = True
            raise
        self.require_held()  # a pause just before the renewal reached the store
        self._renewed_at = started_at

    def _run(self) -> None:
        while not self._stopped.wait(self._lifetime_s / RENEWALS_PER_LIFETIME):
            try:
                self.renew()
            except LeaseHeld:
                return  # the holder learns of it at its next commit
            except Exception:  # noqa: S112 - the store may answer again in time; if not, the lease is lost
                continue
