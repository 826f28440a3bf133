"""All formats by name."""

from __future__ import annotations

from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.errors import MvlError
from mvl_assets.export.formats.export_format import ExportFormat
from mvl_assets.export.formats.json_formats import LlamaFactoryFormat, LlavaJsonFormat, MsSwiftFormat, QwenVlFormat
from mvl_assets.export.formats.table_formats import FineVisionFormat, LanceFormat, ParquetFormat, TrlFormat
from mvl_assets.export.formats.tar_formats import EnergonFormat, WebDatasetFormat

FORMATS: dict[str, ExportFormat] = {
    format_.name: format_
    for format_ in (
        ParquetFormat(),
        LanceFormat(),
        WebDatasetFormat(),
        LlavaJsonFormat(),
        MsSwiftFormat(),
        LlamaFactoryFormat(),
        QwenVlFormat(),
        FineVisionFormat(),
        TrlFormat(),
        EnergonFormat(),
    )
}


def get_format(name: str) -> ExportFormat:
    """Return a format by name; hyphens count as underscores.

    Raises:
        MvlError: There is no such format.
    """
    format_ = FORMATS.get(name.replace("-", "_"))
    if format_ is None:
        raise MvlError(
            f"there is no export format {name!r}",
            hint=f"{format_suggestion(name, list(FORMATS))}one of {', '.join(FORMATS)}",
        )
    return format_
