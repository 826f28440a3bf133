"""Write miniatures below the raw folder, or link real files that lie beside the project.

A miniature is complete or absent: it is written into a hidden folder next to its place and renamed. The file
`MINIATURE.json` marks it; readers ignore that file, and a folder without it is the user's own and never touched.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.layouts.common import dump
from mvl_assets.demo_data.recipes import DEMO_SLUGS, RECIPES
from mvl_assets.demo_data.recipes.recipe import Recipe
from mvl_assets.errors import MvlError

MARKER = "MINIATURE.json"
EDITION = 2  # raise it when the same parameters give other files, so that older miniatures are written anew
NOTE = (
    "Made by `mvl demo-data`: pictures are drawn, or are photos that ship inside scikit-image. Not the real data set."
)


@dataclass(frozen=True, slots=True)
class Written:
    """One miniature on disk. `good_rows` are samples a reader gives; `broken_rows` become rejects at ingest.

    `state`: `written` now, or `kept` because it was there with the same parameters.
    """

    slug: str
    folder: Path
    format: str
    good_rows: int
    broken_rows: int
    state: Literal["written", "kept"]


def write_miniatures(
    raw_root: Path, slugs: Iterable[str] | None = None, rows: int = 48, seed: int = 0
) -> list[Written]:
    """Write `<raw_root>/<slug>/…` for each slug (default: the demo's), `rows` rows each, broken ones included.

    The same arguments give the same bytes. A folder that is not a miniature (no marker, not empty, or a link) is left
    alone and not listed in the result; a complete miniature with the same parameters is kept; one with other parameters
    is replaced. Raises `MvlError` for an unknown slug, fewer than one row, or a folder that cannot be written.
    """
    return list(write_each(raw_root, DEMO_SLUGS if slugs is None else slugs, rows, seed))


def write_each(raw_root: Path, slugs: Iterable[str], rows: int, seed: int = 0) -> Iterator[Written]:
    """As `write_miniatures`, one after the other: nothing is written before it is asked for."""
    if rows < 1:
        raise MvlError(f"a miniature needs at least one row, not {rows}", hint="pass --rows 48")
    wanted = list(dict.fromkeys(slugs))
    unknown = [slug for slug in wanted if slug not in RECIPES]
    if unknown:
        raise MvlError(f"no miniature is made for: {', '.join(unknown)}", hint="`mvl sources` lists them")
    for slug in wanted:
        try:
            written = _write(raw_root, RECIPES[slug], rows, seed)
        except OSError as error:
            raise MvlError(
                f"cannot write the miniature {slug} below {raw_root}: {error.strerror or error}",
                hint="free some space, or point MVL_HOME at a folder you may write to",
            ) from error
        if written is not None:
            yield written


def link_real(raw_root: Path, project_root: Path) -> list[str]:
    """Use the real TabMWP files of `<project_root>/../shared/data/tabmwp` as source `tabmwp`, where they exist.

    A symbolic link takes the place of nothing or of a miniature; any other folder stays. Returns the slugs that have
    their real files because of this call or an earlier one.
    """
    real = project_root.resolve().parent / "shared" / "data" / "tabmwp"
    place = raw_root / "tabmwp"
    if not (real / "problems.json").is_file():
        return []
    if place.is_symlink():
        return [place.name] if place.resolve() == real else []
    if place.exists() and not is_miniature(place):
        return []
    raw_root.mkdir(parents=True, exist_ok=True)
    _remove(place)
    place.symlink_to(real, target_is_directory=True)
    return [place.name]


def is_miniature(folder: Path) -> bool:
    """Whether the folder itself (not what it links to) is a complete miniature."""
    return not folder.is_symlink() and (folder / MARKER).is_file()


def _write(raw_root: Path, recipe: Recipe, rows: int, seed: int) -> Written | None:
    place = raw_root / recipe.slug
    faults = Counter(recipe.broken(rows))
    marker = {
        "slug": recipe.slug,
        "layout": recipe.layout,
        "edition": EDITION,
        "seed": seed,
        "rows": rows,
        "good": rows - faults.total(),
        "broken": dict(faults),
        "note": NOTE,
    }
    layout = LAYOUTS[recipe.layout]
    result = Written(recipe.slug, place, layout.format, rows - faults.total(), faults.total(), "written")
    if place.is_symlink() or (place.exists() and not is_miniature(place) and not _is_empty(place)):
        return None
    if is_miniature(place) and _marker_of(place) == marker:
        return Written(result.slug, place, result.format, result.good_rows, result.broken_rows, "kept")
    raw_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw_root, prefix=f".{recipe.slug}.") as hidden:
        fresh = Path(hidden) / recipe.slug
        fresh.mkdir()
        layout.write(fresh, recipe.slug, recipe.rows(rows, seed))
        dump(fresh / MARKER, marker)
        _remove(place)
        fresh.rename(place)
    return result


def _marker_of(folder: Path) -> object:
    try:
        return json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except ValueError:
        return None


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
