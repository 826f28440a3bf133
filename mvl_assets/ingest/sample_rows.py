"""The rows of `samples` that an ingest writes: the content of versions, their digests, and the Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa

from mvl_assets.common.digest import compute_digest, compute_raw_digests, encode_plain_json, prepend_length
from mvl_assets.common.id_array import build_id_column
from mvl_assets.common.image_properties import ImageProperties
from mvl_assets.common.sample_facts import WITHDRAWN_FACTS, FlatConversations, build_fact_columns
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake.schemas.table_spec import CONVERSATIONS
from mvl_assets.readers.sample import Sample, Turn


class Content(msgspec.Struct, frozen=True, gc=False):
    """What a version says. Its fields are in the order of canonical JSON."""

    conversations: Sequence[Turn]
    image_ids: list[str]
    license: str | None
    video: Mapping[str, Any] | None

    def compute_hash(self) -> str:
        """Return the content hash, which a version keeps when its row moves."""
        # The times of a video have fractions, and its name may be no UTF-8.
        return compute_digest(encode_plain_json(self) if self.video is None else msgspec.to_builtins(self))


class NewVersion(msgspec.Struct, frozen=True, gc=False):
    """A version that the lake lacks. Its sample is without images and video, which may hold bytes."""

    sample: Sample
    image_names: Sequence[str | None]
    sample_id: str
    revision: int
    content: Content
    content_hash: str


def build_content(
    sample: Sample, image_ids: list[str], frame_times_s: list[float] | None, license: str | None
) -> Content:
    """Return the content of a version."""
    video = None if sample.video is None else {"name": sample.video.name, "seconds": frame_times_s}
    return Content(sample.turns, image_ids, license, video)


def build_version_table(
    versions: Sequence[NewVersion], properties: Mapping[str, ImageProperties], source: str, run_id: str
) -> pa.Table:
    """Return versions as rows of the table `samples`; `properties` are those of their images, by id."""
    samples, contents = [version.sample for version in versions], [version.content for version in versions]
    sample_ids = [version.sample_id for version in versions]
    revisions = [version.revision for version in versions]
    content_hashes = [version.content_hash for version in versions]
    image_ids = [content.image_ids for content in contents]
    turns = [turn for sample in samples for turn in sample.turns]
    conversations = FlatConversations(
        [len(sample.turns) for sample in samples], [turn.role for turn in turns], [turn.value for turn in turns]
    )
    columns = {
        "version_id": _compute_version_ids(sample_ids, content_hashes, revisions),
        "sample_id": sample_ids,
        "revision": revisions,
        "withdrawn": pa.repeat(False, len(versions)),
        "native_id": [sample.native_id for sample in samples],
        "upstream_dataset": [sample.upstream_dataset for sample in samples],
        "file": [sample.file for sample in samples],
        "position": [sample.position for sample in samples],
        "conversations": _build_conversations(conversations),
        "image_ids": image_ids,
        "video": [content.video for content in contents],
        "license": [content.license for content in contents],
        "content_hash": content_hashes,
        **build_fact_columns(
            sample_ids, conversations, image_ids, [version.image_names for version in versions], properties
        ),
    }
    return _build_table(columns, len(versions), source, run_id)


def build_withdrawn_table(withdrawn: Sequence[tuple[str, int]], source: str, run_id: str) -> pa.Table:
    """Return the versions, without content, that say which samples are no longer in the source's files.

    Args:
        withdrawn: The samples, and the revisions of these versions.
        source: The source.
        run_id: Id of the run.
    """
    sample_ids, revisions = zip(*withdrawn, strict=True)
    content_hash = Content([], [], None, None).compute_hash()
    constants = {
        **WITHDRAWN_FACTS,
        "conversations": [],
        "image_ids": [],
        "video": None,
        "license": None,
        "content_hash": content_hash,
        "withdrawn": True,
        "native_id": None,
        "upstream_dataset": None,
        "file": None,
        "position": None,
    }
    columns = {
        "version_id": _compute_version_ids(sample_ids, [content_hash] * len(withdrawn), revisions),
        "sample_id": sample_ids,
        "revision": revisions,
        **{name: [value] * len(withdrawn) for name, value in constants.items()},
    }
    return _build_table(columns, len(withdrawn), source, run_id)


def _build_table(columns: Mapping[str, Any], n_rows: int, source: str, run_id: str) -> pa.Table:
    all_columns = {**columns, "source": pa.repeat(source, n_rows), "run_id": pa.repeat(run_id, n_rows)}
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field in SAMPLES.columns
        for column in [all_columns[field.name]]
    ]
    return pa.Table.from_arrays(arrays, schema=SAMPLES.columns)


def _compute_version_ids(
    sample_ids: Sequence[str], content_hashes: Sequence[str], revisions: Sequence[int]
) -> pa.StringArray:
    """Return `compute_digest(sample_id, content_hash, revision)` of each version."""
    length = prepend_length("0" * 32)[:8]
    return build_id_column(
        compute_raw_digests(
            b'%b"%b"%b"%b"%b' % (length, sample_id.encode(), length, content_hash.encode(), prepend_length(revision))
            for sample_id, content_hash, revision in zip(sample_ids, content_hashes, revisions, strict=True)
        )
    )


def _build_conversations(conversations: FlatConversations) -> pa.Array:
    """Return the column from flat columns of roles and texts, in a fifth of the time that nested values take."""
    structs = pa.StructArray.from_arrays(
        [pa.array(conversations.roles, pa.string()), pa.array(conversations.texts, pa.string())],
        fields=list(CONVERSATIONS.value_type),
    )
    offsets = pa.array(list(accumulate(conversations.lengths, initial=0)), pa.int32())
    return pa.ListArray.from_arrays(offsets, structs, type=CONVERSATIONS)
