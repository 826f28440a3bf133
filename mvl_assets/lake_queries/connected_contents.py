"""Connected components: contents that pairs link, directly or over others, whose decisions may depend on each other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def find_connected(pairs: pa.Table, start: pa.Array) -> pa.Array:
    """Return the ids in `start` and all that pairs link with them, over any number of pairs.

    Each round looks at the pairs that are not reached yet, so the cost is that of all pairs (some 0.1 microseconds
    each), times the rounds for chains only.

    Args:
        pairs: Two columns of ids.
        start: Ids, each once.
    """
    n_pairs = len(pairs)
    columns = [pairs.column(nth).combine_chunks() for nth in range(2)]
    encoded = pa.concat_arrays([start.cast(pa.string()), *columns]).dictionary_encode()
    codes = encoded.indices.to_numpy()
    is_reached = np.zeros(len(encoded.dictionary), dtype=bool)
    is_reached[codes[: len(start)]] = True
    left, right = codes[len(start) :][:n_pairs], codes[len(start) :][n_pairs:]
    while len(left):
        is_linked = is_reached[left] | is_reached[right]
        if not is_linked.any():
            break
        is_reached[left[is_linked]] = True
        is_reached[right[is_linked]] = True
        left, right = left[~is_linked], right[~is_linked]
    return pc.filter(encoded.dictionary, pa.array(is_reached))
