"""What `mvl view` answers, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvl_assets.judging.label_history import LabelHistory
from mvl_assets.view.standalone import write_standalone_page
from mvl_assets.view.state import parse_state
from tests.view.site import ViewSite, fill_hostile_lake, serving_view


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewSite]:
    folder = tmp_path_factory.mktemp("view")
    with serving_view(fill_hostile_lake(folder / "lake"), folder / "index") as site:
        yield site


def list_ids(html: bytes) -> list[str]:
    return re.findall(r'data-id="([0-9a-f]{32})"', html.decode())


def test_pages_follow_each_other_without_a_gap_and_a_link_is_a_page(site: ViewSite) -> None:
    seen: list[str] = []
    path = "/rows?keep=true&sort=p_yes"
    while path:
        status, _, html = site.get(path)
        assert status == 200
        seen += list_ids(html)
        more = re.search(r'data-rows="([^"]+)"', html.decode())
        path = more.group(1).replace("&amp;", "&") if more else ""
    assert len(seen) == len(set(seen)) == 36
    assert list_ids(site.get(f"/?keep=true&sort=p_yes&after={seen[9]}")[2])[0] == seen[10]


def test_a_chosen_value_that_no_pair_has_can_be_taken_away(site: ViewSite) -> None:
    html = site.get("/facets?category=caption&keep=true")[2].decode()
    assert re.search(r'href="/\?keep=true" class="chosen" title="caption"', html)


def test_hostile_text_is_text_in_every_page(site: ViewSite) -> None:
    _, _, html = site.get("/")
    judged_id = list_ids(html)[1]
    for path in (
        "/",
        "/facets",
        f"/pair/{judged_id}",
        f"/pair/{judged_id}/lineage",
        f"/pair/{judged_id}/neighbours",
        f"/pair/{judged_id}?rendered=1",
        "/?rendered=1",
        "/overview",
    ):
        status, headers, html = site.get(path)
        text = html.decode()
        assert status == 200 and "<script>window" not in text and "<img src=x" not in text and "'49'" not in text
        assert "script-src 'self'" in headers["content-security-policy"] and "unsafe" not in str(headers)
    page = site.get(f"/pair/{judged_id}")[2].decode()
    assert "&lt;script&gt;window.hacked" in page
    assert 'href="http://127.0.0.1:3000/runs/run"' in page and "/assets/judged/" in page


def test_images_come_by_id_with_their_own_type(site: ViewSite) -> None:
    html = site.get("/")[2].decode()
    thumbnail = re.search(r'src="(/thumbnail/[^"]+)"', html)
    assert thumbnail
    for path, media_type in (
        (thumbnail.group(1), "image/jpeg"),
        (thumbnail.group(1).replace("thumbnail", "image"), "image/png"),
    ):
        status, headers, _ = site.get(path)
        assert (status, headers["content-type"], headers["x-content-type-options"]) == (200, media_type, "nosniff")
    assert site.get("/image/drawn_charts/../../etc/passwd")[0] == 404
    assert site.get(f"/image/drawn_charts/{'0' * 32}")[0] == 404


def test_only_loopback_names_are_answered(site: ViewSite) -> None:
    assert site.get("/", Host="evil.example")[0] == 421
    assert site.get("/", Host=f"127.0.0.1.evil.example:{site.port}")[0] == 421
    assert site.get("/", Host=f"localhost:{site.port}")[0] == 200


def test_a_label_needs_the_token_and_keeps_its_history(site: ViewSite) -> None:
    judged_id = list_ids(site.get("/?category=ocr")[2])[0]
    path, good = f"/pair/{judged_id}/label", {"annotator": "anna", "label": "good", "is_blind": True}
    assert site.post(path, good)[0] == 403
    assert site.post(path, good, X_Mvl_Token="old")[0] == 403
    token = site.app.guard.token
    for bad_values in ({"label": "fine"}, {"reasons": ["boring"]}, {"annotator": " "}, {"note": "x" * 3000}):
        assert site.post(path, good | bad_values, X_Mvl_Token=token)[0] == 400
    assert site.post(path, good, X_Mvl_Token=token) == (200, '{"label":"good"}')
    changed = good | {"label": "bad", "reasons": ["off_image"], "note": "no sign of it"}
    assert site.post(path, changed, X_Mvl_Token=token)[0] == 200
    history = LabelHistory(site.app.library.lake)
    assert [label.label for label in history.read_history()] == ["good", "bad"]
    (newest,) = history.read_newest()
    assert (newest.annotator, newest.reasons, newest.is_blind) == ("anna", ("off_image",), True)
    assert list_ids(site.get("/?label=bad")[2]) == [judged_id]
    assert judged_id not in list_ids(site.get("/?label=none&category=ocr")[2])
    assert "<strong>" in site.get("/agreement")[2].decode()


def test_blind_pages_show_no_verdicts(site: ViewSite) -> None:
    html = site.get("/?queue=6&hide=1")[2].decode()
    assert len(list_ids(html.encode())) == 6 and 'class="bar"' not in html and "chip kept" not in html
    judged_id = list_ids(html.encode())[0]
    page = site.get(f"/pair/{judged_id}?queue=6&hide=1")[2].decode()
    assert "verdicts</h2>" not in page and "chip kept" not in page and "chip dropped" not in page
    # Hiding verdicts chooses no pairs, and counts do not give verdicts away.
    assert len(list_ids(site.get("/?category=ocr&hide=1")[2])) == len(list_ids(site.get("/?category=ocr")[2])) > 0
    shown, hidden = (site.get(f"/facets?{query}")[2].decode() for query in ("", "hide=1"))
    assert "reason of dropping" in shown and "reason of dropping" not in hidden and "category" in hidden
    assert "hide=1" in hidden, "links of facets stay blind"


@pytest.mark.parametrize(
    "query", ["sort=nothing", "p_yes_min=much", "after=1", "label=fine", "where=1%3D1)%20OR%20(2", "q=" + "x" * 600]
)
def test_a_bad_address_says_what_is_wrong_with_it(site: ViewSite, query: str) -> None:
    status, _, html = site.get(f"/?{query}")
    assert status == 400 and b"<h1>" in html


def test_drawn_texts_are_a_state_of_the_address(site: ViewSite) -> None:
    _, _, html = site.get("/?rendered=1")
    assert 'class="text rendered"' in html.decode() and "<mark>" not in html.decode()
    judged_id = list_ids(html)[0]
    page = site.get(f"/pair/{judged_id}?rendered=1")[2].decode()
    assert f'href="/pair/{judged_id}?"' in page and "mark differences" in page
    assert "rendered=1" in page.partition('id="next"')[2][:200]


def test_an_exported_page_holds_images_and_hostile_text_and_no_script(site: ViewSite, tmp_path: Path) -> None:
    library = site.app.library
    state = parse_state([("keep", "true"), ("category", "ocr")])
    path = tmp_path / "page.html"
    assert write_standalone_page(path, library, library.require_index(), state, 5) == 5
    html = path.read_text(encoding="utf-8")
    assert html.count("<article") == 5 and "data:image/jpeg;base64," in html and "&lt;script&gt;window" in html
    assert "<script" not in html and "<img src=x" not in html and "default-src 'none'" in html
