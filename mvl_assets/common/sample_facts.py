"""Facts about a sample that steps over all samples compare: computed once, at ingest, and stored as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mvl_assets.common.digest import compute_digest, encode_canonical_json, encode_plain_json
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.markers import IMAGE_MARKER, VIDEO_MARKER

# "holdout" enters the digest: another word would hold out other samples.
_HOLDOUT = encode_canonical_json("holdout")
_END_PUNCTUATION = ".,;:!?"

WITHDRAWN_FACTS: Mapping[str, Any] = {
    "image_properties": [],
    "fingerprint": None,
    "similar_fingerprint": None,
    "holdout_hash": None,
    "n_turns": 0,
    "n_chars": 0,
}
"""Columns of a version without content."""


def build_sample_facts(
    sample_id: str,
    conversations: Sequence[Mapping[str, Any]],
    image_ids: Sequence[str],
    image_names: Sequence[str | None],
    properties: Mapping[str, ImageProperties],
) -> dict[str, Any]:
    """Return the columns of `samples` that follow from a version's content.

    Args:
        sample_id: The sample.
        conversations: Its turns.
        image_ids: Its images, in order.
        image_names: Name of each image in the source; None for one without, such as a frame of a video.
        properties: Properties by image id.
    """
    words = _encode_words(conversations)
    image_hashes = [properties[image_id].phash or image_id for image_id in image_ids]
    fingerprint = compute_digest(encode_plain_json(list(image_ids)), words)
    return {
        "image_properties": [
            # A name in an archive may hold half a surrogate pair, which a table cannot store.
            {"name": name and name.encode("utf-8", "backslashreplace").decode(), **asdict(properties[image_id])}
            for name, image_id in zip(image_names, image_ids, strict=True)
        ],
        "fingerprint": fingerprint,
        "similar_fingerprint": compute_digest(encode_plain_json(image_hashes), words) if image_ids else fingerprint,
        "holdout_hash": compute_holdout_hash(get_image_group_id(sample_id, image_ids)),
        "n_turns": len(conversations),
        "n_chars": sum(len(turn["value"]) for turn in conversations),
    }


def get_image_group_id(sample_id: str, image_ids: Sequence[str]) -> str:
    """Return the first image id, or the sample id without images: a group is held out as a whole."""
    return image_ids[0] if image_ids else sample_id


def compute_holdout_hash(image_group_id: str) -> int:
    """Return 32 bits of a digest; the groups with the smallest are held out."""
    return int(compute_digest(_HOLDOUT, image_group_id)[:8], 16)


def compute_fingerprint(conversations: Sequence[Mapping[str, Any]], image_ids: Sequence[str]) -> str:
    """Return a digest that is equal for rows with the same images in the same order and the same words.

    Case, spaces and punctuation at the ends of words are ignored.
    """
    return compute_digest(list(image_ids), _encode_words(conversations))


def _encode_words(conversations: Sequence[Mapping[str, Any]]) -> bytes:
    return encode_plain_json([f"{turn['from']}:{_normalize_text(turn['value'])}" for turn in conversations])


def _normalize_text(text: str) -> str:
    unmarked = text.replace(IMAGE_MARKER, "").replace(VIDEO_MARKER, "") if "<" in text else text
    words = unmarked.split()
    if any(mark in unmarked for mark in _END_PUNCTUATION):
        # Only punctuation at the end of a word is ignored: 3.5 is not 35, and -5 is not 5.
        words = [stripped for word in words if (stripped := word.rstrip(_END_PUNCTUATION))]
    return " ".join(words).casefold()
