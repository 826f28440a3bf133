"""Facts about a sample that steps over all samples compare: computed once, at ingest, and stored as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from operator import add
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mvl_assets.common.digest import (
    compute_digest,
    compute_id_digests,
    compute_raw_digests,
    encode_canonical_json,
    encode_plain_json,
    prepend_length,
)
from mvl_assets.common.id_array import build_id_column
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.text_facts import compute_text_facts
from mvl_assets.common.words import normalize_texts

# "holdout" enters the digest: another word would hold out other samples.
_HOLDOUT = encode_canonical_json("holdout")
_NO_IMAGES = prepend_length(encode_plain_json([]))

# Of each image; of their sharpness a column of its own has what filters ask for.
_STORED_PROPERTIES = tuple(field.name for field in fields(ImageProperties) if field.name != "sharpness")

WITHDRAWN_FACTS: Mapping[str, Any] = {
    "image_properties": [],
    "fingerprint": None,
    "similar_fingerprint": None,
    "holdout_hash": None,
    "n_turns": 0,
    "n_chars": 0,
    "question_chars": 0,
    "answer_chars": 0,
    "type_token_ratio": None,
    "language": None,
    "sharpness": None,
}
"""Columns of a version without content."""


class FlatConversations(NamedTuple):
    """The turns of several conversations: how many each has, then who speaks and what, in one list for all."""

    lengths: Sequence[int]
    roles: Sequence[str]
    texts: Sequence[str]


def build_fact_columns(
    sample_ids: Sequence[str],
    conversations: FlatConversations,
    image_ids: Sequence[Sequence[str]],
    image_names: Sequence[Sequence[str | None]],
    properties: Mapping[str, ImageProperties],
) -> dict[str, Any]:
    """Return the columns of `samples` that follow from the content of versions, as arrays or lists.

    Args:
        sample_ids: The samples.
        conversations: Their turns.
        image_ids: Their images, in order.
        image_names: Name of each image in the source; None for one without, such as a frame of a video.
        properties: Properties by image id.
    """
    normalized_texts = normalize_texts(conversations.texts)
    words = list(_iter_encoded_words(conversations, normalized_texts))
    similar_images = [[properties[image_id].phash or image_id for image_id in ids] if ids else ids for ids in image_ids]
    fingerprints = _compute_fingerprints(image_ids, words)
    are_same = similar_images == image_ids
    return {
        "image_properties": [
            _describe_images(names, ids, properties) if ids else []
            for names, ids in zip(image_names, image_ids, strict=True)
        ],
        "fingerprint": fingerprints,
        "similar_fingerprint": fingerprints if are_same else _compute_fingerprints(similar_images, words),
        "holdout_hash": _compute_holdout_hashes(map(get_image_group_id, sample_ids, image_ids)),
        "n_turns": conversations.lengths,
        "n_chars": _count_chars(conversations),
        **compute_text_facts(conversations.lengths, conversations.roles, normalized_texts)._asdict(),
        "sharpness": [_find_least_sharp(ids, properties) for ids in image_ids],
    }


def _describe_images(
    names: Sequence[str | None], image_ids: Sequence[str], properties: Mapping[str, ImageProperties]
) -> list[dict[str, Any]]:
    return [
        # A name in an archive may hold half a surrogate pair, which a table cannot store.
        {"name": name and name.encode("utf-8", "backslashreplace").decode(), **_select_stored(properties[image_id])}
        for name, image_id in zip(names, image_ids, strict=True)
    ]


def _select_stored(properties: ImageProperties) -> dict[str, Any]:
    return {name: getattr(properties, name) for name in _STORED_PROPERTIES}


def _find_least_sharp(image_ids: Sequence[str], properties: Mapping[str, ImageProperties]) -> float | None:
    values = [value for image_id in image_ids if (value := properties[image_id].sharpness) is not None]
    return min(values, default=None)


def get_image_group_id(sample_id: str, image_ids: Sequence[str]) -> str:
    """Return the first image id, or the sample id without images: a group is held out as a whole."""
    return image_ids[0] if image_ids else sample_id


def compute_holdout_hash(image_group_id: str) -> int:
    """Return 32 bits of a digest; the groups with the smallest are held out."""
    return _compute_holdout_hashes([image_group_id])[0]


def compute_fingerprint(conversations: Sequence[Mapping[str, Any]], image_ids: Sequence[str]) -> str:
    """Return a digest that is equal for rows with the same images in the same order and the same words.

    Case, spaces and punctuation at the ends of words are ignored.
    """
    roles, texts = [turn["from"] for turn in conversations], [turn["value"] for turn in conversations]
    return compute_digest(
        list(image_ids), *_iter_encoded_words(FlatConversations([len(texts)], roles, texts), normalize_texts(texts))
    )


def _compute_holdout_hashes(image_group_ids: Iterable[str]) -> list[int]:
    return [int(digest[:8], 16) for digest in compute_id_digests([_HOLDOUT], image_group_ids, [])]


def _compute_fingerprints(images: Sequence[Sequence[str]], words: Sequence[bytes]) -> pa.StringArray:
    """Return `compute_digest(images, words)` of each row; `images` are ids or hashes."""
    encoded_images = (
        prepend_length(encode_plain_json(row_images)) if row_images else _NO_IMAGES for row_images in images
    )
    return build_id_column(compute_raw_digests(map(add, encoded_images, map(prepend_length, words))))


def _iter_encoded_words(conversations: FlatConversations, normalized_texts: Sequence[str]) -> Iterator[bytes]:
    spoken = (f"{role}:{words}" for role, words in zip(conversations.roles, normalized_texts, strict=True))
    for length in conversations.lengths:
        yield encode_plain_json(list(islice(spoken, length)))


def _count_chars(conversations: FlatConversations) -> pa.Int64Array:
    counts = np.cumsum([0, *map(len, conversations.texts)])
    return pa.array(np.diff(counts[np.cumsum([0, *conversations.lengths])]))
