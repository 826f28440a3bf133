"""A project of one's own for `mvl` itself: drawn questions of three categories, and a recipe that trains in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import yaml

from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.profile import PROFILES_DIR
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.ingest.ingest import ingest_source
from tests.cli.home import PROJECT, Home
from tests.training import tiny_model as small

QUESTIONS = {"general": "Which colour?", "chart": "Which shape?", "ocr": "Which colour and shape?"}
STEPS = 4
EXTRA = {"PYTHONPATH": str(PROJECT), "MVL_ALLOW_CPU": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Variables of every command: this clone is imported, and training may use the CPU."""


def make_project(folder: Path, n_samples: int = 30, **stage: object) -> Home:
    """Write sources, files, recipe and profile below `folder`."""
    project = folder / "project"
    (project / "sources").mkdir(parents=True)
    (project / "mvl.yaml").write_text("catalog: null\n", encoding="utf-8")
    home = Home(folder / "home", extra=EXTRA, project=project)
    rng = random.Random(0)
    for category, question in QUESTIONS.items():
        attributes = {
            "slug": f"drawn_{category}",
            "title": f"Drawn {category}",
            "category": category,
            "group": "A",
            "modality": "single_image",
            "format": "records",
            "family": None,
            "records": {
                "files": "rows.jsonl",
                "shape": "jsonl",
                "id": "id",
                "question": "{q}",
                "answer": "{a}",
                "images": ["{file}"],
            },
        }
        document = {"type": "mvl_assets.components.source_dataset.SourceDataset", "attributes": attributes}
        (project / "sources" / f"{category}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        raw = home.folder / "raw" / f"drawn_{category}"
        raw.mkdir(parents=True)
        rows = []
        for number in range(n_samples):
            colour, shape = rng.choice(list(small.COLOURS)), rng.choice(small.SHAPES)
            (raw / f"{number}.png").write_bytes(
                small.draw(shape, colour, at=(rng.randint(0, 110), rng.randint(0, 110)))
            )
            answer = {"general": colour, "chart": shape, "ocr": f"{colour} {shape}"}[category]
            rows.append({"id": str(number), "q": question, "a": answer, "file": f"{number}.png"})
        (raw / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = small.build_recipe_data(small.write_tokenizer(home.folder / "tokenizer"), **{"steps": STEPS, **stage})
    (home.folder / "tiny.yaml").write_text(yaml.safe_dump(data | {"name": "demo-tiny"}), encoding="utf-8")
    profile = yaml.safe_load((PROFILES_DIR / "demo.yaml").read_text(encoding="utf-8"))
    profile |= {
        "limit": None,
        "holdout_fraction": 0.3,
        "recipe": str(home.folder / "tiny.yaml"),
        "mixture": {"shares": {"general": 0.5, "chart": 0.3, "ocr": 0.2}, "one_vision": 0, "single_image": 24},
    }
    (home.folder / "profile.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    return home


def fill_lake(home: Home) -> None:
    """Read the sources in this process, whose variables are those of the home."""
    for slug, source in load_catalog().items():
        ingest_source(home.lake, source, home.folder / "raw" / slug, run_id="run")
        categorise_source(home.lake, source, run_id="run")
