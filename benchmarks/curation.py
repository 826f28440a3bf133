"""Duplicates and contamination: recall and precision on planted copies and leaks, and the cost per row.

    python benchmarks/curation.py --json [--photos FOLDER] [--peers FOLDER] [--rows 100000 1000000] [--full]
    python benchmarks/curation.py --json --part contamination

Quality: drawings of the demo data and photographs (those of scikit-image; `--photos` adds the JPEG files of a folder)
are altered in known ways, and hard negatives are made that look alike. All are searched as `curation/duplicates` does.
An attack is found if its row is dropped in favour of the original; what is dropped in favour of a row that it was not
made from is a false positive. Beside it, on the same rows: pHash alone, and 5-grams of words alone.

Cost: rows without images of 40 to 80 words, one in twenty a reworded copy, and rows with images whose hashes are
random, one in twenty a near copy. Each number of rows runs in a process of its own, twice: all rows, then 1 % more.
`--full` adds 4 million. Contamination: see
`curation_contamination.py`. Peers are run if they can be imported (from `--peers` too): datasketch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from curation_contamination import measure_cost, measure_leaks
from curation_data import IMAGE_ATTACKS, PlantedRow, build_rows
from peak_memory import read_peak_rss_mb
from PIL import Image

from mvl_assets.common.digest import compute_digest
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.words import normalize_texts
from mvl_assets.config.catalog import SourceSpec
from mvl_assets.config.duplicate_rules import DuplicateRules
from mvl_assets.curation.duplicates import find_duplicates
from mvl_assets.ingest.sample_rows import NewVersion, build_content, build_version_table
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.rows import ImageRow
from mvl_assets.media.image import compute_image_id, inspect_image
from mvl_assets.readers.sample import Sample, Turn

RUN_ID = "benchmark"
TEXT_ATTACKS = ("reworded", "options_shuffled", "markup", "paraphrased")
Versions = list[tuple[NewVersion, dict[str, ImageProperties]]]


def build_source(slug: str, group: str = "A") -> SourceSpec:
    return SourceSpec.model_validate(
        {"slug": slug, "title": slug, "category": "general", "group": group, "modality": "single_image", "format": None}
    )


def build_version(source: str, number: int, question: str, answer: str, image_ids: list[str]) -> NewVersion:
    sample = Sample("rows.json", number, (Turn("human", question), Turn("gpt", answer)), str(number))
    content = build_content(sample, image_ids, None, None)
    sample_id = compute_digest(source, number)
    return NewVersion(sample, [None] * len(image_ids), sample_id, 1, content, content.compute_hash())


def write_samples(lake: Lake, source: str, versions: list[NewVersion], properties: dict[str, ImageProperties]) -> None:
    table = lake.get_table("samples")
    batches = (
        build_version_table(versions[start : start + 4096], properties, source, RUN_ID)
        for start in range(0, len(versions), 4096)
    )
    table.append_fragments([table.write_fragments(batches, source)])


# -- quality ---------------------------------------------------------------------------------------------------------


def compute_interval(n_right: int, n_all: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not n_all:
        return 0.0, 1.0
    z, share = 1.96, n_right / n_all
    centre = (share + z * z / (2 * n_all)) / (1 + z * z / n_all)
    half = z / (1 + z * z / n_all) * math.sqrt(share * (1 - share) / n_all + z * z / (4 * n_all * n_all))
    return max(0.0, centre - half), min(1.0, centre + half)


def write_planted(lake: Lake, rows: list[PlantedRow]) -> dict[str, PlantedRow]:
    """Store the rows, each attack as a source, and return them by sample id."""
    by_source: dict[str, list[PlantedRow]] = defaultdict(list)
    for row in rows:
        by_source[row.attack if not row.attack.startswith("negative") else "negative"].append(row)
    planted: dict[str, PlantedRow] = {}
    for source, source_rows in by_source.items():
        versions, images = [], {}
        for number, row in enumerate(source_rows):
            image_ids = []
            if row.image is not None:
                image_id = compute_image_id(row.image)
                image_ids.append(image_id)
                if image_id not in images:
                    info = inspect_image(row.image)
                    images[image_id] = ImageRow(image_id, row.image, *_list_stored(info))
            versions.append(build_version(source, number, row.question, row.answer, image_ids))
            planted[versions[-1].sample_id] = row
        lake.get_images(source).insert(list(images.values()))
        write_samples(lake, source, versions, {name: image.properties for name, image in images.items()})
    return planted


def _list_stored(info: ImageProperties) -> list[Any]:
    names = ("format", "width", "height", "n_frames", "mode", "phash", "pdq", "pdq_quality", "trimmed_pdq")
    return [getattr(info, name) for name in names]


def score(found: set[tuple[int, int]], rows: list[PlantedRow], attacks: tuple[str, ...]) -> dict[str, Any]:
    """Return recall by attack and precision of pairs of row numbers; recall is against the original."""
    originals = {n for n, row in enumerate(rows) if row.attack == "original"}
    totals = Counter(row.attack for row in rows if row.attack in attacks)
    hits: Counter[str] = Counter()
    n_right = 0
    for a, b in found:
        is_right = rows[a].group == rows[b].group
        n_right += is_right
        for one, other in ((a, b), (b, a)):
            if is_right and rows[one].attack in attacks and other in originals:
                hits[rows[one].attack] += 1
    return {
        "recall": {attack: hits[attack] / totals[attack] for attack in attacks if totals[attack]},
        "precision": n_right / len(found) if found else None,
        "interval": compute_interval(n_right, len(found)),
        "n_found": len(found),
    }


def measure_quality(options: argparse.Namespace) -> dict[str, Any]:
    rows = build_rows(options.drawings, options.photo_count, options.photos)
    attacks = (*IMAGE_ATTACKS, *TEXT_ATTACKS)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        planted = write_planted(lake, rows)
        sources = [build_source(name) for name in ("original", *attacks, "negative")]
        started_at = time.process_time()
        report = find_duplicates(lake, sources, run_id=RUN_ID, rules=DuplicateRules())
        cpu_s = time.process_time() - started_at
        numbers = {id(row): n for n, row in enumerate(rows)}
        found = {
            (numbers[id(planted[row["sample_id"]])], numbers[id(planted[row["canonical_sample_id"]])])
            for row in lake.get_table("curation/duplicates").iter_rows(["sample_id", "canonical_sample_id"])
        }
    wrong = Counter(f"{rows[a].attack} of {rows[a].kind}" for a, b in found if rows[a].group != rows[b].group)
    result = score(found, rows, attacks) | {"n_rows": len(rows), "false_positives": dict(wrong)}
    result["recall_by_kind"] = {
        kind: score(
            {p for p in found if rows[p[0]].kind == kind}, [r if r.kind == kind else _blank(r) for r in rows], attacks
        )["recall"]
        for kind in ("drawing", "photo", "text")
    }
    result["near"] = {name: getattr(report.near, name) for name in report.near.__slots__} if report.near else None
    result["cpu_s"] = cpu_s
    peers = {f"pHash alone, distance {limit}": score_phash(rows, limit) for limit in (4, 10)}
    peers["words 5-grams alone, Jaccard 0.8"] = score_ngrams(rows)
    return result | {"peers": peers}


def _blank(row: PlantedRow) -> PlantedRow:
    return PlantedRow(row.group, "other kind", "", "")


def score_phash(rows: list[PlantedRow], limit: int) -> dict[str, Any]:
    """Pairs of images whose pHash is close, whatever the words; each pair of images counts once."""
    images: dict[bytes, int] = {}
    for n, row in enumerate(rows):
        if (row.image is not None and row.attack in (*IMAGE_ATTACKS, "original")) or (
            row.image is not None and row.attack.startswith("negative")
        ):
            images.setdefault(row.image, n)
    numbers = list(images.values())
    hashes = np.array([_read_phash(rows[n].image or b"") for n in numbers], dtype=np.uint64)
    found = set()
    for i, n in enumerate(numbers):
        distances = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        found.update((n, numbers[i + 1 + j]) for j in np.flatnonzero(distances <= limit))
    return score(found, rows, tuple(IMAGE_ATTACKS))


def _read_phash(data: bytes) -> int:
    from io import BytesIO

    return int(str(imagehash.phash(Image.open(BytesIO(data)))), 16)


def score_ngrams(rows: list[PlantedRow]) -> dict[str, Any]:
    """Pairs of texts whose sets of 5 words have a Jaccard similarity of 0.8, whatever the images."""
    wanted = [n for n, row in enumerate(rows) if row.attack in (*TEXT_ATTACKS, "original")]
    grams: dict[int, set[str]] = {}
    buckets: dict[str, list[int]] = defaultdict(list)
    for n, text in zip(wanted, normalize_texts([f"{rows[n].question} {rows[n].answer}" for n in wanted]), strict=True):
        words = text.split()
        grams[n] = {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
        for gram in grams[n]:
            buckets[gram].append(n)
    candidates = {pair for members in buckets.values() for pair in combinations(members, 2)}
    found = {(a, b) for a, b in candidates if len(grams[a] & grams[b]) >= 0.8 * len(grams[a] | grams[b])}
    return score(found, rows, TEXT_ATTACKS)


# -- cost ------------------------------------------------------------------------------------------------------------

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in ("ala", "eni", "oru", "ubo", "ite") for c in "bdkmnrstvz"]


def write_text_rows(lake: Lake, n_rows: int, first: int, source: str = "text") -> None:
    rng = random.Random(first)
    question, answer = "Which?", "None"
    for start in range(first, first + n_rows, 50_000):
        versions = []
        for number in range(start, min(start + 50_000, first + n_rows)):
            if number % 20 == 19:
                question, answer = f"Please answer the question: {question}", f"**{answer}**"
            else:
                words = rng.choices(VOCABULARY, k=rng.randrange(40, 80))
                question, answer = " ".join(words[:20]), " ".join(words[20:])
            versions.append(build_version(source, number, question, answer, []))
        write_samples(lake, source, versions, {})


def write_image_rows(lake: Lake, n_rows: int, first: int, source: str = "images") -> None:
    """Write rows whose images have hashes and are not stored: candidates are searched, none is verified."""
    generator = np.random.default_rng(first)
    for start in range(first, first + n_rows, 50_000):
        count = min(50_000, first + n_rows - start)
        bits = generator.integers(0, 256, (count, 32), dtype=np.uint8)
        copies = np.arange(19, count, 20)
        bits[copies] = bits[copies - 1]
        bits[copies, generator.integers(0, 32, len(copies))] ^= 0x11
        versions, properties = [], {}
        for number, value in enumerate(bits, start=start):
            image_id = compute_digest("image", number)
            properties[image_id] = ImageProperties(
                80_000, "JPEG", 640, 480, 1, "RGB", "0" * 16, value.tobytes().hex(), 100, None
            )
            versions.append(build_version(source, number, f"<image>\nWhat is {number}?", str(number), [image_id]))
        write_samples(lake, source, versions, properties)


def run_cost(kind: str, n_rows: int, part: str) -> dict[str, float]:
    """Search `n_rows` rows, then 1 % more, in this process."""
    write = write_text_rows if kind == "text" else write_image_rows
    if part == "contamination":
        cost = measure_cost(kind, n_rows, write, build_source, _read_cpu)
        return cost | {"peak_mb": read_peak_rss_mb()}
    sources = [build_source("text"), build_source("images")]
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        write(lake, n_rows, 0)
        result = {}
        for name in ("all", "one_percent"):
            if name == "one_percent":
                write(lake, n_rows // 100, n_rows)
            wall, cpu = time.monotonic(), _read_cpu()
            report = find_duplicates(lake, sources, run_id=RUN_ID, rules=DuplicateRules())
            result |= {f"{name}_s": time.monotonic() - wall, f"{name}_cpu_s": _read_cpu() - cpu}
            result |= {f"{name}_duplicates": report.n_duplicates}
            if report.near:
                result[f"{name}_candidates"] = report.near.n_sample_candidates + report.near.n_image_candidates
    return result | {"peak_mb": read_peak_rss_mb()}


def _read_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_hashing(options: argparse.Namespace) -> dict[str, float]:
    """CPU milliseconds an image takes at ingest, and of these what the hashes take, over the same images."""
    from mvl_assets.media import image as image_module
    from mvl_assets.media.image_hashes import ImageHashes

    files = [row.image for row in build_rows(1, 60, options.photos) if row.kind == "photo" and row.image][:400]
    compute_hashes = image_module.compute_image_hashes
    costs: dict[str, list[float]] = {"decode": [], "phash": [], "all": []}
    variants = {
        "decode": lambda reduced: ImageHashes("", "", 0, None),
        "phash": lambda reduced: ImageHashes(str(imagehash.phash(reduced)), "", 0, None),
        "all": compute_hashes,
    }
    try:
        for _ in range(3):
            for name, variant in variants.items():
                image_module.compute_image_hashes = variant
                started_at = time.process_time()
                for data in files:
                    inspect_image(data)
                costs[name].append(1000 * (time.process_time() - started_at) / len(files))
    finally:
        image_module.compute_image_hashes = compute_hashes
    return {f"{name}_ms": min(values) for name, values in costs.items()}


def measure_datasketch(n_rows: int) -> dict[str, float] | None:
    """The same texts with datasketch's MinHash LSH: 64 hashes of pairs of words, 16 bands; nothing is verified."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        return None
    rng = random.Random(0)
    texts = [" ".join(rng.choices(VOCABULARY, k=60)) for _ in range(n_rows)]
    started_at = time.process_time()
    index = MinHashLSH(num_perm=64, params=(16, 4))
    for number, text in enumerate(texts):
        words = text.split()
        sketch = MinHash(num_perm=64)
        sketch.update_batch([f"{a} {b}".encode() for a, b in pairwise(words)])
        index.query(sketch)
        index.insert(number, sketch, check_duplication=False)
    return {"cpu_us_per_row": 1e6 * (time.process_time() - started_at) / n_rows}


def run_in_new_process(kind: str, n_rows: int, part: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--cost", kind, "--part", part, "--rows", str(n_rows)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def print_quality(quality: dict[str, Any]) -> None:
    low, high = quality["interval"]
    print(f"{quality['n_rows']:,} rows, {quality['n_found']:,} dropped, CPU {quality['cpu_s']:.0f} s")
    print(f"precision {quality['precision']:.4f} (95 %: {low:.4f} to {high:.4f}), wrong: {quality['false_positives']}")
    names = [*quality["peers"]]
    print(
        f"{'recall':18s} {'ours':>6s} " + " ".join(f"{kind:>8s}" for kind in quality["recall_by_kind"]),
        *names,
        sep=" | ",
    )
    for attack, recall in quality["recall"].items():
        kinds = [
            f"{by_attack[attack]:8.3f}" if attack in by_attack else "       -"
            for by_attack in quality["recall_by_kind"].values()
        ]
        peers = [quality["peers"][name]["recall"].get(attack) for name in names]
        print(
            f"{attack:18s} {recall:6.3f} {' '.join(kinds)}",
            *("-" if p is None else f"{p:.3f}" for p in peers),
            sep=" | ",
        )
    for name in names:
        print(f"precision of {name}: {quality['peers'][name]['precision']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", choices=("text", "images"), help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("all", "duplicates", "contamination"), default="all")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--full", action="store_true", help="4 million rows, too")
    parser.add_argument("--drawings", type=int, default=240)
    parser.add_argument("--photo-count", type=int, default=240)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files")
    parser.add_argument("--peers", help="a folder with peers, added to the path")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(options.peers)
    if options.cost:
        print(json.dumps(run_cost(options.cost, options.rows[0], options.part)))
        return
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}")
    result: dict[str, Any] = {}
    if options.part != "contamination":
        result |= measure_duplicates(options)
    if options.part != "duplicates":
        result["contamination"] = measure_contamination(options)
    if options.json:
        print(json.dumps(result, default=float))


def measure_duplicates(options: argparse.Namespace) -> dict[str, Any]:
    quality = measure_quality(options)
    print_quality(quality)
    hashing = measure_hashing(options)
    print(f"image at ingest, CPU: {hashing}")
    costs = measure_costs(options, "duplicates")
    datasketch = measure_datasketch(20_000)
    print(f"datasketch: {datasketch}")
    return {
        "recall": quality["recall"],
        "precision": quality["precision"],
        "text_rows_per_s": _get_largest_speed(costs["text"]),
        "pictures_per_s": 1000 / hashing["all_ms"],
        "peak_mb": max((c["peak_mb"] for by_size in costs.values() for c in by_size.values()), default=None),
        "quality": quality,
        "hashing": hashing,
        "costs": costs,
        "datasketch": datasketch,
    }


def measure_contamination(options: argparse.Namespace) -> dict[str, Any]:
    leaks = measure_leaks(options, write_planted, build_source, compute_interval)
    low, high = leaks["interval"]
    print(f"contamination: {leaks['n_items']} items, {leaks['n_hits']} hits, CPU {leaks['cpu_s']:.0f} s")
    print(f"precision {leaks['precision']:.4f} (95 %: {low:.4f} to {high:.4f}), wrong: {leaks['false_positives']}")
    for kind, by_kind in leaks["precision_by_kind"].items():
        low, high = by_kind["interval"]
        print(f"precision of {kind}: {by_kind['share']:.4f} ({low:.4f} to {high:.4f}) of {by_kind['hits']}")
    for attack, recall in leaks["recall"].items():
        print(f"{attack:20s} {recall:6.3f} in its class {leaks['recall_in_class'][attack]:6.3f}")
    costs = measure_costs(options, "contamination")
    return leaks | {
        "costs": costs,
        "text_rows_per_s": _get_largest_speed(costs["text"]),
        "image_rows_per_s": _get_largest_speed(costs["images"]),
        "peak_mb": max((c["peak_mb"] for by_size in costs.values() for c in by_size.values()), default=None),
    }


def measure_costs(options: argparse.Namespace, part: str) -> dict[str, dict[str, dict[str, float]]]:
    costs: dict[str, dict[str, dict[str, float]]] = {"text": {}, "images": {}}
    for n_rows in [*options.rows, *([4_000_000] if options.full else [])]:
        for kind, by_size in costs.items():
            cost = by_size[str(n_rows)] = run_in_new_process(kind, n_rows, part)
            print(
                f"{part}, {kind} {n_rows:,}: {n_rows / cost['all_s']:,.0f} rows/s, CPU"
                f" {1e6 * cost['all_cpu_s'] / n_rows:.0f} us a row, 1 % more costs"
                f" {cost['one_percent_cpu_s'] / cost['all_cpu_s']:.1%} of its CPU, peak {cost['peak_mb']:.0f} MB"
            )
    return costs


def _get_largest_speed(by_size: dict[str, dict[str, float]]) -> float | None:
    """Return the rows per second of the largest run."""
    n_rows = max(by_size, key=int, default=None)
    return None if n_rows is None else int(n_rows) / by_size[n_rows]["all_s"]


if __name__ == "__main__":
    main()
