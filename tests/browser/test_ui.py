"""The web interface as a person uses it: looks at the graph, presses Materialize, backfills, edits a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Browser, Site
from tests.defs.world import GENERAL, MATH

pytestmark = pytest.mark.browser

GROUPS = ["raw_code_math", "prompts", "category", "rewritten", "judged", "curation", "mixture", "export"]
GROUPS += ["pack_plan", "packed_rows", "checkpoint", "evaluation"]

MADE = """query($k: AssetKeyInput!){ assetNodeOrError(assetKey: $k){ ... on AssetNode {
  assetMaterializations(limit: 1) { runId } } } }"""
RUNS = """query($f: RunsFilter){ runsOrError(filter: $f){ ... on Runs { results { id status } } } }"""
BACKFILLS = """{ partitionBackfillsOrError(limit: 5){ ... on PartitionBackfills { results { id status } } } }"""
CHECK = """query($k: AssetKeyInput!){ assetNodeOrError(assetKey: $k){ ... on AssetNode { assetChecksOrError {
  ... on AssetChecks { checks { name executionForLatestMaterialization { status evaluation { success } } } } } } } }"""


def made(site: Site, asset: str) -> bool:
    return bool(site.graphql(MADE, k={"path": asset.split("/")})["assetNodeOrError"]["assetMaterializations"])


def runs_of(site: Site, backfill: str) -> list[str]:
    """The states of a backfill's runs."""
    tag = {"key": "dagster/backfill", "value": backfill}
    return [run["status"] for run in site.graphql(RUNS, f={"tags": [tag]})["runsOrError"]["results"]]


def finished(result: list[str], count: int) -> bool:
    assert "FAILURE" not in result, result
    return result == ["SUCCESS"] * count


def check(site: Site, asset: str, name: str) -> bool | None:
    """How a check stands; None before it was evaluated."""
    node = site.graphql(CHECK, k={"path": asset.split("/")})["assetNodeOrError"]
    (result,) = [c for c in node["assetChecksOrError"]["checks"] if c["name"] == name]
    execution = result["executionForLatestMaterialization"]
    return execution and execution["evaluation"] and execution["evaluation"]["success"]


def test_the_lineage_page_folds_to_the_stages(browser: Browser, tmp_path: Path) -> None:
    browser.open("/asset-groups")
    for group in GROUPS:
        browser.see(group)
    browser.page.screenshot(path=tmp_path / "lineage.png")
    assert browser.complaints == []


def test_the_ui_materialises_backfills_and_shows_what_an_edited_prompt_makes_stale(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    page, lake = browser.page, site.world.lake

    browser.open("/assets/curation/duplicates")
    browser.click("Materialize")
    browser.see("Launched run")
    site.wait("the run of curation/duplicates", lambda: made(site, "curation/duplicates"))
    browser.open("/assets/curation/duplicates")
    browser.see("Row count")
    page.screenshot(path=tmp_path / "materialized.png")
    assert lake.get_table("curation/duplicates").exists()

    browser.open("/assets/rewritten/code_math")
    browser.click("Materialize")
    page.get_by_text("Select a partition or create one").click()
    for source in (MATH, GENERAL):
        page.get_by_placeholder("Filter partitions").fill(source)
        page.get_by_text(source, exact=True).locator("visible=true").last.click()
    page.keyboard.press("Escape")
    browser.see("2 partitions")
    page.screenshot(path=tmp_path / "backfill.png")
    browser.click("Launch backfill")
    (backfill,) = site.wait("the backfill", lambda: site.graphql(BACKFILLS)["partitionBackfillsOrError"]["results"])
    site.wait("its two runs", lambda: finished(runs_of(site, backfill["id"]), 2))
    rows = lake.get_table("rewritten/code_math")
    assert rows.count(f"source = '{MATH}'") > 0 and rows.count(f"source = '{GENERAL}'") > 0
    assert sum(site.model.request_counts.values()) == 6
    assert check(site, "rewritten/code_math", "schema_valid") is True

    browser.open(f"/assets/rewritten/code_math?view=partitions&partition={GENERAL}")
    browser.page.get_by_text("[Show Markdown]").last.click()
    page.locator("img[src^='data:image/jpeg']").first.wait_for()
    page.screenshot(path=tmp_path / "preview.png")

    site.world.edit("rewrite_general.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    site.wait("the sensor", lambda: check(site, "rewritten/code_math", "inputs_fresh") is False)
    browser.open("/assets/rewritten/code_math?view=checks")
    browser.see("prompts/rewrite_general")
    assert page.get_by_text(GENERAL).count() > 0 and page.get_by_text(MATH).count() == 0
    page.screenshot(path=tmp_path / "stale.png")
    for source, label in ((GENERAL, "Unsynced"), (MATH, "Materialized")):
        browser.open(f"/assets/rewritten/code_math?view=partitions&partition={source}")
        browser.see(label)
    assert page.get_by_text("Unsynced").count() == 0
    assert browser.complaints == []
