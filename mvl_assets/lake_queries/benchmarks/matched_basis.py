"""Up to where all contents have met all benchmarks, by which the next run looks at what came since.

Without it, or where anything but new rows is other than it was, all current samples are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import lance
import pyarrow as pa

from mvl_assets.common.digest import KEY_SCHEME, compute_digest
from mvl_assets.lake.fragments import list_signed_fragments
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import BENCHMARK_COMPARED, BENCHMARK_MATCHES_BASIS, BENCHMARK_WAVES

MAX_ADDED_SHARE = 0.1
"""Share of the rows of `samples` from which on all are looked at: of few, what they have met is held in memory."""


@dataclass(frozen=True, slots=True)
class MatchedBasis:
    """What a run has looked at.

    Attributes:
        settings_digest: Digest of the training sources, and of the benchmarks in their states.
        fragments: Signatures of the fragments of `samples`.
        n_compared: Rows of `curation/benchmark_compared`.
        n_waves: Rows of `curation/benchmark_waves`.
    """

    settings_digest: str
    fragments: frozenset[str]
    n_compared: int = 0
    n_waves: int = 0


@dataclass(frozen=True, slots=True)
class SampleScope:
    """The rows of `samples` that a run has to look at.

    Attributes:
        basis: What a run over them has looked at when it is done, but for the numbers of rows that it stores.
        added_fragments: The fragments that came since the last run; None for all.
    """

    basis: MatchedBasis
    added_fragments: Sequence[lance.LanceFragment] | None

    @property
    def has_changes(self) -> bool:
        """Whether there is anything to look at."""
        return self.added_fragments is None or len(self.added_fragments) > 0


def find_scope(lake: Lake, sources: Sequence[str], states: Mapping[str, str]) -> SampleScope:
    """Return which rows of `samples` may not have met all benchmarks.

    Ingest appends, so what a run has looked at stays as it is: a sample's newest version is in a fragment that came
    since, or was its newest one before. Where a fragment went (it was compacted, or rows were purged), all rows count.

    Args:
        lake: The lake.
        sources: The training sources.
        states: State of the items by benchmark.
    """
    dataset = lake.get_table("samples").open_if_exists()
    fragments = {} if dataset is None else list_signed_fragments(dataset)
    digest = compute_digest(KEY_SCHEME, sorted(sources), sorted(states.items()))
    stored = _read_basis(lake)
    is_same = (
        stored is not None
        and stored.settings_digest == digest
        and stored.fragments <= fragments.keys()
        and stored.n_compared <= lake.get_table(BENCHMARK_COMPARED.name).count()
        and stored.n_waves <= lake.get_table(BENCHMARK_WAVES.name).count()
    )
    basis = MatchedBasis(digest, frozenset(fragments))
    if stored is None or not is_same:
        return SampleScope(basis, None)
    added = [fragments[name] for name in sorted(fragments.keys() - stored.fragments)]
    n_added, n_rows = (sum(f.physical_rows for f in some) for some in (added, fragments.values()))
    return SampleScope(basis, added if n_added <= MAX_ADDED_SHARE * n_rows else None)


def record_basis(lake: Lake, basis: MatchedBasis, *, run_id: str) -> None:
    """Store what a run has looked at, once all that came of it is stored; it adds the numbers of rows."""
    row = {
        "basis_id": compute_digest(BENCHMARK_MATCHES_BASIS.name),
        "settings_digest": basis.settings_digest,
        "fragments": sorted(basis.fragments),
        "n_compared": lake.get_table(BENCHMARK_COMPARED.name).count(),
        "n_waves": lake.get_table(BENCHMARK_WAVES.name).count(),
        "run_id": run_id,
    }
    table = lake.get_table(BENCHMARK_MATCHES_BASIS.name)
    table.publish([pa.Table.from_pylist([row], schema=BENCHMARK_MATCHES_BASIS.columns)])


def _read_basis(lake: Lake) -> MatchedBasis | None:
    columns = ["settings_digest", "fragments", "n_compared", "n_waves"]
    for row in lake.get_table(BENCHMARK_MATCHES_BASIS.name).iter_rows(columns):
        return MatchedBasis(**row | {"fragments": frozenset(row["fragments"])})
    return None
