"""Any sequence of inserts and publishes leaves what the same sequence leaves in a dictionary."""

from __future__ import annotations

import tempfile

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mvl_assets.common.digest import DigestSum
from mvl_assets.lake.lake import Lake
from tests.lake.rows import pages

SOURCES = st.sampled_from(["a", "it's b"])
CONTENTS = st.dictionaries(st.integers(0, 7), st.sampled_from(["x", "y"]))


class TableAgainstDictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="mvl-test-")
        self.table = Lake(self.folder.name).get_table("category/ocr")
        self.model: dict[tuple[str, int], str] = {}

    @rule(source=SOURCES, rows=CONTENTS)
    def insert(self, source: str, rows: dict[int, str]) -> None:
        new = {(source, n): who for n, who in rows.items() if (source, n) not in self.model}
        added = sum(self.table.insert(pages(source, who, [n])) for n, who in rows.items())
        self.model |= new
        assert added == len(new)

    @rule(source=SOURCES, rows=CONTENTS)
    def publish(self, source: str, rows: dict[int, str]) -> None:
        before = {n: who for (s, n), who in self.model.items() if s == source}
        version = self.table.version
        done = self.table.publish([pages(source, who, [n]) for n, who in rows.items()], source)
        assert done.n_added == len(rows.keys() - before.keys())
        assert done.n_removed == len(before.keys() - rows.keys())
        assert done.n_changed == sum(before[n] != rows[n] for n in rows.keys() & before.keys())
        assert version == 0 or done.changed_anything == (done.version > version)
        self.model = {k: v for k, v in self.model.items() if k[0] != source}
        self.model |= {(source, n): who for n, who in rows.items()}

    @rule()
    def reopen(self) -> None:
        self.table = Lake(self.folder.name).get_table("category/ocr")

    @invariant()
    def the_table_holds_what_the_dictionary_holds(self) -> None:
        expected = [(s, pages(s, who, [n])["version_id"][0].as_py(), who) for (s, n), who in self.model.items()]
        result = [(r["source"], r["version_id"], r["license"]) for r in self.table.iter_rows()]
        assert sorted(result) == sorted(expected)
        digest = DigestSum()
        digest.add(pa.array([r["row_hash"] for r in self.table.iter_rows(["row_hash"])], pa.string()))
        assert self.table.compute_data_version() == digest.to_hex()

    def teardown(self) -> None:
        self.folder.cleanup()


TestTableAgainstDictionary = TableAgainstDictionary.TestCase
TestTableAgainstDictionary.settings = settings(
    max_examples=10, stateful_step_count=8, deadline=None, derandomize=True, database=None
)
