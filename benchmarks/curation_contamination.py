"""The contamination part of `curation.py`: planted leaks of benchmark items, hard negatives, and the cost per row.

The originals of `curation_data.py` are the items, and the first of each pair that looks alike; copies of the originals
are training rows, and so are the second of each pair, and long questions with other numbers. A leak
is found if its row is a hit on its item; a hit on an item that the row was not made from is a false positive. What is
planted on an image should be `same_image_same_question`, a copy with another question `same_image`, and an item's
question of 20 tokens and more without its image `same_question`.
"""

from __future__ import annotations

import io
import random
import re
import tempfile
import time
from collections import Counter, defaultdict
from typing import Any

from curation_data import PlantedRow, build_rows, encode, scale
from PIL import Image

from mvl_assets.config.benchmarks import BenchmarkItems
from mvl_assets.config.contamination_rules import ContaminationRules
from mvl_assets.curation.contamination import find_contamination
from mvl_assets.curation.ngram_index import split_segments
from mvl_assets.lake.lake import Lake

ITEMS_SOURCE = "benchmark_planted"
MIN_TOKENS = ContaminationRules().min_tokens


def build_items(name: str = "planted") -> BenchmarkItems:
    return BenchmarkItems.model_validate(
        {"slug": f"benchmark_{name}", "title": name, "modality": None, "format": None, "tasks": {name: "*"}}
    )


def build_leaks(options: Any) -> list[PlantedRow]:
    """Return the rows of the duplicates' benchmark, and leaks that only contamination knows."""
    rows = build_rows(options.drawings, options.photo_count, options.photos)
    extra: list[PlantedRow] = []
    for number, row in enumerate(row for row in rows if row.attack == "original"):
        rng = random.Random(number)
        if row.image is not None:
            image = Image.open(io.BytesIO(row.image)).convert("RGB")
            copy = encode(scale(image, 0.7), quality=60)
            extra.append(PlantedRow(row.group, "other_question", "Who took it, and when?", "nobody", copy, row.kind))
        if count_tokens(row.question) < MIN_TOKENS:
            continue
        filler = " ".join(rng.choices(FILLER, k=60))
        inside = f"{filler}. {row.question} {filler}."
        extra.append(PlantedRow(row.group, "text_only", row.question, row.answer, None, row.kind))
        extra.append(PlantedRow(row.group, "text_inside", inside, f"The answer is {row.answer}.", None, row.kind))
        extra.append(PlantedRow(row.group, "text_without_answer", row.question, "zebra", None, row.kind))
        if (changed := change_numbers(row.question, rng)) != row.question:
            extra.append(PlantedRow(f"{row.group} changed", "negative: other numbers", changed, row.answer))
    return rows + extra


FILLER = [f"{a}{b}" for a in ("river", "barn", "lamp", "stone") for b in ("side", "hill", "wood", "field")]


def count_tokens(text: str) -> int:
    """Return the tokens that the matcher counts."""
    return sum(map(len, split_segments(text)))


def change_numbers(text: str, rng: random.Random) -> str:
    return re.sub(r"\d+", lambda match: str(int(match[0]) + rng.randrange(3, 40)), text)


def measure_leaks(options: Any, write_planted: Any, build_source: Any, compute_interval: Any) -> dict[str, Any]:
    """Return recall by leak, by any hit and by the expected kind, and precision with its interval."""
    rows = build_leaks(options)
    items = [row for row in rows if is_item(row)]
    leaks = [row for row in rows if not is_item(row)]
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        planted = write_planted(lake, [replace_attack(row, ITEMS_SOURCE) for row in items])
        planted |= write_planted(lake, leaks)
        sources = sorted({row.attack if not row.attack.startswith("negative") else "negative" for row in leaks})
        started_at = time.process_time()
        report = find_contamination(
            lake,
            [build_source(name) for name in sources],
            holdout_fraction=0,
            run_id="benchmark",
            benchmarks={ITEMS_SOURCE: build_items()},
        )
        cpu_s = time.process_time() - started_at
        hits = list(lake.get_table("curation/contamination").iter_rows(["sample_id", "benchmark_item", "kind"]))
    totals = Counter(row.attack for row in leaks if is_expected(row))
    kinds: dict[int, set[str]] = defaultdict(set)
    right: Counter[bool] = Counter()
    right_by_kind: dict[str, Counter[bool]] = defaultdict(Counter)
    wrong: Counter[str] = Counter()
    n_photos = len({row.group for row in items if row.group.startswith("photo")})
    for hit in hits:
        row, item = planted[hit["sample_id"]], planted[hit["benchmark_item"]]
        if name_photo(row.group, n_photos) == name_photo(item.group, n_photos) and row.group[:5] != item.group[:5]:
            continue  # a photograph and a frame made of it: neither right nor wrong
        is_right = row.group == item.group
        right[is_right] += 1
        right_by_kind[hit["kind"]][is_right] += 1
        if is_right:
            kinds[id(row)].add(hit["kind"])
        else:
            wrong[f"{hit['kind']}: {row.attack} of {row.kind}"] += 1
    found = Counter(row.attack for row in leaks if kinds[id(row)] and is_expected(row))
    in_class = Counter(row.attack for row in leaks if get_expected_kind(row) in kinds[id(row)] and is_expected(row))
    return {
        "recall": {attack: found[attack] / n for attack, n in totals.items()},
        "recall_in_class": {attack: in_class[attack] / n for attack, n in totals.items()},
        "n_leaks": dict(totals),
        "precision": right[True] / right.total() if hits else None,
        "interval": compute_interval(right[True], right.total()),
        "precision_by_kind": {
            kind: {"share": n[True] / n.total(), "interval": compute_interval(n[True], n.total()), "hits": n.total()}
            for kind, n in right_by_kind.items()
        },
        "n_hits": len(hits),
        "n_items": len(items),
        "false_positives": dict(wrong),
        "cpu_s": cpu_s,
        "matched": {name: getattr(report.matched, name) for name in report.matched.__slots__},
    }


def is_item(row: PlantedRow) -> bool:
    """Return whether a row is an item: an original, or the first of two that look alike and are no copies."""
    return row.attack == "original" or (row.attack.startswith("negative") and row.group.endswith(" 0"))


def name_photo(group: str, n_photos: int) -> str:
    """Return the group, of a frame that was made of a photograph the photograph's (see `iter_hard_negatives`)."""
    kind, number = group.split()[:2]
    is_frame = kind == "negative" and int(number) % 5 >= 3
    return f"photo {int(number) // 5 % n_photos}" if is_frame else group


def replace_attack(row: PlantedRow, attack: str) -> PlantedRow:
    return PlantedRow(row.group, attack, row.question, row.answer, row.image, row.kind, row.options)


def is_expected(row: PlantedRow) -> bool:
    """Return whether a row is a leak that some class is about: a short text without an image is not."""
    return not row.attack.startswith("negative") and (row.image is not None or count_tokens(row.question) >= MIN_TOKENS)


def get_expected_kind(row: PlantedRow) -> str:
    if row.attack == "other_question":
        return "same_image"
    return "same_question" if row.image is None else "same_image_same_question"


# -- cost ------------------------------------------------------------------------------------------------------------


def measure_cost(kind: str, n_rows: int, write: Any, build_source: Any, read_cpu: Any) -> dict[str, float]:
    """Match `n_rows` rows with 20,000 items, then 1 % more rows, in this process."""
    n_items = 20_000
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        write(lake, n_items, 1_000_000_000, "benchmark_cost")
        write(lake, n_rows, 0, kind)
        result: dict[str, float] = {}
        for name in ("all", "one_percent"):
            if name == "one_percent":
                write(lake, n_rows // 100, n_rows, kind)
            wall, cpu = time.monotonic(), read_cpu()
            report = find_contamination(
                lake,
                [build_source("text"), build_source("images")],
                holdout_fraction=0,
                run_id="benchmark",
                benchmarks={"benchmark_cost": build_items("cost")},
            )
            result |= {f"{name}_s": time.monotonic() - wall, f"{name}_cpu_s": read_cpu() - cpu}
            result |= {f"{name}_candidates": report.matched.n_image_candidates, f"{name}_hits": report.counts.n_rows}
    return result
