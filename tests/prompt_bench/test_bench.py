"""A round of `mvl try` against a fake server: what is sent, what the page shows, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mvl_assets.config.profile import Profile
from mvl_assets.config.prompts import PROMPTS_DIR, load_prompt_file
from mvl_assets.errors import MvlError
from mvl_assets.inference.endpoint import Endpoint
from mvl_assets.inference.testing.fake_server import FakeServer, FakeServerConfig
from mvl_assets.judging.judge import judge_source
from mvl_assets.lake.lake import Lake
from mvl_assets.prompt_bench.bench import BenchOptions, BenchReport, run_judge_round, run_rewrite_round
from mvl_assets.prompt_bench.rounds import build_page_path, list_pages
from mvl_assets.rewriting.rewrite import rewrite_source
from tests.rewriting.small_source import CHART, MATH, profile, put, source_of
from tests.servers import serving

DAG_TABLES = ("samples", "images", "rejects", "category/code_math", "rewritten/code_math", "judged/code_math")


@pytest.fixture
def served() -> Iterator[tuple[FakeServer, Endpoint]]:
    with serving() as (server, endpoint):
        server.record_bodies = True
        yield server, endpoint


def profile_of(endpoint: Endpoint, **changed: Any) -> Profile:
    made = profile()
    model = made.models["one"].model_copy(update={"base_urls": [endpoint.base_url]} | changed)
    return made.model_copy(update={"models": {"one": model, "other": model.model_copy(update={"revision": "2"})}})


def count_versions(lake: Lake) -> list[int]:
    return [lake.get_table(name).version if lake.get_table(name).exists() else 0 for name in DAG_TABLES]


def run_math_round(lake: Lake, folder: Path, endpoint: Endpoint, **options: Any) -> tuple[BenchReport, str]:
    page = folder / "page.html"
    chosen = BenchOptions(**{"n_rows": 3} | options)
    report = run_rewrite_round(lake, folder, MATH, profile_of(endpoint), chosen, page)
    return report, page.read_text(encoding="utf-8")


def copy_prompt(folder: Path, name: str, old: str, new: str) -> Path:
    text = (PROMPTS_DIR / name).read_text(encoding="utf-8")
    assert old in text
    path = folder / "draft.md"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


class PageReader(HTMLParser):
    """Collects the tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_round_changes_no_table_and_a_second_one_sends_nothing(
    lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]
) -> None:
    _, endpoint = served
    put(lake, MATH, range(8))
    before = count_versions(lake)
    report, page = run_math_round(lake, tmp_path, endpoint)
    assert report.requests.attempts_sent == 3 + 3 * 3  # three criteria
    assert page.count('<section class="row">') == 3 and page.count("<img ") == 3
    assert "P(yes) 0." in page and "tokens read" in page
    # The lake has no rewrites yet: a column of them would be empty.
    assert "<h3>in the lake</h3>" not in page and report.summary[1][:3] == ["in the lake", "3", "0"]
    again, page = run_math_round(Lake(lake.root), tmp_path, endpoint)
    assert again.requests.attempts_sent == 0 and again.requests.cache_hits == 12
    assert again.summary[1:] == report.summary[1:]
    assert "previous round" not in page  # it is the same round
    assert count_versions(lake) == before
    # A larger number of rows contains a smaller one.
    more, _ = run_math_round(lake, tmp_path, endpoint, n_rows=4, judges_rewrites=False)
    assert more.requests.attempts_sent == 1


def test_a_run_finds_the_answers_of_a_trial_and_a_trial_those_of_a_run(
    lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]
) -> None:
    _, endpoint = served
    put(lake, MATH, range(8))
    run_math_round(lake, tmp_path, endpoint)
    rewritten = rewrite_source(lake, MATH, profile(), run_id="r", endpoints=[endpoint])
    assert (rewritten.rows, rewritten.requests.attempts_sent) == (8, 5)
    judged = judge_source(lake, MATH, profile(), run_id="r", endpoints=[endpoint])
    assert (judged.rows, judged.requests.attempts_sent) == (8, 15)
    report, page = run_math_round(lake, tmp_path, endpoint, n_rows=8)
    assert report.requests.attempts_sent == 0
    current, new = report.summary[1:]
    assert current[1:] == new[1:] and "not rewritten yet" not in page


def test_a_changed_prompt_shows_the_previous_round_beside_it(
    lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]
) -> None:
    server, endpoint = served
    put(lake, MATH, range(5))
    run_math_round(lake, tmp_path, endpoint)
    line = next(x for x in (PROMPTS_DIR / "rewrite_math.md").read_text().split("---", 2)[2].splitlines() if x.strip())
    draft = copy_prompt(tmp_path, "rewrite_math.md", line, f"{line}\nBe brief.")
    report, page = run_math_round(lake, tmp_path, endpoint, prompt_file=draft, model="other")
    assert report.requests.attempts_sent == 12 and [row[0] for row in report.summary[1:]] == [
        "in the lake",
        "previous round",
        "this round",
    ]
    assert [row[2] for row in report.summary[1:]] == ["0", "3", "3"]
    assert "+Be brief." in page and "Be brief." in str(server.bodies[-10:]) and "draft.md" in page
    # Back to the first prompt: the draft is now the previous round, and all is answered.
    report, page = run_math_round(lake, tmp_path, endpoint)
    assert report.requests.attempts_sent == 0 and "-Be brief." in page


def test_what_checks_refuse_is_shown_with_reason_and_raw_answer(lake: Lake, tmp_path: Path) -> None:
    put(lake, MATH, range(3))
    with serving(FakeServerConfig(text_by_marker={"What is": "I'm sorry, but I can't help with that."})) as (_, server):
        report, page = run_math_round(lake, tmp_path, server)
    assert report.summary[-1][2:] == ["0", "", "3", "0", "0", "refusal 3"]
    assert "I&#39;m sorry, but I can&#39;t help" in page and "<details open>" in page


def test_the_drawn_task_types_of_a_row_stand_above_it(
    lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]
) -> None:
    put(lake, CHART, [1])
    chosen = BenchOptions(n_rows=1, judges_rewrites=False, prompt_file=PROMPTS_DIR / "rewrite_chart.md")
    run_rewrite_round(lake, tmp_path, CHART, profile_of(served[1]), chosen, tmp_path / "page.html")
    (sample,) = lake.get_table("samples").iter_rows(["sample_id"])
    (prompt,) = load_prompt_file(PROMPTS_DIR / "rewrite_chart.md")
    types = prompt.draw_task_types(sample["sample_id"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert types and f"task types: {', '.join(types)}" in page
    (kind,) = {t for t in prompt.task_types or () if f"<h3>rewrite 1: {t}</h3>" in page}
    assert kind


def test_markdown_and_formulas_of_rewrites_are_drawn(lake: Lake, tmp_path: Path) -> None:
    put(lake, MATH, [1])
    answer = "Two steps:\n\n1. **Add**: $1 + 1 = \\frac{4}{2}$\n2. Done.\n\nAnswer: 2"
    with serving(FakeServerConfig(text_by_marker={"What is": answer})) as (_, endpoint):
        report, page = run_math_round(lake, tmp_path, endpoint, n_rows=1, judges_rewrites=False)
    assert "<strong>Add</strong>" in page and "<mfrac>" in page and "&lt;image&gt;" not in page
    assert "**Add**" in page  # the raw answer
    assert report.summary[-1][3] == str(len(answer.split()))


def test_hostile_text_stays_text(lake: Lake, tmp_path: Path) -> None:
    hostile = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}\x00\u202e"
    turns = [{"from": "human", "value": f"<image>\nWhat is 1 plus 1? {hostile}"}, {"from": "gpt", "value": hostile}]
    put(lake, MATH, [1], conversations=turns, file=hostile, position=3)
    text = (PROMPTS_DIR / "rewrite_math.md").read_text(encoding="utf-8")
    prompt = tmp_path / "<b onclick=x>.md"
    prompt.write_text(f"{text}\n<script>alert(3)</script>\n", encoding="utf-8")
    reasoned = FakeServerConfig(text_by_marker={"What is": f"It is 2, since {hostile}."}, reasoning=hostile)
    with serving(reasoned) as (_, endpoint):
        _, page = run_math_round(lake, tmp_path, endpoint, prompt_file=prompt)
    tags = PageReader(page).tags
    allowed = "html head meta title style body h1 h2 h3 table thead tr th td details summary pre section div span img p"
    assert {tag for tag, _ in tags} <= {*allowed.split(), "br"}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    images = [attributes["src"] or "" for tag, attributes in tags if tag == "img"]
    assert len(images) == 1 and images[0].startswith("data:image/jpeg;base64,")
    policy = next(a["content"] or "" for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
    assert "{{ 7*7 }}" in page and "&lt;script&gt;alert(3)" in page


def test_a_judge_is_tried_on_the_rewrites_of_the_lake(
    lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]
) -> None:
    _, endpoint = served
    put(lake, MATH, range(6))
    rewrite_source(lake, MATH, profile(), run_id="r", endpoints=[endpoint])
    judge_source(lake, MATH, profile(), run_id="r", endpoints=[endpoint])
    before = count_versions(lake)
    page_file = tmp_path / "page.html"

    def run(**options: Any) -> BenchReport:
        chosen = BenchOptions(**{"n_rows": 4} | options)
        return run_judge_round(lake, tmp_path, MATH, profile_of(endpoint), chosen, page_file)

    report = run()
    assert report.requests.attempts_sent == 0 and report.summary[1][1:] == report.summary[2][1:]
    draft = copy_prompt(tmp_path, "judge_general.md", "version: ", "version: 9")
    changed = draft.read_text(encoding="utf-8").replace("\n<sample>\n", "\nBe strict.\n<sample>\n")
    draft.write_text(changed, encoding="utf-8")
    report = run(prompt_file=draft)
    assert report.requests.attempts_sent == 12 and len(report.summary) == 4
    page = page_file.read_text(encoding="utf-8")
    assert "+Be strict." in page and page.count('<section class="row">') == 4
    assert run(prompt_file=draft).requests.attempts_sent == 0
    assert count_versions(lake) == before


def test_rows_are_chosen_by_id_and_by_seed(lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]) -> None:
    _, endpoint = served
    put(lake, MATH, range(20))
    wanted = max(row["sample_id"] for row in lake.get_table("samples").iter_rows(["sample_id"]))
    _, page = run_math_round(lake, tmp_path, endpoint, id_prefixes=[wanted[:8]], judges_rewrites=False)
    assert page.count('<section class="row">') == 1 and wanted in page
    report, _ = run_math_round(lake, tmp_path, endpoint, seed=1, judges_rewrites=False)
    assert 0 < report.requests.attempts_sent <= 3


def test_pages_of_a_source_are_listed_for_a_purge(tmp_path: Path) -> None:
    assert list_pages(tmp_path, "drawn") == []
    for source in ("drawn", "undrawn"):
        page = build_page_path(tmp_path, "rewrite", source)
        page.parent.mkdir(exist_ok=True)
        page.write_text("x", encoding="utf-8")
    assert list_pages(tmp_path, "drawn") == [tmp_path / "try" / "rewrite-drawn.html"]


def test_errors_say_what_to_do(lake: Lake, tmp_path: Path, served: tuple[FakeServer, Endpoint]) -> None:
    _, endpoint = served
    with pytest.raises(MvlError, match=r"no rows of it in category/code_math .* `mvl run --source drawn --until cat"):
        run_math_round(lake, tmp_path, endpoint)
    put(lake, MATH, range(2))
    with pytest.raises(MvlError, match=r"no model 'othr' .* did you mean"):
        run_math_round(lake, tmp_path, endpoint, model="othr")
    with pytest.raises(MvlError, match="no row of category/code_math has an id that begins with abcdef00"):
        run_math_round(lake, tmp_path, endpoint, id_prefixes=["abcdef00"])
    with pytest.raises(MvlError, match=r"its role is judge .* `mvl try judge`"):
        run_math_round(lake, tmp_path, endpoint, prompt_file=PROMPTS_DIR / "judge_general.md")
    options = BenchOptions(n_rows=2)
    with pytest.raises(MvlError, match=r"no rows of it in rewritten/code_math .* --until rewritten"):
        run_judge_round(lake, tmp_path, MATH, profile_of(endpoint), options, tmp_path / "page.html")
    group_a = source_of("chart", "chart").model_copy(update={"group": "A"})
    with pytest.raises(MvlError, match="group A is not rewritten"):
        run_rewrite_round(lake, tmp_path, group_a, profile_of(endpoint), options, tmp_path / "page.html")
    assert not (tmp_path / "try").exists()
