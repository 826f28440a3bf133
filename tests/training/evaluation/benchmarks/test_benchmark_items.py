"""The benchmarks that are evaluated, and the declared sources of their items."""

from __future__ import annotations

from mvl_assets.config.benchmarks import load_benchmarks
from mvl_training.evaluation.benchmarks.registry import load_suites


def test_every_task_that_is_evaluated_has_its_items_declared() -> None:
    suites = [suite for name, suite in load_suites().items() if name != "proxies"]
    asked = {task for suite in suites for b in suite.benchmarks.values() for task in b.tasks}
    assert asked == {task for items in load_benchmarks().values() for task in items.tasks}
