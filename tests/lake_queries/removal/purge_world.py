"""A lake with two sources in every table, which share a picture; and a process that is killed while it purges one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, CONTAMINATION, DUPLICATES, JUDGED, REWRITTEN
from mvl_assets.lake.schemas.rows import ImageRow, Reject
from mvl_assets.lake.schemas.training_tables import EVALUATION, MIXTURE, PACK_PLAN
from mvl_assets.lake.table import Table
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.lake_queries.packed_rows import build_packed_table
from mvl_assets.lake_queries.rejects import build_reject_table, publish_rejects
from mvl_assets.lake_queries.removal import purge as module
from mvl_assets.lake_queries.removal.purge import Purge
from mvl_training.evaluation.held_out.questions import build_question
from tests.lake.rows import answer, category_row, judgement, make_image, put, put_samples, rewrite, sample

GONE, STAYS = "gone", "stays"
SOURCES = (GONE, STAYS)
STAGE = "single_image"
# Row 3 is an exact copy of row 0; row 2 was answered by the request of row 1.
SAYS = (0, 1, 2, 0)
ASKED = (0, 1, 1, 3)
# Small, middling and large: Lance keeps them in three different kinds of place.
SIZES = (3_000, 120_000, 3_000_000)

Row = dict[str, Any]


def own_image(source: str, row: int) -> ImageRow:
    return make_image(int(compute_digest(source, row)[:8], 16), SIZES[SAYS[row]])


SHARED = make_image(1, 50_000)


def secret(source: str, row: int) -> str:
    """The words of a row; what was made of it holds them, too."""
    return f"{source} said {compute_digest(source, 'secret', SAYS[row])[:12]}"


def key_of(source: str, stage: str, number: int | str) -> str:
    return compute_digest(source, stage, number)


def fill(lake: Lake) -> dict[str, list[Row]]:
    """The samples by source."""
    made = {source: _source(lake, source) for source in SOURCES}
    mixed = [
        {"row_id": compute_digest("row", row["sample_id"]), "position": place, "kind": "original", "category": "ocr"}
        | {name: row[name] for name in ("sample_id", "version_id", "source")}
        for place, row in enumerate(row for pair in zip(*made.values(), strict=True) for row in pair)
    ]
    put(lake, f"mixture/{STAGE}", MIXTURE, mixed)
    planned = [
        {"planned_id": compute_digest("planned", row["position"]), "position": row["position"], "row_id": row["row_id"]}
        for row in mixed
    ]
    put(lake, f"pack_plan/{STAGE}", PACK_PLAN, planned)
    images = {row["sample_id"]: own_image(source, n) for source in SOURCES for n, row in enumerate(made[source][:3])}
    packed = [
        {**planned_row, "source": row["source"], "plan_version": plan_version}
        | {"image_bytes": images[row["sample_id"]].data if row["sample_id"] in images else b""}
        for plan_version in [lake.get_table(f"pack_plan/{STAGE}").compute_data_version()]
        for planned_row, row in zip(planned, mixed, strict=True)
    ]
    packed_rows = lake.get_table(f"packed_rows/{STAGE}")
    packed_rows.append_fragments([packed_rows.write_fragments([build_packed_table(packed)])])
    copy, kept = made[STAYS][1], made[GONE][1]
    twin = {"sample_id": copy["sample_id"], "source": STAYS, "category": "ocr", "fingerprint": compute_digest("same")}
    twin |= {"canonical_sample_id": kept["sample_id"], "canonical_source": GONE}
    put(lake, "curation/duplicates", DUPLICATES, [twin])
    hits = [
        {
            "hit_id": compute_digest("hit", source),
            "sample_id": rows[0]["sample_id"],
            "source": source,
            "category": "ocr",
        }
        for source, rows in made.items()
    ]
    put(lake, "curation/contamination", CONTAMINATION, hits)
    put(lake, "evaluation/held_out", EVALUATION, [_asked(r) for rows in made.values() for r in rows[:2]], STAGE)
    _answer(lake, "evaluation", STAGE, {compute_digest(source): f"evaluated {secret(source, 0)}" for source in SOURCES})
    return made


def _source(lake: Lake, source: str) -> list[Row]:
    lake.get_images(source).insert([SHARED, *(own_image(source, row) for row in range(3))])
    rows = [
        sample(
            source,
            number,
            image_ids=[own_image(source, like).image_id, SHARED.image_id],
            answer=secret(source, number),
            content_hash=compute_digest(source, "says", like),
        )
        for number, like in enumerate(SAYS)
    ]
    put_samples(lake, source, rows)
    put(lake, "category/ocr", CATEGORY, [category_row(row, "ocr") for row in rows], source)
    rewrites = [
        rewrite(row, "ocr") | {"request_key": key_of(source, "rewrite", asked)}
        for row, asked in zip(rows, ASKED, strict=True)
    ]
    for number, row in enumerate(rewrites):
        row["conversations"][1]["value"] = f"rewritten {secret(source, number)}"
    put(lake, "rewritten/ocr", REWRITTEN, rewrites, source)
    verdicts = [
        judgement(row, keep=True)
        | {
            "verdicts": [
                {
                    "criterion": "all",
                    "request_key": key_of(source, "judge", number),
                    "vote_keys": [key_of(source, "judge", f"vote {number}")],
                }
            ]
        }
        | {
            "panel": [
                {"verdicts": [{"criterion": "all", "request_key": key_of(source, "judge", f"second {number}")}]},
                {"verdicts": None},
            ]
        }
        for number, row in enumerate(rewrites)
    ]
    put(lake, "judged/ocr", JUDGED, verdicts, source)
    asked = {key_of(source, "rewrite", n): f"answered {secret(source, n)}" for n in sorted(set(ASKED))}
    _answer(lake, "rewritten", source, asked | {key_of(source, "rewrite", "first try"): "useless"})
    judged = {key_of(source, "judge", w): n for n in range(4) for w in (n, f"second {n}", f"vote {n}")}
    _answer(lake, "judged", source, {key: f"judged {secret(source, n)}" for key, n in judged.items()})
    wrong = f"cannot read {secret(source, 2)}"
    for stage, key in (("rewritten", rows[2]["sample_id"]), ("judged", rewrites[2]["rewrite_id"])):
        publish_rejects(lake, stage, source, [build_reject_table([Reject(stage, source, key, "parse", wrong)], "run")])
    return rows


def _answer(lake: Lake, stage: str, source: str, output: Mapping[str, str]) -> None:
    with lake.get_answer_log(stage, source) as log:
        log.append([replace(answer(0, t), request_key=k, source=source, stage=stage) for k, t in output.items()])


def _asked(of: Row) -> Row:
    question = build_question(of | {"category": "ocr"})
    assert question is not None
    return {
        "result_id": compute_digest("result", question.question_id),
        "checkpoint": STAGE,
        "question_id": question.question_id,
        "sample_id": question.sample_id,
        "source": of["source"],
        "question": question.text,
        "reference": question.reference,
        "answer": f"evaluated {question.reference}",
    }


def state(lake: Lake) -> dict[str, list[str]]:
    """What every table that has rows says, without when and by whom."""
    result = {}
    for name in measure_table_sizes(lake):
        table = lake.get_table(name)
        columns = [c for c in table.schema.names if c not in ("bytes", "image_bytes", "run_id", "created_at")]
        result[name] = sorted(str(row) for row in table.iter_rows(columns))
    return {name: rows for name, rows in result.items() if rows}


def on_disk(root: str, what: bytes) -> list[str]:
    """The files of a lake that hold these bytes."""
    return [str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file() and what in p.read_bytes()]


def _deadly(method: Callable[..., Any], moment: str, writes: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        writes.append(method.__name__)
        if f"{len(writes)}-before" == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        done = method(*args, **kwargs)
        if f"{len(writes)}-after" == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return call


def main(root: str, moment: str) -> None:
    """Purges the source `gone`, killed before or after its n-th write (`3-after`); says how many there were if not."""
    writes: list[str] = []
    for name in ("delete_keys", "compact_fragments", "expire_versions", "add_tombstones"):
        setattr(module, name, _deadly(getattr(module, name), moment, writes))
    for name in ("delete", "publish"):
        setattr(Table, name, _deadly(getattr(Table, name), moment, writes))
    Purge(Lake(root), GONE).run()
    print(len(writes))


if __name__ == "__main__":
    main(*sys.argv[1:])
