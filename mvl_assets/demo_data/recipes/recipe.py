"""How one source's demo data is made: format, content, rows per image, faults."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.drawing import Drawing
from mvl_assets.demo_data.encode import choose_encoding, encode_drawing
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.rows import RawFile, RawRow, apply_fault

IMAGE_FAULTS = ("truncated_image", "missing_image", "not_an_image")


@dataclass(frozen=True, slots=True)
class DemoRecipe:
    """Recipe of one source. `layout` names a writer of `layouts`; `faults` go to that many rows, chosen by the seed.

    `image_name_template` is filled with the number and folder of the image, `row_id_template` with the slug and the
    number of the row.
    """

    slug: str
    layout: str
    content_builder: c.ContentBuilder
    faults: tuple[str, ...]
    rows_per_image: int = 1
    image_name_template: str = "{number:06d}"
    row_id_template: str = "{slug}_{number:06d}"
    png_only: bool = False
    jpeg_only: bool = False

    def __post_init__(self) -> None:
        assert self.layout in LAYOUTS, self.layout

    def select_faults(self, n_rows: int) -> tuple[str, ...]:
        """Return the faults of `n_rows` rows: at most one row in six is invalid."""
        return self.faults[: n_rows // 6]

    def build_rows(self, n_rows: int, seed: int) -> list[RawRow]:
        """Yield all rows, the same for equal arguments; about `n_rows` small images are held at once."""
        faults = self.select_faults(n_rows)
        fault_positions = Random(f"{self.slug}/{seed}/faults").sample(range(n_rows), len(faults))
        fault_by_position = dict(zip(fault_positions, faults, strict=True))
        built_rows = []
        for position in range(n_rows):
            row = self._build_row(position, seed)
            built_rows.append(apply_fault(row, fault_by_position[position]) if position in fault_by_position else row)
        return built_rows

    def _build_row(self, position: int, seed: int) -> RawRow:
        image_index, row_in_image = divmod(position, self.rows_per_image)
        content = self.content_builder(Random(f"{self.slug}/{seed}/{image_index}"), image_index, row_in_image)
        has_multiple_images = len(content.drawings) > 1
        images = tuple(
            self._build_image_file(drawing, image_index, f"_{n}" if has_multiple_images else "")
            for n, drawing in enumerate(content.drawings)
        )
        video = None if content.video is None else RawFile(f"{self.slug}_{image_index:05d}.mp4", content.video.data)
        row_id = self.row_id_template.format(slug=self.slug, number=position)
        return RawRow(row_id, content.turns, images, video, fields=content.fields)

    def _build_image_file(self, drawing: Drawing, image_index: int, name_suffix: str) -> RawFile:
        encoding = "png" if self.png_only else "jpeg" if self.jpeg_only else choose_encoding(drawing, image_index)
        suffix, data = encode_drawing(drawing, encoding)
        return RawFile(
            self.image_name_template.format(number=image_index, folder=f"{image_index // 16:05d}")
            + name_suffix
            + suffix,
            data,
            drawing,
        )
