"""Columns of exported tables, and the metadata by which `datasets` and the hub's viewer know images among them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from mvl_assets.export.export_row import PROVENANCE_COLUMNS

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An image as `datasets.Image` stores it."""
IMAGES = pa.list_(IMAGE)

PROVENANCE_TYPES = {
    **dict.fromkeys(("blind", "all_yes", "matches_reference", "keep"), pa.bool_()),
    **dict.fromkeys(("content_score", "relevance_score"), pa.int8()),
    "p_yes": pa.float64(),
}
"""Types of columns that are not text."""

PROVENANCE_FIELDS = [pa.field(name, PROVENANCE_TYPES.get(name, pa.string())) for name in PROVENANCE_COLUMNS]
IMAGE_IDS = pa.field("image_ids", pa.list_(pa.string()))


def build_table_schema(content: list[pa.Field]) -> pa.Schema:
    """Return `id`, the content columns of a format, then ids of images and provenance, as `datasets` reads it."""
    return add_features(pa.schema([pa.field("id", pa.string()), *content, IMAGE_IDS, *PROVENANCE_FIELDS]))


def add_features(schema: pa.Schema) -> pa.Schema:
    """Return the schema with `datasets`' features in its metadata."""
    features = {field.name: describe_feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def describe_feature(type_: pa.DataType) -> Any:
    """Return the feature of a column in the form of `Features.to_dict`, which every version of `datasets` reads."""
    if type_ == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(type_):
        inner = describe_feature(type_.value_type)
        # A list of structs in the form that versions before 4.0 know, too.
        return [inner] if "_type" not in inner else {"feature": inner, "_type": "Sequence"}
    if pa.types.is_struct(type_):
        return {field.name: describe_feature(field.type) for field in type_}
    return {"dtype": {"double": "float64"}.get(str(type_), str(type_)), "_type": "Value"}
