"""A project is found from any folder below it, and its own files lie over those of the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mvl_assets.common.project_root import find_project_root, require_project
from mvl_assets.config.catalog import load_catalog, load_full_catalog
from mvl_assets.config.mixture_config import MixtureConfig
from mvl_assets.config.profile import Profile, load_profile
from mvl_assets.config.project_files import describe_project
from mvl_assets.config.prompts import PROMPTS_DIR, get_rewrite_prompt, list_families, load_prompts
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.fetch.overview import format_missing_hint
from mvl_training.recipe import RECIPES_DIR, load_recipe

SOURCE = """\
type: mvl_assets.components.source_dataset.SourceDataset
attributes:
  slug: {slug}
  title: Mine
  category: {category}
  group: B
  modality: single_image
  format: records
  family: {family}
  records: {{files: "*.csv", shape: csv, question: "{{q}}", answer: "{{a}}"}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the current folder."""
    for name in ("MVL_PROJECT", "MVL_HOME", "MVL_PROFILE", "MVL_PROMPTS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "lake"
    put(folder / "mvl.yaml", "catalog: null\n")
    monkeypatch.chdir(folder)
    return folder


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def put_source(project: Path, slug: str = "mine", category: str = "chart", family: str = "chart") -> None:
    put(project / "sources" / f"{slug}.yaml", SOURCE.format(slug=slug, category=category, family=family))


def test_a_project_is_found_from_a_folder_below_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project / "sources" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_project_root() == project
    assert load_settings().home == project / ".mvl"
    assert load_settings().raw_dir == project / ".mvl" / "raw"


def test_a_named_project_counts_from_anywhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    assert find_project_root() is None
    with pytest.raises(MvlError, match=r"there is no mvl\.yaml in"):
        require_project()
    monkeypatch.setenv("MVL_PROJECT", str(project))
    require_project()
    assert load_settings().home == project / ".mvl"
    monkeypatch.setenv("MVL_PROJECT", str(project.parent))
    with pytest.raises(MvlError, match="is no project"):
        find_project_root()


def test_a_mistake_in_the_settings_is_named_with_its_line(project: Path) -> None:
    put(project / "mvl.yaml", "catalog: null\nprofil: demo\n")
    with pytest.raises(MvlError, match=r"mvl\.yaml:2: profil: unknown key"):
        load_settings()


def test_own_sources_lie_over_the_catalog_and_take_the_place_of_their_namesakes(project: Path) -> None:
    put(project / "mvl.yaml", "catalog: mammoth_vl\n")
    put_source(project)
    put_source(project, "dvqa")
    catalog = load_full_catalog()
    assert len(catalog.specs) == 163 and catalog.specs["dvqa"].title == "Mine"
    assert catalog.replaced_slugs == {"dvqa"} and set(catalog.own_files) == {"mine", "dvqa"}
    assert not catalog.is_in_paper("mine") and not catalog.is_in_paper("dvqa") and catalog.is_in_paper("arxivqa")
    categories = [spec.category for spec in catalog.specs.values()]
    assert categories == sorted(categories, key=categories.index), "the sources of a category stay together"
    assert "own sources: 2, in place of the package's: dvqa" in describe_project()


def test_a_project_may_have_no_catalog_or_a_folder_of_its_own(project: Path) -> None:
    put_source(project)
    put_source(project.parent / "team", "theirs")
    assert list(load_catalog()) == ["mine"]


@pytest.mark.parametrize(("catalog", "slugs"), [("../team/sources", ["theirs", "mine"]), ("../nowhere", None)])
def test_a_catalog_may_be_a_folder(project: Path, catalog: str, slugs: list[str] | None) -> None:
    put(project / "mvl.yaml", f"catalog: {catalog}\n")
    put_source(project)
    put_source(project.parent / "team", "theirs")
    if slugs is None:
        with pytest.raises(MvlError, match="there is no catalog"):
            load_catalog()
    else:
        assert list(load_catalog()) == slugs


def test_a_source_may_leave_out_its_type(project: Path) -> None:
    document = SOURCE.format(slug="mine", category="chart", family="chart").partition("\n")[2]
    put(project / "sources" / "mine.yaml", document)
    assert list(load_catalog()) == ["mine"]


def test_two_sources_without_a_line_between_them_say_so(project: Path) -> None:
    document = SOURCE.format(slug="mine", category="chart", family="chart")
    put(project / "sources" / "all.yaml", document + document)
    with pytest.raises(MvlError, match=r"all\.yaml:11: the key 'type' is given twice") as caught:
        load_catalog()
    assert caught.value.hint == "put a line `---` between two sources"


def test_a_category_of_ones_own_needs_a_line_and_no_code(project: Path) -> None:
    put_source(project, category="medical")
    with pytest.raises(MvlError, match=r"mine\.yaml:5: source 'mine': `category`: should be one of .*mvl\.yaml"):
        load_catalog()
    put(project / "mvl.yaml", "catalog: null\ncategories: {medical: {}, surgery: {multi_image: true}}\n")
    assert load_catalog()["mine"].category == "medical"
    shares = {"medical": 1.0, "chart": 1.0, "surgery": 1.0}
    mixture = MixtureConfig(single_image=10, one_vision=8, shares=shares)
    assert mixture.compute_targets("single_image") == {"medical": 5, "chart": 5}
    assert mixture.compute_targets("one_vision") == {"medical": 2, "chart": 2, "surgery": 4}
    with pytest.raises(ValueError, match=r"medicine: not categories of a mixture; declare own ones in mvl\.yaml"):
        MixtureConfig(shares={"medicine": 1.0})


@pytest.mark.parametrize("name", ["Medical", "a b", "9"])
def test_a_category_that_cannot_name_a_table_is_refused(project: Path, name: str) -> None:
    put(project / "mvl.yaml", f"categories: {{{name!r}: {{}}}}\n")
    with pytest.raises(MvlError, match=r"mvl\.yaml:1: categories: .*lower case"):
        load_settings()


def test_an_own_prompt_is_a_family_and_one_of_the_same_name_replaces_the_packages(project: Path) -> None:
    base = (PROMPTS_DIR / "rewrite_chart.md").read_text(encoding="utf-8")
    put(project / "prompts" / "rewrite_chart.md", base.rstrip() + " Be brief.\n")
    put(project / "prompts" / "rewrite_medical.md", base.replace("family: chart", "family: medical"))
    large, small = (load_profile("demo").model_copy(update={"prompts": name}) for name in (None, "small"))
    prompts, shipped = load_prompts(profile=large), load_prompts(PROMPTS_DIR)
    assert set(prompts) == {*shipped, "rewrite_medical"} and "medical" in list_families()
    changed = {name for name in shipped if prompts[name].hash != shipped[name].hash}
    assert changed == {"rewrite_chart"}
    # Of another name than the package's, it is part of every set; of the same, only of its own.
    hashes = {name: prompt.hash for name, prompt in load_prompts(PROMPTS_DIR / "small").items()}
    hashes["rewrite_medical"] = prompts["rewrite_medical"].hash
    assert {name: prompt.hash for name, prompt in load_prompts(profile=small).items()} == hashes
    put_source(project, family="medical")
    assert load_catalog()["mine"].family == "medical"
    assert "own prompts: 2, in place of the package's: rewrite_chart.md" in describe_project()


def test_sets_of_prompts_are_overlaid_one_by_one(project: Path) -> None:
    base = (PROMPTS_DIR / "small" / "rewrite_chart.md").read_text(encoding="utf-8")
    put(project / "prompts" / "small" / "rewrite_chart.md", base.rstrip() + " Be brief.\n")
    put(project / "prompts" / "terse" / "rewrite_chart.md", base)
    profiles = {name: load_profile("demo").model_copy(update={"prompts": name}) for name in (None, "small", "terse")}
    shipped = load_prompts(PROMPTS_DIR / "small")
    prompts = load_prompts(profile=profiles["small"])
    assert {name for name in shipped if prompts[name].hash != shipped[name].hash} == {"rewrite_chart"}
    assert prompts["rewrite_chart"].file == "small/rewrite_chart.md"
    assert load_prompts(profile=profiles[None]) == load_prompts(PROMPTS_DIR)
    terse = load_prompts(profile=profiles["terse"])
    assert [prompt.hash for prompt in terse.values()] == [shipped["rewrite_chart"].hash]
    with pytest.raises(MvlError, match="no rewriting prompt for the family 'charts' in the set 'terse'") as caught:
        get_rewrite_prompt(terse, "charts")
    assert caught.value.hint == "did you mean `chart`? families with one: chart"
    assert "own prompts: 2, in place of the package's: small/rewrite_chart.md" in describe_project()


def test_an_unknown_set_of_prompts_is_named_with_one_like_it(project: Path) -> None:
    profile = load_profile("demo").model_copy(update={"prompts": "smal"})
    with pytest.raises(MvlError, match="there is no set of prompts 'smal'") as caught:
        load_prompts(profile=profile)
    assert (caught.value.hint or "").startswith("did you mean `small`? ")


def test_a_family_may_have_a_rewriter_and_prompts_of_its_own() -> None:
    data = load_profile("demo").model_dump(mode="json")
    data["models"]["solver"] = {
        "name": "solver-7b",
        "revision": "1",
        "supports_images": True,
        "base_urls": ["http://h/v1"],
    }
    data["rewriters"] = {"math": {"model": "solver", "prompts": "drawn"}, "chart": {"model": "solver"}}
    profile = Profile.model_validate(data)
    names = {family: profile.get_rewriter(family).name for family in ("math", "chart", "caption", "ocr")}
    small_name = profile.get_model("rewrite").name
    assert names == {"math": "solver-7b", "chart": "solver-7b", "caption": small_name, "ocr": small_name}
    prompts, small = load_prompts(profile=profile), load_prompts(PROMPTS_DIR / "small")
    assert {name for name in small if prompts[name].hash != small[name].hash} == {"rewrite_math"}
    assert prompts["rewrite_math"].hash == load_prompts(PROMPTS_DIR / "drawn")["rewrite_math"].hash
    with pytest.raises(ValidationError, match=r"models not declared: \['solver'\]"):
        Profile.model_validate({**data, "models": load_profile("demo").model_dump(mode="json")["models"]})
    mistaken = Profile.model_validate({**data, "rewriters": {"maths": {"model": "solver"}}})
    with pytest.raises(MvlError, match="no rewriting prompt for the family 'maths'") as caught:
        load_prompts(profile=mistaken)
    assert (caught.value.hint or "").startswith("did you mean `math`? ")


def test_own_profiles_and_recipes_are_found_by_name(project: Path) -> None:
    put(project / "mvl.yaml", "profile: mine\n")
    demo = load_profile("demo").model_dump(mode="json") | {"name": "mine", "limit": 3}
    put(project / "profiles" / "mine.yaml", json.dumps(demo))
    assert load_profile(load_settings().profile).limit == 3
    recipe = (RECIPES_DIR / "demo.yaml").read_text(encoding="utf-8")
    put(project / "recipes" / "mine.yaml", recipe)
    assert load_recipe("mine") == load_recipe("demo")
    with pytest.raises(MvlError) as caught:
        load_profile("yours")
    assert "demo, demo-all, mine, paper, small" in (caught.value.hint or "")


def test_the_hint_for_an_own_source_without_files_says_which_files_go_where(project: Path) -> None:
    put_source(project)
    hint = format_missing_hint(load_catalog()["mine"])
    assert hint.startswith(f"put the source's files into {project / '.mvl/raw/mine'}: *.csv, and the images")
