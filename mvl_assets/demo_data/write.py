"""Write demo data below the raw folder, or link real files that are next to the project.

A source's demo data is complete or absent: it is written into a hidden folder next to its place and renamed. The file
`DEMO_DATA.json` marks it; readers ignore that file, and a folder without it belongs to the user and is never changed.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mvl_assets.common.atomic_write import replace_dir
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.layouts.common import write_json
from mvl_assets.demo_data.recipes import DEMO_SLUGS, RECIPES
from mvl_assets.demo_data.recipes.recipe import DemoRecipe
from mvl_assets.demo_data.truth import write_truths
from mvl_assets.errors import MvlError
from mvl_assets.readers.files import DEMO_MARKER_FILE, is_demo_source

# Raise it when the same parameters give other files, so that older demo data is written again.
GENERATOR_VERSION = 3
MARKER_NOTE = (
    "Made by `mvl demo-data`: images are drawn, or are photos that ship inside scikit-image. Not the real data set."
)


@dataclass(frozen=True, slots=True)
class WrittenDemoSource:
    """The demo data of one source on disk.

    Attributes:
        n_good_rows: Rows that readers return as samples.
        n_rejects: Rows that become rejects at ingest.
        state: `written` now, or `kept` because it was there with the same parameters.
    """

    slug: str
    source_dir: Path
    format: str
    n_good_rows: int
    n_rejects: int
    state: Literal["written", "kept"]


def write_demo_sources(
    raw_root: Path, slugs: Iterable[str] | None = None, n_rows: int = 48, seed: int = 0
) -> list[WrittenDemoSource]:
    """Write `<raw_root>/<slug>/…` for each slug, `n_rows` rows each, invalid ones included.

    The same arguments give the same bytes. A folder that is not demo data (no marker, not empty, or a link) is left
    alone and not in the result; complete demo data with the same parameters is kept, with other parameters replaced.

    Args:
        raw_root: Folder of all raw sources.
        slugs: Sources to write; None means those of the demo.
        n_rows: Rows per source.
        seed: Another seed gives other drawings and other places of faults.

    Raises:
        MvlError: Unknown slug, fewer than one row, or a folder that cannot be written.
    """
    return list(iter_written_demo_sources(raw_root, DEMO_SLUGS if slugs is None else slugs, n_rows, seed))


def iter_written_demo_sources(
    raw_root: Path, slugs: Iterable[str], n_rows: int, seed: int = 0
) -> Iterator[WrittenDemoSource]:
    """Yield the results of `write_demo_sources` one by one; a source is written when it is asked for.

    Args:
        raw_root: Folder of all raw sources.
        slugs: Sources to write.
        n_rows: Rows per source.
        seed: Another seed gives other drawings and other places of faults.

    Raises:
        MvlError: Unknown slug, fewer than one row, or a folder that cannot be written.
    """
    if n_rows < 1:
        raise MvlError(f"demo data needs at least one row, not {n_rows}", hint="pass --rows 48")
    unique_slugs = list(dict.fromkeys(slugs))
    unknown = [slug for slug in unique_slugs if slug not in RECIPES]
    if unknown:
        raise MvlError(f"there is no demo data for: {', '.join(unknown)}", hint="`mvl sources` lists them")
    for slug in unique_slugs:
        try:
            written = _write_demo_source(raw_root, RECIPES[slug], n_rows, seed)
        except OSError as error:
            raise MvlError(
                f"cannot write the demo data of {slug} below {raw_root}: {error.strerror or error}",
                hint="free some space, or point MVL_HOME at a folder you may write to",
            ) from error
        if written is not None:
            yield written


def link_real_tabmwp(raw_root: Path, project_root: Path) -> list[str]:
    """Use the real TabMWP files of `<project_root>/../shared/data/tabmwp` as source `tabmwp`, if they exist.

    A symbolic link takes the place of nothing or of demo data; any other folder stays.

    Returns:
        The slugs that have their real files because of this call or an earlier one.
    """
    real_dir = project_root.resolve().parent / "shared" / "data" / "tabmwp"
    source_dir = raw_root / "tabmwp"
    if not (real_dir / "problems.json").is_file():
        return []
    if source_dir.is_symlink():
        return [source_dir.name] if source_dir.resolve() == real_dir else []
    if source_dir.exists() and not is_demo_source(source_dir):
        return []
    raw_root.mkdir(parents=True, exist_ok=True)
    _remove_dir(source_dir)
    source_dir.symlink_to(real_dir, target_is_directory=True)
    return [source_dir.name]


def _write_demo_source(raw_root: Path, recipe: DemoRecipe, n_rows: int, seed: int) -> WrittenDemoSource | None:
    source_dir = raw_root / recipe.slug
    faults = Counter(recipe.select_faults(n_rows))
    marker = {
        "slug": recipe.slug,
        "layout": recipe.layout,
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "rows": n_rows,
        "n_good_rows": n_rows - faults.total(),
        "rejects": dict(faults),
        "note": MARKER_NOTE,
    }
    layout = LAYOUTS[recipe.layout]
    result = WrittenDemoSource(
        recipe.slug, source_dir, layout.format, n_rows - faults.total(), faults.total(), "written"
    )
    if source_dir.is_symlink() or (
        source_dir.exists() and not is_demo_source(source_dir) and not _is_empty_dir(source_dir)
    ):
        return None
    if is_demo_source(source_dir) and _read_marker(source_dir) == marker:
        return WrittenDemoSource(result.slug, source_dir, result.format, result.n_good_rows, result.n_rejects, "kept")
    with replace_dir(source_dir) as new_dir:
        rows = recipe.build_rows(n_rows, seed)
        layout.write_source(new_dir, recipe.slug, rows)
        write_truths(new_dir, rows)
        write_json(new_dir / DEMO_MARKER_FILE, marker)
    return result


def _read_marker(source_dir: Path) -> object:
    try:
        return json.loads((source_dir / DEMO_MARKER_FILE).read_text(encoding="utf-8"))
    except ValueError:
        return None


def _is_empty_dir(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _remove_dir(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
