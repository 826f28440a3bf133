"""A lake whose samples are added, changed, withdrawn and deleted, by names that a test can draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import SAMPLES
from mvl_assets.lake.schemas.rows import ImageRow
from tests.curation.stored_images import store
from tests.lake.rows import sample, table_of
from tests.media.image_copies import COPIES, draw_waves, encode

FERRY = (
    "the ferry leaves the northern pier at dawn and crosses the strait twice before the tide turns and the lamps of the"
    " old lighthouse go out"
)
_FILES = [encode(draw_waves()), COPIES["halved"](draw_waves()), encode(draw_waves(seed=3))]


@dataclass(frozen=True)
class Content:
    question: str
    answer: str
    image: int | None = None


class ChangingLake:
    """Each change names a source and one of its samples."""

    def __init__(self, root: str) -> None:
        self.lake = Lake(root)
        self.images: dict[tuple[str, int], ImageRow] = {}
        self.newest: dict[tuple[str, int], dict[str, Any]] = {}

    def apply(self, changes: Sequence[tuple[str, tuple[str, int], Content | None]]) -> None:
        """Do what is named; the content belongs to `put_version`."""
        for name, row, content in changes:
            getattr(self, name)(*row, *(() if content is None else (content,)))

    def put_version(self, slug: str, number: int, content: Content) -> None:
        pictures = [] if content.image is None else [self._store(slug, content.image)]
        said = {"question": content.question, "answer": content.answer}
        self._append(slug, number, pictures=pictures, **said)

    def withdraw(self, slug: str, number: int) -> None:
        if (slug, number) in self.newest:
            self._append(slug, number, withdrawn=True, fingerprint=None, conversations=[])

    def delete(self, slug: str, number: int) -> None:
        """As a purge does."""
        if (row := self.newest.pop((slug, number), None)) is not None:
            self.lake.get_table("samples").delete(f"sample_id = '{row['sample_id']}'")

    def compact(self, slug: str, number: int) -> None:
        self.lake.get_table("samples").compact_partition(slug)

    def _append(self, slug: str, number: int, **said: Any) -> None:
        before = self.newest.get((slug, number))
        row = sample(slug, number, revision=before["revision"] + 1 if before else 1, **said)
        self.newest[slug, number] = row
        samples = self.lake.get_table("samples")
        samples.append_fragments([samples.write_fragments([table_of(SAMPLES, [row])], slug)])

    def _store(self, slug: str, image: int) -> ImageRow:
        if (slug, image) not in self.images:
            self.images[slug, image] = store(self.lake, slug, _FILES[image])
        return self.images[slug, image]
