"""How many processes the kill tests kill: MVL_KILLS, 20 unless it is set. `make soak` sets it to 200.

Half die while they rewrite and judge (`pipeline`), half while they store and fold answers (`lake`).
"""

from __future__ import annotations

import os

KILLS = int(os.environ.get("MVL_KILLS", "20"))
PIPELINE_KILLS = KILLS // 2
LAKE_KILLS = KILLS - PIPELINE_KILLS
