"""Loading the images of requests that are about to be sent: fetched in batches, prepared for models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

# One reader of a table at a time; decoding, which takes longer, overlaps.
_FETCH_LOCK = threading.Lock()

FetchImages = Callable[[Sequence[str]], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class ImageFault:
    """An image that cannot be sent. `error` is `missing_image` or a class of `media.image.ImageError`."""

    error: str
    message: str


def load_images(
    fetch_images: FetchImages, image_ids: Iterable[str], max_image_side: int
) -> dict[str, bytes | ImageFault]:
    """Return JPEG or PNG bytes by image id, no side longer than `max_image_side` pixels. Runs in a thread."""
    # Text-only runs never pay for the import of the imaging libraries.
    from mvl_assets.media.image import ImageError
    from mvl_assets.media.model_image import prepare_image

    unique_ids = list(dict.fromkeys(image_ids))
    with _FETCH_LOCK:
        fetched = fetch_images(unique_ids)
    loaded: dict[str, bytes | ImageFault] = {}
    for image_id in unique_ids:
        if image_id not in fetched:
            loaded[image_id] = ImageFault("missing_image", f"image {image_id} is not in the lake")
            continue
        try:
            loaded[image_id] = prepare_image(fetched[image_id], max_image_side)
        except ImageError as error:
            loaded[image_id] = ImageFault(error.code, f"image {image_id}: {error.message}")
    return loaded
