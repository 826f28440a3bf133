"""The scratch file of a run: rows come back in the order of the source, wherever the run began."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvl_assets.model_stage.spool import RowSpool, SpooledRow


@pytest.mark.parametrize("start", [0, 1, 3])
def test_batches_come_back_in_the_order_of_the_source(tmp_path: Path, start: int) -> None:
    batches = [[SpooledRow(number, ((f"{number}",),), (False,))] for number in range(4)]
    spool: RowSpool[int] = RowSpool(tmp_path / "rows")
    for position, batch in enumerate(batches[start:] + batches[:start]):
        if position == len(batches) - start:
            spool.mark_first_row()
        spool.write(batch)
    assert list(spool.iter_batches()) == batches
    assert list(spool.iter_batches()) == batches, "it can be read again"
    spool.close()


def test_an_empty_spool_has_no_batches(tmp_path: Path) -> None:
    spool: RowSpool[int] = RowSpool(tmp_path / "rows")
    assert list(spool.iter_batches()) == []
    spool.close()
