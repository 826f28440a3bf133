"""The beginning of the slugs of sources that are items of benchmarks: no other source may have it, and none trains."""

from __future__ import annotations

from typing import Final

BENCHMARK_PREFIX: Final = "benchmark_"
