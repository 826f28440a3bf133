"""The road of one source into a lake, in a process of its own: `python -m tests.object_store.road STEP ROOT SLUG ...`.

`ingest ROOT SLUG RAW [N]` reads the source and categorises it; with N, the process kills itself when it is about to
make its Nth commit, when everything that the commit names is written. It begins at the first line of standard input.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance

from mvl_assets.common.training_stages import TRAINING_STAGES
from mvl_assets.config.catalog import get_source
from mvl_assets.config.profile import Profile
from mvl_assets.curation.mixing import build_mixture
from mvl_assets.ingest.categorise import categorise_source
from mvl_assets.ingest.ingest import ingest_source
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.lake.table_sizes import measure_table_sizes
from mvl_assets.rewriting.rewrite import rewrite_source

SLUGS = ("sharegpt4v", "geo170k")


def ingest(lake: Lake, slug: str, raw: Path) -> None:
    ingest_source(lake, get_source(slug), raw / slug, run_id="run")
    categorise_source(lake, get_source(slug), run_id="run")


def ask(lake: Lake, slug: str, profile: Profile) -> None:
    rewrite_source(lake, get_source(slug), profile, run_id="run")
    judge_source(lake, get_source(slug), profile, run_id="run")


def mix(lake: Lake, profile: Profile) -> None:
    for stage in TRAINING_STAGES:
        build_mixture(lake, profile, stage, run_id="run")


def build_profile(base_url: str) -> Profile:
    model = {"name": "fake", "revision": "1", "supports_images": False, "base_urls": [base_url]}
    roles = dict.fromkeys(("caption", "rewrite", "judge"), "one")
    mixture = {"alignment": 4, "single_image": 20, "one_vision": 4}
    fields: dict[str, Any] = {
        "name": "test",
        "models": {"one": model},
        "roles": roles,
        "prompts": "small",
        "mixture": mixture,
    }
    return Profile.model_validate({**fields, "keep": {"rule": "p_yes >= 0.1"}})


def describe(lake: Lake) -> dict[str, Any]:
    """What is in every table, whatever the order, and nothing of when and by whom it was written."""
    result: dict[str, Any] = {}
    for name in measure_table_sizes(lake):
        table = lake.get_table(name)
        if table.spec.has_row_hash:
            result[name] = table.compute_data_version()
        else:
            keys = [row[table.spec.key_column] for row in table.iter_rows([table.spec.key_column])]
            assert len(keys) == len(set(keys)) or name == "images", name
            result[name] = sorted(keys)
    return result


def die_at_commit(number: int) -> None:
    commit, count = lance.LanceDataset.commit, itertools.count(1)

    def commit_or_die(*words: Any, **named: Any) -> Any:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return commit(*words, **named)

    lance.LanceDataset.commit = staticmethod(commit_or_die)  # type: ignore[method-assign]


def main(step: str, root: str, slug: str, raw: str, *kill: str) -> None:
    assert step == "ingest"
    if kill:
        die_at_commit(int(kill[0]))
    lake = Lake(root)
    print("ready", flush=True)
    sys.stdin.readline()
    ingest(lake, slug, Path(raw))
    print("done", flush=True)


def start_words(*words: str | Path | int) -> Sequence[str]:
    """The command line of such a process."""
    return [sys.executable, "-m", "tests.object_store.road", *map(str, words)]


if __name__ == "__main__":
    main(*sys.argv[1:])
