"""How the miniature of one source is made: format, content, rows per picture, faults."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mvl_assets.demo_data import contents as c
from mvl_assets.demo_data.drawings.drawing import Drawing
from mvl_assets.demo_data.encode import encode, style_of
from mvl_assets.demo_data.layouts import LAYOUTS
from mvl_assets.demo_data.rows import RawFile, Row, damage

PICTURE_FAULTS = ("truncated_picture", "missing_picture", "not_a_picture")


@dataclass(frozen=True, slots=True)
class Recipe:
    """`layout` names a writer of `layouts`; `faults` are applied to that many rows, in places the seed chooses.

    `picture_name` is filled with the number of the picture and the folder it goes to, `key` with the slug and the
    number of the row.
    """

    slug: str
    layout: str
    maker: c.Maker
    faults: tuple[str, ...]
    rows_per_picture: int = 1
    picture_name: str = "{number:06d}"
    key: str = "{slug}_{number:06d}"
    png_only: bool = False
    jpeg_only: bool = False

    def __post_init__(self) -> None:
        assert self.layout in LAYOUTS, self.layout

    def broken(self, rows: int) -> tuple[str, ...]:
        """The faults that `rows` rows hold: at most one row in six is broken."""
        return self.faults[: rows // 6]

    def rows(self, rows: int, seed: int) -> list[Row]:
        """All rows, the same for equal arguments; about `rows` small pictures are held at once."""
        faults = self.broken(rows)
        places = Random(f"{self.slug}/{seed}/faults").sample(range(rows), len(faults))
        fault_at = dict(zip(places, faults, strict=True))
        made = []
        for position in range(rows):
            row = self._row(position, seed)
            made.append(damage(row, fault_at[position]) if position in fault_at else row)
        return made

    def _row(self, position: int, seed: int) -> Row:
        index, part = divmod(position, self.rows_per_picture)
        content = self.maker(Random(f"{self.slug}/{seed}/{index}"), index, part)
        several = len(content.drawings) > 1
        pictures = tuple(
            self._file(drawing, index, f"_{n}" if several else "") for n, drawing in enumerate(content.drawings)
        )
        video = None if content.film is None else RawFile(f"{self.slug}_{index:05d}.mp4", content.film.data)
        key = self.key.format(slug=self.slug, number=position)
        return Row(key, content.turns, pictures, video, fields=content.fields)

    def _file(self, drawing: Drawing, index: int, ending: str) -> RawFile:
        style = "png" if self.png_only else "jpeg" if self.jpeg_only else style_of(drawing, index)
        suffix, data = encode(drawing, style)
        return RawFile(self.picture_name.format(number=index, folder=f"{index // 16:05d}") + ending + suffix, data)
