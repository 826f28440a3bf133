"""A lake with a mixture of originals and judged rewrites, whose images can be decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN, SCORED, SCORES
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.lake.schemas.training_tables import MIXTURE
from mvl_assets.media.image import encode_image, inspect_image
from tests.lake.rows import category_row, put, put_samples, rewrite, sample

STAGE = "single_image"
SOURCE = "drawn_charts"
PROMPT_HASH = compute_digest("prompt")


def draw_image(number: int, size: tuple[int, int] = (240, 230)) -> ImageRow:
    """A plain image of its own colour."""
    data = encode_image(Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 53 % 256)), "PNG")
    info = inspect_image(data)
    return ImageRow(
        compute_digest(data), data, info.format, info.width, info.height, info.n_frames, info.mode, info.phash
    )


def fill_judged_lake(root: Path, count: int = 8) -> Lake:
    """`count` samples, of which every second is rewritten and judged, and every fourth dropped; the mixture has the
    kept rewrites, the originals without one, one video of three frames, one row of text, one with two images."""
    lake = Lake(str(root))
    images = [draw_image(number) for number in range(count + 6)]
    tiny = draw_image(99, (40, 30))
    lake.get_images(SOURCE).insert([*images, tiny])
    rows = [
        sample(SOURCE, n, pictures=[images[n]], question=f"<image>\nQuestion {n}?", license="cc-by-4.0")
        for n in range(count)
    ]
    rows.append(sample(SOURCE, count, pictures=images[count : count + 2], question="<image>\n<image>\nBoth?"))
    rows.append(sample(SOURCE, count + 1, question="Say hello, <b>world</b> & co."))
    video = {"name": "clip.mp4", "seconds": [0.0, 1.0, 2.0]}
    frames = images[count + 2 : count + 5]
    turns = {"question": "<video>\nWhat is the tag <video>?", "answer": "It is <video>, not <audio>."}
    rows.append(sample(SOURCE, count + 2, pictures=frames, video=video, **turns))
    rows.append(sample(SOURCE, count + 3, pictures=[tiny], question="<image>\nTiny?", license="research only"))
    put_samples(lake, SOURCE, rows)
    put(
        lake,
        "category/chart",
        CATEGORY,
        [category_row(row, "chart", language="en" if n else "zh") for n, row in enumerate(rows)],
        SOURCE,
    )
    rewrites = [build_rewrite(row, n) for n, row in enumerate(rows[:count]) if n % 2]
    put(lake, "rewritten/chart", REWRITTEN, rewrites, SOURCE)
    verdicts = [build_verdict(row, keep=n % 2 == 0) for n, row in enumerate(rewrites)]
    put(lake, "judged/chart", JUDGED, verdicts, SOURCE)
    put(lake, "scored/chart", SCORED, [build_score(row) for row in rewrites], SOURCE)
    given = [
        {"name": "topic", "text": "maps"},
        {"name": "relevance", "number": 4.0},
        {"name": "unrated"},
        {"name": "sharp", "boolean": True},
    ]
    put(lake, "scores/ratings", SCORES, [{"sample_id": rows[3]["sample_id"], "source": SOURCE, "scores": given}])
    put_mixture(lake, rows, {row["sample_id"]: row for row in rewrites}, verdicts)
    return lake


def build_rewrite(of: dict[str, Any], number: int) -> dict[str, Any]:
    return rewrite(of, "chart") | {
        "family": "chart",
        "conversations": [
            {"from": "human", "value": f"<image>\nQuestion {number}, in steps?"},
            {"from": "gpt", "value": f"First, see. So it is {number}."},
        ],
        "prompt": "rewrite_chart",
        "prompt_hash": PROMPT_HASH,
        "model": "writer",
        "model_revision": "1",
        "blind": False,
        "request_key": compute_digest("request", number),
    }


def build_verdict(of: dict[str, Any], *, keep: bool) -> dict[str, Any]:
    p_yes = 0.9 if keep else 0.2
    return {
        "judged_id": compute_digest(of["rewrite_id"], "judge"),
        "rewrite_id": of["rewrite_id"],
        "sample_id": of["sample_id"],
        "source": of["source"],
        "category": "chart",
        "family": "chart",
        "verdicts": [
            {"criterion": name, "request_key": compute_digest(of["rewrite_id"], name), "verdict": keep, "p_yes": p_yes}
            for name in ("correct", "relevant")
        ],
        "all_yes": keep,
        "p_yes": p_yes,
        "keep": keep,
        "drop_reason": None if keep else "judge_no",
        "keep_rule": "all_yes",
        "model": "judge",
        "model_revision": "2",
        "blind": False,
        "run_id": "run",
    }


def build_score(of: dict[str, Any]) -> dict[str, Any]:
    names = ("rewrite_id", "sample_id", "version_id", "source", "category", "family")
    scores = {"content": 4, "relevance": 5, "kind": "rewritten", "run_id": "run"}
    return {"scored_id": compute_digest(of["rewrite_id"], "score"), **{name: of[name] for name in names}, **scores}


def put_mixture(
    lake: Lake, rows: list[dict[str, Any]], rewrite_by_sample: dict[str, dict[str, Any]], verdicts: list[dict[str, Any]]
) -> None:
    verdict_by_rewrite = {row["rewrite_id"]: row for row in verdicts if row["keep"]}
    mixture_rows = []
    for position, row in enumerate(rows):
        own_rewrite = rewrite_by_sample.get(row["sample_id"], {})
        verdict = verdict_by_rewrite.get(own_rewrite.get("rewrite_id"))
        mixture_rows.append(
            {
                "row_id": compute_digest("mixture", STAGE, row["sample_id"]),
                "position": position,
                "kind": "rewritten" if verdict else "original",
                "sample_id": row["sample_id"],
                "version_id": row["version_id"],
                "rewrite_id": verdict and verdict["rewrite_id"],
                "judged_id": verdict and verdict["judged_id"],
                "source": row["source"],
                "category": "chart",
                "modality": "video" if row.get("video") else "single_image",
                "license": row.get("license"),
                "repeat_index": 0,
                "run_id": "run",
            }
        )
    put(lake, f"mixture/{STAGE}", MIXTURE, mixture_rows)
