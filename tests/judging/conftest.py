"""`servers` is shared by several rooms, `small_source` by rewriting and judging."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "rewriting"))
