"""Proposes the native format or the field map of a folder's files, and reads the first rows with it."""

from __future__ import annotations

import re
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from mvl_assets.common.markers import IMAGE_MARKER
from mvl_assets.common.rejects import RejectError
from mvl_assets.config.catalog import COMPONENT_TYPE, SourceSpec
from mvl_assets.errors import MvlError
from mvl_assets.media.image import inspect_image
from mvl_assets.readers.content_parts import list_part_images
from mvl_assets.readers.detect_format import find_native_format
from mvl_assets.readers.registry import get_format, get_key_reader, get_reader
from mvl_assets.readers.sample import RejectedRow, Sample
from mvl_assets.readers.sniffing.fields import (
    Fields,
    collect_fields,
    infer_id,
    infer_key_values,
    infer_listed_labels,
    infer_text_fields,
    parse_cell,
)
from mvl_assets.readers.sniffing.images import describe_base_folder, infer_image_fields
from mvl_assets.readers.sniffing.listing import IMAGE_SUFFIXES, Listing, list_folder
from mvl_assets.readers.sniffing.record_files import (
    SINGLE_RECORD_SHAPES,
    RecordFiles,
    build_image_group,
    find_record_files,
    format_files,
)
from mvl_assets.readers.sniffing.videos import infer_video_field

TRIED_ROWS = 200
"""Rows that are read with the proposed map."""

OPENED_ROWS = 40
"""Rows whose images are opened, too."""

COUNT_SECONDS = 20.0
"""Time that counting rows may take; a larger source is said to have at least as many as were counted."""

MAX_TRIED = 4
"""Groups of files that are tried, until most rows of one can be read."""

RECORDS = "records"
RECORD_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow")
N_PREVIEWED = 3
MAX_NOTES = 12
_MARKER = re.compile(
    r"[<\[{]\|?(?:image|img|picture|photo)[ _-]?(?:here|placeholder|token|pad)?[ _-]?(\d{0,3})\|?[>\]}]", re.I
)
_QWEN_MARKER = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass(slots=True)
class Proposal:
    """What was made of a folder's files.

    Attributes:
        attributes: The source's entry, as the catalog takes it; None when nothing was understood.
        n_rows: Number of rows; at least as many where `is_counted` is False.
        samples: Some of the rows that were read.
        reject_counts: How many of the rows that were tried are rejects, by error.
        rejects: Some of these.
        n_tried: Number of rows that were tried.
        notes: What was not understood, and what was guessed.
    """

    root: Path
    attributes: dict[str, Any] | None = None
    n_rows: int = 0
    is_counted: bool = True
    n_tried: int = 0
    samples: list[Sample] = field(default_factory=list)
    reject_counts: Counter[str] = field(default_factory=Counter)
    rejects: list[RejectedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def format_yaml(self) -> str:
        """Return the entry as a YAML document."""
        document = {"type": COMPONENT_TYPE, "attributes": self.attributes}
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def sniff_folder(path: Path, attributes: Mapping[str, Any], given_fields: Mapping[str, str] | None = None) -> Proposal:
    """Look at the files of a folder and propose the source's entry.

    Args:
        path: The folder, or one file.
        attributes: What the entry says besides: slug, title, category, group and so on.
        given_fields: `question`, `answer` and `image` where they are known: fields of the records, or templates.

    Raises:
        MvlError: There is no such path, or a value of `attributes` is wrong.
    """
    listing = list_folder(path)
    proposal = Proposal(listing.root)
    needs_field_map = bool(given_fields) or attributes.get("format") == RECORDS
    if not needs_field_map and (native := _sniff_native_format(path, listing, attributes)) is not None:
        return native
    groups = find_record_files(listing, proposal.notes)
    candidates = [
        candidate for group in groups if (candidate := _build_candidate(group, listing, given_fields or {})) is not None
    ]
    if not candidates and (image_group := build_image_group(listing)) is not None:
        candidates = [c for c in (_build_image_candidate(image_group, listing),) if c is not None]
    if not candidates and given_fields:
        given = ", ".join(given_fields.values())
        proposal.notes += [f"not all of {given} are fields of {_describe_group(group)}" for group in groups]
        return proposal
    if not candidates:
        proposal.notes += [_describe_unknown(group) for group in groups] or [_describe_listing(listing)]
        return proposal
    best = _choose_candidate(proposal, candidates, attributes, listing)
    for other in candidates:
        if other is not best:
            proposal.notes.append(f"not used: {_describe_group(other.group)}")
    for group in groups:
        if not any(group is candidate.group for candidate in candidates):
            proposal.notes.append(_describe_unknown(group))
    proposal.notes += best.notes
    # What is said of missing images says all where nothing else is wrong.
    n_misread = proposal.n_tried - len(proposal.samples) - proposal.reject_counts["missing_image"]
    if 2 * n_misread > proposal.n_tried:
        proposal.notes.insert(0, "most rows looked at cannot be read: is another file meant, or another field?")
    # Rows that name images are of images, also while none of these is there.
    lacks_images = best.lacks_images or (best.has_media and not proposal.samples and "video" not in best.mapping)
    _set_modality(proposal, is_conversation="turns" in best.mapping, lacks_images=lacks_images)
    assert proposal.attributes is not None
    _count_rows(proposal, _validate(proposal.attributes))
    return proposal


def _sniff_native_format(path: Path, listing: Listing, given: Mapping[str, Any]) -> Proposal | None:
    """Return the entry of the native format that the files have or that is given; None where a field map is to be."""
    proposal = Proposal(listing.root, {**_build_base_attributes(given, listing), "modality": "single_image"})
    assert proposal.attributes is not None
    spec = _validate({**proposal.attributes, "images_optional": True})
    # One file of several does not say what the folder is.
    name = given.get("format") or (None if path.is_file() else find_native_format(spec, listing.root, listing.files))
    if name is None:
        return None
    proposal.attributes["format"] = name
    _try_rows(proposal, _validate({**proposal.attributes, "images_optional": True}))
    _set_modality(proposal, is_conversation=True, lacks_images=False)
    used_files = {sample.file for sample in proposal.samples} | {row.file for row in proposal.rejects}
    unused_files = [file for file in listing.files if file.endswith(RECORD_SUFFIXES) and file not in used_files]
    proposal.notes.append(f"read as {name}: {get_format(name).description}; `--format records` proposes a field map")
    if unused_files:
        proposal.notes.append(f"no row looked at is from {', '.join(unused_files[:5])}"[:300])
    _count_rows(proposal, _validate(proposal.attributes))
    return proposal


@dataclass(slots=True)
class _Candidate:
    """A group of files with the field map that reads it."""

    group: RecordFiles
    mapping: dict[str, Any]
    has_media: bool
    notes: list[str]
    lacks_images: bool = False


def _choose_candidate(
    proposal: Proposal, candidates: list[_Candidate], given: Mapping[str, Any], listing: Listing
) -> _Candidate:
    """Return the best candidate of which most rows can be read, with what was read in the proposal."""
    ranked = sorted(candidates, key=_compute_rank, reverse=True)[:MAX_TRIED]
    best, best_share = ranked[0], -1.0
    for candidate in ranked:
        tried = Proposal(listing.root, _build_attributes(candidate, given, listing))
        assert tried.attributes is not None
        _try_rows(tried, _validate({**tried.attributes, "images_optional": True}))
        n_useful = sum(bool(sample.images or sample.video) or not candidate.has_media for sample in tried.samples)
        share = n_useful / max(1, tried.n_tried)
        if share > best_share:
            best, best_share = candidate, share
            proposal.attributes, proposal.n_tried = tried.attributes, tried.n_tried
            proposal.samples, proposal.rejects = tried.samples, tried.rejects
            proposal.reject_counts = tried.reject_counts
        if share > 0.5:
            break
    return best


def _build_candidate(
    group: RecordFiles, listing: Listing, given_fields: Mapping[str, str] = MappingProxyType({})
) -> _Candidate | None:
    notes: list[str] = []
    files = format_files(group, listing.files)
    template = files if isinstance(files, str) else files[0]
    if group.shape == "text":
        texts: dict[str, Any] = {"question": "Describe the image.", "answer": "{text}"}
        notes.append("one text beside each image, taken as its description: word the question as you like")
        fields = collect_fields([])
    else:
        fields = collect_fields(group.records)
        given_texts = {key: value for key, value in given_fields.items() if key != "image"}
        texts = infer_text_fields(fields, group.label_names, notes, given_texts)
    needs_media = False
    if not texts and not given_fields and (texts := infer_listed_labels(fields, notes)):
        needs_media = True
    if not texts and not given_fields and group.shape == "json":
        texts = infer_key_values(fields, notes)
    if not texts:
        return None
    conversations = map(parse_cell, fields.values[texts["turns"]]) if "turns" in texts else ()
    part_images = [cell for conversation in conversations for cell in list_part_images(conversation)]
    has_part_images = bool(part_images)
    if part_images and isinstance(part_images[0], str):
        notes += describe_base_folder(listing.root, part_images[0])
    video = {} if has_part_images else infer_video_field(fields, listing)
    images = (
        {}
        if has_part_images or video
        else infer_image_fields(fields, group, template, listing, notes, given_fields.get("image"))
    )
    mapping: dict[str, Any] = {"files": files, "shape": group.shape, **group.options}
    if group.shape in SINGLE_RECORD_SHAPES and "{name}" in template:
        mapping["id"] = "name"
    elif group.shape not in ("dict_of_id", "webdataset") and (id_field := infer_id(fields)) is not None:
        mapping["id"] = id_field
    mapping |= texts | images | video
    if (images or has_part_images) and (marker := _find_marker(group.records)) is not None:
        mapping["marker"] = marker
    has_media = bool(images or video or has_part_images)
    # A question that is the same for all rows is about what they show.
    needs_media |= "question" in texts and "{" not in texts["question"] and "pairs" not in texts
    if needs_media and not has_media and not given_fields:
        return None
    missing_images = [] if has_media else _describe_missing_images(fields)
    notes += missing_images
    notes += _describe_unused(fields)
    return _Candidate(group, mapping, has_media, notes, lacks_images=bool(missing_images))


def _build_image_candidate(group: RecordFiles, listing: Listing) -> _Candidate | None:
    """Return the map of folders of images, the last folder being the class; None without several folders."""
    folders = {name.rsplit("/", 1)[0] for name in group.files}
    template = format_files(group, listing.files)
    *parents, _ = template.split("/") if isinstance(template, str) else ("",)
    if len(folders) < 2 or not parents or not parents[-1].startswith("{") or not isinstance(template, str):
        return None
    parents[-1] = "{label}"
    template = "/".join([*parents, template.rsplit("/", 1)[1]])
    notes = ["no records: the folders are taken as the images' classes; word the question as you like"]
    texts = {"question": "What is in the image?", "answer": "{label}"}
    return _Candidate(group, {"files": template, "shape": "image", **texts, "images": [template]}, True, notes)


def _compute_rank(candidate: _Candidate) -> tuple[bool, bool, int, int]:
    """Prefer records with images, and conversations or questions to captions; then many files and many fields."""
    has_question = "turns" in candidate.mapping or "{" in candidate.mapping.get("question", "")
    group = candidate.group
    return candidate.has_media, has_question, len(group.files) * len(group.records), len(group.fields)


def _find_marker(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Return how the texts mark an image, None where that is `<image>` or they do not."""
    counts: Counter[str] = Counter()
    has_zero = False
    for text in _iter_texts(list(records)):
        if _QWEN_MARKER in text:
            counts[_QWEN_MARKER] += 1
            continue
        for match in _MARKER.finditer(text):
            number, marker = match.group(1), match.group()
            if number:
                start, end = match.start(1) - match.start(), match.end(1) - match.start()
                marker = f"{marker[:start]}{{1}}{marker[end:]}"
                has_zero |= number == "0"
            counts[marker] += 1
    if not counts or IMAGE_MARKER in counts:
        return None
    marker = counts.most_common(1)[0][0]
    return marker.replace("{1}", "{0}") if has_zero else marker


def _iter_texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value[:20_000]
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _iter_texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _iter_texts(member)


def _build_attributes(candidate: _Candidate, given: Mapping[str, Any], listing: Listing) -> dict[str, Any]:
    modality = given.get("modality") or ("single_image" if candidate.has_media else "text")
    return {**_build_base_attributes(given, listing), "modality": modality, "records": candidate.mapping}


def _build_base_attributes(given: Mapping[str, Any], listing: Listing) -> dict[str, Any]:
    """Return the entry but for what the files say: modality, format and field map."""
    name = unicodedata.normalize("NFKD", listing.root.name.lower()).encode("ascii", "ignore").decode()
    slug = str(given.get("slug") or re.sub(r"[^a-z0-9]+", "_", name).strip("_") or "my_source")
    return {
        "slug": slug,
        "title": given.get("title") or listing.root.name,
        "category": given.get("category") or "general",
        "group": given.get("group") or "A",
        "modality": None,
        "format": RECORDS,
        **{key: value for key, value in given.items() if key in ("family", "license") and value is not None},
        "path": str(listing.root),
    }


def _validate(attributes: Mapping[str, Any]) -> SourceSpec:
    try:
        return SourceSpec.model_validate(dict(attributes))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise MvlError(f"the entry cannot be used: {key}: {first['msg'].removeprefix('Value error, ')}") from error


def _try_rows(proposal: Proposal, spec: SourceSpec) -> None:
    for row in islice(get_reader(spec.format)(spec, proposal.root), TRIED_ROWS):
        proposal.n_tried += 1
        if isinstance(row, Sample) and proposal.n_tried <= OPENED_ROWS:
            row = _open_images(row)
        if isinstance(row, Sample):
            proposal.samples.append(row)
        else:
            proposal.reject_counts[row.error] += 1
            if proposal.reject_counts[row.error] == 1 or len(proposal.rejects) < N_PREVIEWED:
                proposal.rejects.append(row)


def _open_images(sample: Sample) -> Sample | RejectedRow:
    """Return the sample, or the reject that it becomes because an image of it is broken."""
    for image in sample.images:
        try:
            inspect_image(image.read())
        except RejectError as error:
            return RejectedRow(sample.file, sample.position, error.code, f"{image.name}: {error.message}")
    return sample


def _set_modality(proposal: Proposal, *, is_conversation: bool, lacks_images: bool) -> None:
    """Say what the rows hold, and what becomes of those without an image where others have one."""
    assert proposal.attributes is not None
    if n_videos := sum(sample.video is not None for sample in proposal.samples):
        is_mixed = n_videos < len(proposal.samples)
        proposal.attributes["modality"] = None if is_mixed else "video"
        if is_mixed:
            proposal.notes.append(f"{n_videos} of {proposal.n_tried} rows have a video: a mixed source, so no modality")
        return
    counts = Counter(len(sample.images) for sample in proposal.samples)
    most_images = max(counts, default=0)
    proposal.attributes["modality"] = ("text", "single_image", "multi_image")[min(max(most_images, lacks_images), 2)]
    if most_images and counts[0] and is_conversation:
        proposal.attributes["images_optional"] = True
        proposal.notes.append(f"{counts[0]} conversations of {proposal.n_tried} rows have no image: taken as text")
    elif (most_images or lacks_images) and counts[0]:
        proposal.notes.append(
            f"{counts[0]} of {proposal.n_tried} rows have no image: rejected, unless you add images_optional: true"
        )
        proposal.reject_counts["no_image"] += counts[0]
        proposal.samples = [sample for sample in proposal.samples if sample.images]


def _count_rows(proposal: Proposal, spec: SourceSpec) -> None:
    ends_at = time.monotonic() + COUNT_SECONDS
    for _ in get_key_reader(spec.format)(spec, proposal.root):
        proposal.n_rows += 1
        if proposal.n_rows % 256 == 0 and time.monotonic() > ends_at:
            proposal.is_counted = False
            return


def _describe_group(group: RecordFiles) -> str:
    n_more = f" and {len(group.files) - 1} more" if len(group.files) > 1 else ""
    return f"{group.files[0]}{n_more}, {group.shape} with {', '.join(sorted(group.fields))[:120]}"


def _describe_unknown(group: RecordFiles) -> str:
    if {"images", "annotations"} <= group.fields or {"image_id", "bbox"} <= group.fields:
        return f"{group.files[0]}: looks like COCO's; the formats coco_captions and coco_instances read it"
    return f"not understood, because no field looks like an answer: {_describe_group(group)}"


def _describe_unused(fields: Fields) -> list[str]:
    unused = []
    for path, values in fields.values.items():
        if path not in fields.used:
            unused.append(f"{path} ({str(values[0])[:40]!r})")
    return [f"fields that are not used: {', '.join(unused)[:600]}"] if unused else []


def _describe_missing_images(fields: Fields) -> list[str]:
    """Return a warning about fields that name images where none is found: without them questions have no answer."""
    names = [path for path in fields.values if re.search(r"image|img|picture|photo|figure", path, re.I)]
    return [
        f"{path} seems to name images, but no image of that name is here; if the rows are text, say modality: text"
        for path in names[:1]
    ]


def _describe_listing(listing: Listing) -> str:
    counts = listing.count_suffixes()
    n_images = sum(count for suffix, count in counts.items() if suffix in IMAGE_SUFFIXES)
    endings = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(8))
    if n_images:
        return f"{n_images} images and no file of records beside them ({endings})"
    return f"no file of records: {endings or 'no files'}"
