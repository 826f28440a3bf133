"""Rewrites and judges one source in a process of its own, which a test may kill.

`python -m tests.pipeline.client SLUG`; lake, profile and prompts are those of the settings.
"""

from __future__ import annotations

import sys

from mvl_assets.config.catalog import get_source
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import load_settings
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.rewriting.rewrite import rewrite_source


def main(slug: str) -> None:
    lake, profile, source = Lake(load_settings().lake_root), load_profile(load_settings().profile), get_source(slug)
    rewrite_source(lake, source, profile, run_id="run")
    judge_source(lake, source, profile, run_id="run")


if __name__ == "__main__":
    main(sys.argv[1])
