"""What a row that was read is worth."""

from __future__ import annotations

from mvl_assets.common.rejects import RejectError
from mvl_assets.ingest.images import read_frames
from mvl_assets.media.image import ImageError, inspect_image
from mvl_assets.readers.sample import RejectedRow, Sample


def verdict(row: Sample | RejectedRow) -> str:
    """`good`, or the error class of the row, or of the first picture or film that cannot be decoded."""
    if isinstance(row, RejectedRow):
        return row.error
    try:
        for image in row.images:
            inspect_image(image.read())
        if row.video is not None:
            assert len(read_frames(row.video)) >= 2
    except (ImageError, RejectError) as error:
        return error.code
    return "good"
