"""Finds which field of a record holds or names its image, and where the files are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from mvl_assets.common.path_template import parse_path
from mvl_assets.readers.sniffing.fields import Fields, is_image_cell, normalize, parse_cell
from mvl_assets.readers.sniffing.listing import IMAGE_SUFFIXES, Listing
from mvl_assets.readers.sniffing.record_files import RecordFiles

NAME_PARTS = ("image", "img", "picture", "photo", "file", "path", "figure", "url", "jpg", "png", "name", "id")
BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "data:image/")
MAX_FOLDERS = 8
MAX_FOLDERS_ABOVE = 3
_NUMBERED_STEM = re.compile(r"(.*?)(\d+)")


def infer_image_fields(
    fields: Fields,
    group: RecordFiles,
    template: str,
    listing: Listing,
    notes: list[str],
    given: str | None = None,
) -> dict[str, Any]:
    """Return the keys of a field map that say where a record's images are; none when it has none.

    Args:
        fields: The fields of the records.
        group: Their files.
        template: The path template of these.
        listing: All files.
        notes: Gets what a person should check.
        given: The field or template, where it is known.
    """
    if given is not None and "{" in given:
        return {"images": [given]}
    if given is not None:
        values = fields.values.get(given, [])
        guess = {} if _has_images(values) else _infer_from_names(given, _list_texts(values), group, listing)
        fields.used.add(given)
        return guess or {"image_field": given}
    if embedded := [path for path, values in fields.values.items() if _has_images(values)]:
        paths = [fields.take(path) for path in _order_by_number(embedded)]
        return {"image_field": paths[0] if len(paths) == 1 else paths}
    named: list[str] = []
    for path in sorted(fields.values, key=_compute_name_rank):
        if path in fields.used and not _has_suffixes(fields.values[path]):
            continue
        guess = _infer_from_names(path, _list_texts(fields.values[path]), group, listing)
        if guess is not None:
            return _add_numbered_fields(guess, fields.take(path), fields)
        if _has_suffixes(fields.values[path]):
            named.append(path)
    if (guess := _infer_from_file_names(group, template, listing)) is not None:
        return guess
    if named:
        path = fields.take(named[0])
        example = _list_texts(fields.values[path])[0]
        notes += describe_base_folder(listing.root, example)
        notes.append(
            f"{path} names images ({example[:80]!r}), but none of them is a file here; archives are looked through"
        )
        return {"image_field": path}
    return {}


def describe_base_folder(root: Path, name: str) -> list[str]:
    """Return a note where an image is named from a folder above `root`, as in code that runs from its repository."""
    for folder in list(root.parents)[:MAX_FOLDERS_ABOVE]:
        if len(name) < 400 and not name.startswith(("/", "http")) and (folder / name).is_file():
            return [f"images are named from {folder} ({name[:80]}): look at that folder, and name it in `path`"]
    return []


def _add_numbered_fields(guess: dict[str, Any], path: str, fields: Fields) -> dict[str, Any]:
    """Return the guess with `image_2`, `image_3`, ... where it is `image_1`."""
    if guess.get("image_field") != path or not re.search(r"\d", path):
        return guess
    form = re.sub(r"\d+", "#", path)
    others = [
        name for name, values in fields.values.items() if re.sub(r"\d+", "#", name) == form and _has_suffixes(values)
    ]
    names = [fields.take(name) for name in _order_by_number(others)]
    return guess | {"image_field": names} if len(names) > 1 else guess


def _has_images(values: Sequence[Any]) -> bool:
    cells = [cell for value in values for cell in (value if isinstance(value, list) else [value])]
    texts = [cell for cell in cells if isinstance(cell, str)]
    if texts and len(texts) == len(cells):
        return all(text.startswith(BASE64_STARTS) and len(text) > 100 for text in texts)
    return bool(cells) and all(map(is_image_cell, cells))


def _order_by_number(paths: list[str]) -> list[str]:
    """Sort `image_2` before `image_10`; other fields keep their order."""
    return sorted(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path)])


def _compute_name_rank(path: str) -> tuple[int, int]:
    name = normalize(path)
    return next((n for n, part in enumerate(NAME_PARTS) if part in name), len(NAME_PARTS)), path.count(".")


def _list_texts(values: Sequence[Any]) -> list[str]:
    """Return the names that values are or hold."""
    cells = [cell for value in map(parse_cell, values) for cell in (value if isinstance(value, list) else [value])]
    return [str(cell) for cell in cells if isinstance(cell, str | int) and not isinstance(cell, bool) and str(cell)]


def _has_suffixes(values: Sequence[Any]) -> bool:
    texts = _list_texts(values)
    return bool(texts) and all(PurePosixPath(_strip_url(text)).suffix.lower() in IMAGE_SUFFIXES for text in texts)


def _strip_url(name: str) -> str:
    """Return the path of a URL; a name as it is, with slashes."""
    if name.startswith(("http://", "https://")):
        return unquote(urlsplit(name).path).strip("/")
    return name.replace("\\", "/").removeprefix("./")


def _infer_from_names(path: str, texts: list[str], group: RecordFiles, listing: Listing) -> dict[str, Any] | None:
    names = [_strip_url(text) for text in texts if len(text) < 400]
    if not names:
        return None
    is_url = texts[0].startswith("http")
    matches = [
        (name, folders)
        for name in names
        if (folders := listing.image_dirs_by_name.get(PurePosixPath(name).name))
        and (is_url or any(_is_end_of_path(name, folder) for folder in folders))
    ]
    if 2 * len(matches) >= len(names):
        return {"image_field": path} | _infer_folders(matches, group, is_url=is_url)
    by_stem = [(name, paths) for name in names if (paths := listing.image_paths_by_stem.get(PurePosixPath(name).name))]
    if 2 * len(by_stem) >= len(names) and len(set(names)) > 1:
        return {"images": [_build_stem_template(path, by_stem, group)]}
    if all(name.isdecimal() for name in names) and len(set(names)) > 1:
        return _infer_from_numbers(path, names, listing)
    return None


def _is_end_of_path(name: str, folder: str) -> bool:
    """Return whether an image of this folder can be what the name says: the name's own folders are the last of it."""
    parent = PurePosixPath(name).parent.as_posix()
    return parent == "." or f"/{folder}".endswith(f"/{parent}")


def _infer_folders(matches: list[tuple[str, list[str]]], group: RecordFiles, *, is_url: bool) -> dict[str, Any]:
    """Return the folders to look in, but for those that are looked in anyway."""
    folders: Counter[str] = Counter()
    record_folders = {PurePosixPath(name).parent.as_posix().removeprefix(".") for name in group.files}
    for name, image_folders in matches:
        for image_folder in image_folders[:2]:
            image_path = f"{image_folder}/{PurePosixPath(name).name}".removeprefix("/")
            if is_url:
                folders[image_folder] += 1
            elif image_path == name or image_path.endswith(f"/{name}"):
                folder = image_path[: len(image_path) - len(name)].rstrip("/")
                for record_folder in record_folders:
                    if record_folder and f"{folder}/".startswith(f"{record_folder}/"):
                        folder = folder[len(record_folder) + 1 :]
                folders[folder] += 1
    names = [folder for folder, _ in folders.most_common(MAX_FOLDERS) if folder not in ("", "images")]
    return {"image_folders": names} if names else {}


def _build_stem_template(path: str, by_stem: list[tuple[str, list[str]]], group: RecordFiles) -> str:
    """Return a template of names without their endings."""
    templates = Counter(
        image_path[: len(image_path) - len(name) - len(suffix)] + f"{{{path}}}{suffix}"
        for name, paths in by_stem
        for image_path in paths[:1]
        if (suffix := PurePosixPath(image_path).suffix) and image_path.removesuffix(suffix).endswith(name)
    )
    return templates.most_common(1)[0][0] if templates else f"{{{path}}}.jpg"


def _infer_from_numbers(path: str, names: list[str], listing: Listing) -> dict[str, Any] | None:
    """Return the template of file names that are numbers, padded with zeros or behind a prefix."""
    numbers = {int(name) for name in names if len(name) < 18}
    forms: Counter[tuple[str, int, str]] = Counter()
    for stem, paths in listing.image_paths_by_stem.items():
        match = _NUMBERED_STEM.fullmatch(stem)
        if match is not None and int(match[2]) in numbers:
            image_path = PurePosixPath(paths[0])
            folder = "" if image_path.parent.as_posix() == "." else f"{image_path.parent.as_posix()}/"
            forms[f"{folder}{match[1]}", len(match[2]) if match[2][0] == "0" else 0, image_path.suffix] += 1
    if not forms:
        return None
    (prefix, width, suffix), count = forms.most_common(1)[0]
    if 2 * count < len(numbers):
        return None
    return {"images": [f"{prefix}{{{path}{f':0{width}d' if width else ''}}}{suffix}"]}


def _infer_from_file_names(group: RecordFiles, template: str, listing: Listing) -> dict[str, Any] | None:
    """Return the template of the image that has the name of its record's file."""
    if "{name}" not in template:
        return None
    templates: Counter[str] = Counter()
    for name in group.files[:200]:
        path_fields = parse_path(template, name)
        for image_path in listing.image_paths_by_stem.get(path_fields.get("name", ""), [])[:3]:
            templates[_fill_back(PurePosixPath(image_path), path_fields)] += 1
    best = templates.most_common(1)
    return {"images": [best[0][0]]} if best and 2 * best[0][1] >= min(len(group.files), 200) else None


def _fill_back(image_path: PurePosixPath, path_fields: Mapping[str, str]) -> str:
    """Return an image's path with the fields of its record's path in place of their values."""
    names = {value: field for field, value in path_fields.items() if field != "name"}
    folders = [f"{{{names[part]}}}" if part in names else part for part in image_path.parent.parts]
    ending = "{ending}" if image_path.suffix == f".{path_fields.get('ending')}" else image_path.suffix.removeprefix(".")
    return "/".join([*folders, f"{{name}}.{ending}"])
