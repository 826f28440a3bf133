"""`mvl view` as a person uses it: keys, filters, labels, and hostile text that stays text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.cli.doctor import CHROMIUM_EXECUTABLES
from mvl_assets.judging.label_history import LabelHistory
from tests.browser.conftest import CHROMIUM_FLAGS
from tests.view.site import ViewSite, fill_hostile_lake, serving_view

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewSite]:
    folder = tmp_path_factory.mktemp("view")
    with serving_view(fill_hostile_lake(folder / "lake"), folder / "index") as site:
        yield site


@pytest.fixture
def page(view: ViewSite) -> Iterator[Any]:
    """A page whose console has to stay silent, and which asks nobody else."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, CHROMIUM_EXECUTABLES)), None)
    if executable is None:
        pytest.skip("there is no Chromium: sudo apt-get install chromium")
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_FLAGS))
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith(view.url) or complaints.append(request.url))
        yield page
        chromium.close()
    assert complaints == []


def test_keys_move_open_label_and_go_back(page: Any, view: ViewSite) -> None:
    page.goto(f"{view.url}/?category=chart", wait_until="networkidle")
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.evaluate("document.activeElement.dataset.id")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"/pair/{second}"))
    page.wait_for_load_state("networkidle")
    page.keyboard.press("3")
    page.keyboard.press("b")
    page.get_by_text("saved: bad").wait_for()
    (label,) = LabelHistory(view.app.library.lake).read_newest()
    assert (label.annotator, label.label, label.reasons) == ("anna", "bad", ("wrong_step",))
    page.keyboard.press("j")
    page.wait_for_url(lambda url: second not in url)
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"/\?category=chart"))


def test_filters_are_addresses_and_scrolling_brings_all_pairs(page: Any, view: ViewSite) -> None:
    page.goto(view.url, wait_until="networkidle")
    page.locator(".facet a", has_text="ocr").click()
    page.wait_for_url(re.compile("category=ocr"))
    page.locator(".facet", has_text="kept").locator("a", has_text="yes").first.click()
    page.wait_for_url(re.compile("keep=true"))
    page.locator("[name=q]").fill("needle4")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=needle4"))
    assert page.locator(".card").count() == 1
    page.goto(view.url, wait_until="networkidle")
    while page.locator(".more a").count():
        page.mouse.wheel(0, 4000)
    assert page.locator(".card").count() == 70


def test_the_box_blind_hides_verdicts_and_keeps_the_pairs(page: Any, view: ViewSite) -> None:
    page.goto(f"{view.url}/?category=chart", wait_until="networkidle")
    n_cards = page.locator(".card").count()
    page.locator(".checks label", has_text="blind").click()
    page.wait_for_url(re.compile("hide=1"))
    page.wait_for_load_state("networkidle")
    assert page.locator(".card").count() == n_cards > 0 and page.locator(".chip.kept").count() == 0


@pytest.mark.parametrize("width", [1280, 1600])
def test_hostile_text_runs_nothing_and_pages_do_not_overflow(
    page: Any, view: ViewSite, width: int, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(view.url, wait_until="networkidle")
    judged_id = page.locator(".card").first.get_attribute("data-id")
    for path in (
        "/",
        f"/pair/{judged_id}",
        f"/pair/{judged_id}?rendered=1",
        "/?queue=5&hide=1",
        "/agreement",
        "/overview",
    ):
        page.goto(view.url + path, wait_until="networkidle")
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate("window.hacked") is None, path
        page.screenshot(path=tmp_path / "last.png")
