"""Croissant metadata of an export in Parquet, by which `mlcroissant` loads its records.

Concept: http://mlcommons.org/croissant/1.1
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from mvl_assets.export.dataset_card import PAPER_TITLE, CardConfig
from mvl_assets.export.formats.table_schemas import IMAGE

FILE_NAME = "croissant.json"
_VERSION = "0.1.0"

_SCHEMA_TYPES = {pa.bool_(): "sc:Boolean", pa.float64(): "sc:Float", pa.int8(): "sc:Integer", pa.int64(): "sc:Integer"}
_TERMS = (
    "arrayShape",
    "citeAs",
    "column",
    "containedIn",
    "equivalentProperty",
    "extract",
    "field",
    "fileObject",
    "fileProperty",
    "fileSet",
    "format",
    "includes",
    "isArray",
    "isLiveDataset",
    "jsonPath",
    "key",
    "md5",
    "parentField",
    "path",
    "recordSet",
    "references",
    "regex",
    "repeated",
    "replace",
    "samplingRate",
    "separator",
    "source",
    "subField",
    "transform",
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS},
}


def render_croissant(
    configs: Sequence[CardConfig], license_expression: str, published: str, title: str = PAPER_TITLE
) -> str:
    """Return the metadata as JSON-LD, with a file set and a record set for each configuration that has a schema.

    Args:
        configs: The files beside the metadata.
        license_expression: SPDX expression of the whole.
        published: Date, as ISO 8601 writes it.
        title: What the data is called.
    """
    described = [config for config in configs if config.schema is not None]
    content = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": "mvl-mixtures",
        "alternateName": title,
        "description": "Instruction data of images and text with the provenance of every row; README.md says how it"
        " was made.",
        "license": license_expression,
        "url": "README.md",
        "version": _VERSION,
        "datePublished": published,
        "creator": {"@type": "sc:Organization", "name": "mvl"},
        "citeAs": "https://arxiv.org/abs/2412.05237",
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": f"{config.name}-files",
                "encodingFormat": "application/x-parquet",
                "includes": config.data_files,
            }
            for config in described
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": config.name,
                "key": {"@id": f"{config.name}/id"},
                "field": list(_iter_fields(config)),
            }
            for config in described
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _iter_fields(config: CardConfig) -> Iterator[dict[str, Any]]:
    """Yield a field for each column, and one for each member of a list of structs: readers know no nested records."""
    assert config.schema is not None
    for column in config.schema:
        is_list = pa.types.is_list(column.type)
        type_ = column.type.value_type if is_list else column.type
        if type_ == IMAGE and not is_list:
            yield _build_field(config, column.name, column.name, "sc:ImageObject", json_path="bytes")
        elif pa.types.is_struct(type_):
            for member in type_:
                if not pa.types.is_nested(member.type):
                    name = f"{column.name}/{member.name}"
                    yield _build_field(config, name, column.name, "sc:Text", json_path=member.name, is_list=True)
        else:
            yield _build_field(config, column.name, column.name, _SCHEMA_TYPES.get(type_, "sc:Text"), is_list=is_list)


def _build_field(
    config: CardConfig, name: str, column: str, data_type: str, *, json_path: str | None = None, is_list: bool = False
) -> dict[str, Any]:
    transform = {"transform": {"jsonPath": json_path}} if json_path else {}
    shape = {"isArray": True, "arrayShape": "-1"} if is_list else {}
    return {
        "@type": "cr:Field",
        "@id": f"{config.name}/{name}",
        "dataType": data_type,
        **shape,
        "source": {"fileSet": {"@id": f"{config.name}-files"}, "extract": {"column": column}, **transform},
    }
