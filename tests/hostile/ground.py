"""A source full of traps, taken into a lake as any other: what every case of it became."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.ingest.ingest import IngestReport, ingest_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.views import iter_current_samples
from tests.raw_files import make_image, put

MEMORY = 700 << 20
"""Bytes that taking in any of the sources may add to the process."""

SECRET = b"a secret outside of the source's folder"


@dataclass(frozen=True, slots=True)
class Taken:
    """What the lake holds afterwards: rejects as (file, position) -> row, samples as (file, position) -> row."""

    report: IngestReport
    rejects: dict[tuple[str, int], dict[str, Any]]
    samples: dict[tuple[str, int], dict[str, Any]]
    images: dict[str, dict[str, Any]]
    grown: int

    def reject(self, file: str, position: int) -> tuple[str, str]:
        """(error class, message) of a row. Every reject names its source, stage and reason."""
        row = self.rejects[file, position]
        assert (row["stage"], row["source"], row["run_id"]) == ("raw", "demo", "hostile")
        assert row["message"] and len(row["message"]) <= 500
        return row["error"], row["message"]


def take_in(spec: SourceSpec, folder: Path, build: Callable[[Path], None]) -> Taken:
    """Builds the source in `folder`/outside/root beside a secret, and takes it in; nothing outside of it may change."""
    outside = folder / "outside"
    root = outside / "root"
    put(outside, "secret.png", SECRET)
    put(outside, "fine.png", make_image(1, (16, 16)))
    root.mkdir()
    build(root)
    before = _state(outside)
    lake = Lake(str(folder / "lake"))
    with _memory() as grown:
        report = ingest_source(lake, spec, root, run_id="hostile")
    assert _state(outside) == before
    rejects = list(lake.get_table("rejects").iter_rows())
    samples = list(iter_current_samples(lake, spec.slug))
    assert len({(r["file"], r["position"]) for r in rejects}) == len(rejects) == sum(report.reject_counts.values())
    again = ingest_source(lake, spec, root, run_id="hostile")
    assert (again.n_new, again.n_changed, again.n_withdrawn, again.reject_counts) == (0, 0, 0, report.reject_counts)
    return Taken(
        report,
        {(r["file"], r["position"]): r for r in rejects},
        {(s["file"], s["position"]): s for s in samples},
        {
            row["image_id"]: row
            for row in lake.images.table.iter_rows(["image_id", "format", "width", "height", "n_frames", "mode"])
        },
        grown[0],
    )


def _state(outside: Path) -> dict[str, tuple[int, int]]:
    """Every file with size and time, but for what indexing archives leaves in the source's own `.unpacked`."""
    result = (p for p in outside.rglob("*") if ".unpacked" not in p.parts)
    stats = {str(p): p.lstat() for p in result if p != outside / "root"}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@contextmanager
def _memory() -> Iterator[list[int]]:
    """Bytes by which the process's peak inside the block exceeds what it held before."""
    grown = [0]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    yield grown
    grown[0] = _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def link(root: Path, name: str, target: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).symlink_to(target)
