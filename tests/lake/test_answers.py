"""The answer log finds what it holds, before and after compaction."""

from __future__ import annotations

import pytest

from mvl_assets.lake import answers as answers_module
from mvl_assets.lake.lake import Lake
from tests.lake.rows import answer


@pytest.mark.parametrize("known_before", [True, False])
def test_stored_answers_are_found_before_and_after_compaction(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, known_before: bool
) -> None:
    monkeypatch.setattr(answers_module, "COMMITS_PER_COMPACTION", 3)
    monkeypatch.setattr(answers_module, "ROWS_PER_FRAGMENT", 10)
    log, other = lake.get_answer_log("rewritten", "drawn"), Lake(lake.root).get_answer_log("rewritten", "drawn")
    keys = [answer(number).request_key for number in range(60)]
    with log:
        for start in range(0, 50, 5):
            log.append([answer(number) for number in range(start, start + 5)])
            if known_before:
                assert log.find_answered(keys) == set(keys[: start + 5])
        folded = len(log.table.open().get_fragments())
        assert folded <= 6
        assert log.find_answered(keys) == other.find_answered(keys) == set(keys[:50])
        for reader in (log, other):
            result = reader.get(keys[::7], ["text"])
            assert {key: row["text"] for key, row in result.items()} == {
                keys[number]: f"text {number}" for number in range(0, 50, 7)
            }


def test_a_missing_table_has_no_answers(lake: Lake) -> None:
    log = lake.get_answer_log("rewritten", "drawn")
    assert log.find_answered([answer(1).request_key]) == set()
    assert log.get([answer(1).request_key]) == {}
    assert log.count() == 0
