"""One file with a selection of pairs, to send to somebody: images inside, no script, nothing that is fetched."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from mvl_assets.common.markdown import encode_data_uri
from mvl_assets.lake_queries.pair_index.index import PairIndex
from mvl_assets.view.app import FOLDER, build_environment
from mvl_assets.view.image_files import ImageShelf
from mvl_assets.view.library import PairLibrary
from mvl_assets.view.pairs import read_cards
from mvl_assets.view.state import ViewState

MAX_ROWS = 200
MAX_ROW_IMAGES, MAX_IMAGE_BYTES, MAX_TEXT_CHARS = 4, 40 << 20, 6000


def write_standalone_page(
    path: Path, library: PairLibrary, index: PairIndex, state: ViewState, max_rows: int = MAX_ROWS
) -> int:
    """Write the first pairs of a selection as one HTML file, and return their number.

    Args:
        path: The file.
        library: The lake.
        index: Its index.
        state: What is selected.
        max_rows: Number of pairs at most, up to `MAX_ROWS`.

    Raises:
        OSError: The file cannot be written.
    """
    ordinals = library.select(index, state).ordinals[: min(max_rows, MAX_ROWS)].tolist()
    cards = read_cards(index, ordinals, library.labels.by_rewrite, MAX_TEXT_CHARS)
    shelf = ImageShelf(library.lake)
    uri_by_image: dict[str, str] = {}
    n_bytes = 0
    for card in cards:
        for image_id in card.image_ids[:MAX_ROW_IMAGES]:
            file = shelf.read_thumbnail(card.row["source"], image_id) if n_bytes < MAX_IMAGE_BYTES else None
            if file is not None and image_id not in uri_by_image:
                uri_by_image[image_id] = encode_data_uri(file.data, file.media_type)
                n_bytes += len(uri_by_image[image_id])
    style = (FOLDER / "static" / "view.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    html = (
        build_environment()
        .get_template("standalone.html")
        .render(
            cards=cards,
            state=state,
            uri_by_image=uri_by_image,
            style=style,
            style_hash=f"sha256-{digest}",
            max_row_images=MAX_ROW_IMAGES,
            lake_root=library.lake.root,
        )
    )
    path.write_bytes(html.encode("utf-8", "backslashreplace"))
    return len(cards)
