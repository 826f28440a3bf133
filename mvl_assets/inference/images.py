"""Loading the pictures of requests that are about to be sent: fetched in batches, brought to the form models get."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

# One reader of a table at a time; decoding, which takes longer, overlaps.
_FETCHING = threading.Lock()

FetchPictures = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class PictureFault:
    """Why a picture cannot be sent. `error` is `missing_picture` or a class of `media.picture.PictureError`."""

    error: str
    message: str


def load_pictures(fetch: FetchPictures, image_ids: Iterable[str], longest_side: int) -> dict[str, bytes | PictureFault]:
    """JPEG or PNG bytes per image id, no side longer than `longest_side` pixels. Runs in a thread."""
    # Text-only runs never pay for the import of the imaging libraries.
    from mvl_assets.media.image import PictureError
    from mvl_assets.media.model_image import for_model

    wanted = list(dict.fromkeys(image_ids))
    with _FETCHING:
        fetched = fetch(wanted)
    loaded: dict[str, bytes | PictureFault] = {}
    for image_id in wanted:
        if image_id not in fetched:
            loaded[image_id] = PictureFault("missing_picture", f"picture {image_id} is not in the lake")
            continue
        try:
            loaded[image_id] = for_model(fetched[image_id], longest_side)
        except PictureError as error:
            loaded[image_id] = PictureFault(error.error, f"picture {image_id}: {error.message}")
    return loaded
