"""What a materialization shows: promised numbers, and previews that the data cannot break."""

from __future__ import annotations

import io
import re

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from mvl_assets.common import metadata_keys
from mvl_assets.common.digest import compute_digest
from mvl_assets.common.markdown import MAX_CELL_CHARS, escape_cell
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.tables import ImageRow
from mvl_assets.orchestration.metadata import (
    MAX_PREVIEW_BYTES,
    MAX_PREVIEW_IMAGES,
    get_table_name,
    render_preview,
)
from tests.defs.world import GENERAL, MATH, PARTITIONS, TABLES, World

TEXT = "<script>alert(1)</script> **bold** [link](https://example.org) | ![p](x) `code` $x_1$ # ~no~ \\frac {a}"


@pytest.mark.parametrize(("asset", "partition"), [*PARTITIONS, *((table, None) for table in TABLES)])
def test_every_materialization_carries_what_is_promised(built: World, asset: str, partition: str | None) -> None:
    event = latest(built, asset, partition)
    shown = event.metadata
    assert shown[metadata_keys.URI].value
    assert (event.tags or {})["dagster/data_version"]
    if asset.startswith("export/"):
        return
    rows = shown[metadata_keys.ROW_COUNT if partition is None else metadata_keys.PARTITION_ROW_COUNT].value
    assert isinstance(rows, int)
    table = built.lake.get_table("samples" if asset.startswith("raw/") else asset)
    if not asset.startswith("raw/"):
        assert rows <= shown[metadata_keys.ROW_COUNT].value <= table.count()
    assert shown[metadata_keys.TABLE_VERSION].value <= table.version
    assert shown[metadata_keys.TABLE_NAME].value == get_table_name(table)
    columns = shown[metadata_keys.COLUMN_SCHEMA].value.columns
    assert [c.name for c in columns] == table.schema.names and all(c.description for c in columns)
    if asset == "curation/contamination":
        return
    text = shown[metadata_keys.PREVIEW].value
    assert len(text.encode()) <= MAX_PREVIEW_BYTES
    assert text.count("data:image/jpeg") <= MAX_PREVIEW_IMAGES
    if partition is not None:
        assert rows > 0 and "data:image/jpeg" in text


def test_a_rewrite_is_shown_beside_the_answer_it_was_made_of_and_what_it_cost(built: World) -> None:
    shown = latest(built, "rewritten/code_math", GENERAL).metadata
    assert "| question | answer | original answer | blind |" in shown[metadata_keys.PREVIEW].value
    assert shown[metadata_keys.REQUESTS_SENT].value == 3 and shown[metadata_keys.COMPLETION_TOKENS].value > 0
    assert {
        metadata_keys.PROMPT_TOKENS,
        metadata_keys.COMPLETION_TOKENS_PER_S,
        metadata_keys.COST,
        metadata_keys.SECONDS,
        metadata_keys.MODEL,
        metadata_keys.REJECTS,
    } <= set(shown)
    judged = latest(built, "judged/code_math", MATH).metadata
    assert {
        metadata_keys.KEPT,
        metadata_keys.KEEP_RATE,
        metadata_keys.KEEP_RULE,
        metadata_keys.DROP_REASONS,
        metadata_keys.REJECTS,
    } <= set(judged)


def test_markup_in_the_data_stays_text() -> None:
    shown = escape_cell(TEXT)
    assert not re.search(r"[<>*\[\]()`|$~\\{}!]", shown)
    assert "&#95;1" in shown  # and not escaped twice
    assert shown.count("&") == shown.count("&#") == len(re.findall(r"[<>*\[\]()`|$~\\{}!_#]", TEXT))


def test_a_cell_is_short_and_its_long_words_break() -> None:
    assert len(escape_cell("word " * 1000)) <= MAX_CELL_CHARS
    assert max(len(part) for part in escape_cell("x" * 290).split("\u200b")) <= 40
    assert escape_cell("two\nlines\tand  spaces") == "two lines and spaces"


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (True, "yes"), (False, "no"), (0.592666, "0.5927"), (7, "7")])
def test_a_value_reads_as_a_person_writes_it(value: object, shown: str) -> None:
    assert escape_cell(value) == shown


def test_a_preview_stays_small_whatever_the_rows_hold(lake: Lake) -> None:
    """Noise does not compress, and every character needs an escape: the largest a row can get."""
    rng = np.random.default_rng(0)
    pictures = [picture(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)) for _ in range(6)]
    lake.images.insert(pictures)
    rows = [
        {
            "image_ids": [p.image_id, p.image_id],
            "conversations": [{"from": who, "value": "|" * 5000} for who in ("human", "gpt", "human", "gpt")],
            **{f"c{n}": "é|" * 500 for n in range(12)},
        }
        for p in pictures
    ]
    text = render_preview(lake, rows, ["question", "answer", *(f"c{n}" for n in range(12))]).value
    assert isinstance(text, str)
    assert len(text.encode()) <= MAX_PREVIEW_BYTES
    lines = text.splitlines()
    assert len(lines) > 2 and len({line.count("|") for line in lines}) == 1
    assert 1 <= text.count("data:image/jpeg") <= MAX_PREVIEW_IMAGES


def test_only_the_first_rows_of_a_preview_have_a_picture_and_more_pictures_are_counted(lake: Lake) -> None:
    one = picture(np.zeros((240, 240, 3), dtype=np.uint8))
    lake.images.insert([one])
    text = render_preview(lake, [{"image_ids": [one.image_id] * 3, "n": n} for n in range(6)], ["n"]).value
    assert isinstance(text, str)
    assert text.count("data:image/jpeg") == MAX_PREVIEW_IMAGES
    assert text.count(" +2 |") == 6


def test_no_rows_are_no_table(lake: Lake) -> None:
    assert render_preview(lake, [], ["question"]).value == "none"


def picture(pixels: np.ndarray) -> ImageRow:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = buffer.getvalue()
    return ImageRow(compute_digest(data), data, "PNG", pixels.shape[1], pixels.shape[0], 1, "RGB", None)


def latest(world: World, asset: str, partition: str | None) -> dg.AssetMaterialization:
    key = dg.AssetKey(asset.split("/"))
    with world.instance() as instance:
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition] if partition else None)
        (record,) = instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization
