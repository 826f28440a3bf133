r"""FineVision's Parquet: rows of The Cauldron with ratings of every turn; every `*.parquet` below the folder.

    images: [{bytes: ..., path: null}]  texts: [{user: "What is it?", assistant: "A cat."}]  relevance_ratings: [5]
    images: [{bytes: ...}, {bytes: ...}]  texts: [{user: "Which differs?", assistant: "The second."}, {...}]  ...

Read like `cauldron_parquet`; the ratings are not stored. Dataset card: HuggingFaceM4/FineVision.
"""

from __future__ import annotations

from mvl_assets.readers.formats import cauldron_parquet

FORMAT = cauldron_parquet.FORMAT
