"""Rows whose identities were made by another scheme are reported as unknown, never asked or ingested once more."""

from __future__ import annotations

import pytest

from mvl_assets.common.digest import KEY_SCHEME
from mvl_assets.ingest.existing import ExistingSamples
from mvl_assets.lake import answers as answers_module
from mvl_assets.lake import table as table_module
from mvl_assets.lake.errors import UnknownKeyScheme
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake_queries.removal.tombstones import add_tombstones, load_tombstones
from tests.lake.rows import answer, put, put_samples, sample


def test_answers_and_samples_carry_the_scheme_of_this_program(lake: Lake) -> None:
    put_samples(lake, "drawn", [sample("drawn", 1)])
    with lake.get_answer_log("rewritten", "drawn") as log:
        log.append([answer(1)])
    for table in (log.table, lake.get_table("samples")):
        assert [row["key_scheme"] for row in table.iter_rows()] == [KEY_SCHEME]


def test_answers_of_another_scheme_are_unknown_and_not_asked_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later, lake.get_answer_log("rewritten", "drawn") as log:
        later.setattr(answers_module, "KEY_SCHEME", KEY_SCHEME + 1)
        log.append([answer(1), answer(2)])
    with Lake(lake.root).get_answer_log("rewritten", "drawn") as log:
        log.append([answer(3)])
        with pytest.raises(UnknownKeyScheme, match="2 rows were made by another scheme"):
            log.find_answered([answer(3).request_key, answer(4).request_key])
        with pytest.raises(UnknownKeyScheme):
            log.get([answer(3).request_key])
    assert log.count() == 3


def test_samples_and_tombstones_of_another_scheme_stop_an_ingest_of_their_source_alone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_samples(lake, "drawn", [sample("drawn", 1, content_hash="a" * 32)])
    with monkeypatch.context() as later:
        later.setattr(table_module, "KEY_SCHEME", KEY_SCHEME + 1)
        put_samples(lake, "other", [sample("other", 1)])
        add_tombstones(lake, "other", [(None, None)])
    assert len(ExistingSamples(lake, "drawn").lookup([sample("drawn", 1)["sample_id"]])) == 1
    assert not load_tombstones(lake, "drawn")
    with pytest.raises(UnknownKeyScheme):
        ExistingSamples(lake, "other")
    with pytest.raises(UnknownKeyScheme):
        load_tombstones(lake, "other")


def test_publishing_a_partition_again_brings_its_rows_to_the_current_scheme(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [sample("drawn", 1)]
    with monkeypatch.context() as later:
        later.setattr(table_module, "KEY_SCHEME", KEY_SCHEME + 1)
        put(lake, "samples", SAMPLES, rows, "drawn")
    put(lake, "samples", SAMPLES, rows, "drawn")
    lake.get_table("samples").require_known_keys()
