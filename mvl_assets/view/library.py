"""The lake as the page sees it: an index that is made in the background and followed, and the selections of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np

from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.pair_index.build import build_file_name, build_pair_index, read_table_versions
from mvl_assets.lake_queries.pair_index.index import PairIndex, Selection
from mvl_assets.lake_queries.pair_index.search import search_rewrites
from mvl_assets.view.label_book import LabelBook
from mvl_assets.view.state import ViewState

CHECK_INTERVAL_S = 5.0
"""How often the versions of the tables are looked at, at most, and only while somebody looks at a page."""

MAX_SEARCHES = 8
_logger = logging.getLogger(__name__)


class PairLibrary:
    """Judged pairs to look at. Methods may be called from several threads.

    Attributes:
        lake: The lake.
        labels: What people said about its pairs.
        building_since: Time on the monotonic clock since which an index is being made; None when none is.
        problem: Why the last index could not be made; empty otherwise.
    """

    def __init__(self, lake: Lake, folder: Path, holdout_limit: int = 0) -> None:
        self.lake = lake
        self.labels = LabelBook(lake)
        self.building_since: float | None = None
        self.problem = ""
        self._folder = folder
        self._holdout_limit = holdout_limit
        self._index: PairIndex | None = None
        self._file_name = ""
        self._checked_at = float("-inf")
        self._lock = threading.Lock()
        self._searches: OrderedDict[tuple[object, ...], np.ndarray] = OrderedDict()
        self._built = threading.Event()

    def get_index(self, wait_s: float = 0.0) -> PairIndex | None:
        """Return the newest index that is ready, and have a newer one made if the lake has changed.

        Args:
            wait_s: Wait this long for the first one.
        """
        with self._lock:
            now = time.monotonic()
            if self.building_since is None and now - self._checked_at >= CHECK_INTERVAL_S:
                self._checked_at = self.building_since = now
                threading.Thread(target=self._follow, name="pair-index", daemon=True).start()
        if self._index is None and wait_s:
            self._built.wait(wait_s)
        return self._index

    def require_index(self) -> PairIndex:
        """Return the index, however long it takes to make.

        Raises:
            MvlError: It cannot be made.
        """
        index = self.get_index()
        while index is None and not self.problem:
            index = self.get_index(1.0)
        if index is None:
            raise MvlError(f"the index of the judged pairs cannot be made: {self.problem}", hint="mvl doctor")
        return index

    def _follow(self) -> None:
        try:
            versions = read_table_versions(self.lake)
            name = build_file_name(self.lake, versions, self._holdout_limit)
            if name != self._file_name:
                path = self._folder / name
                if not path.exists():
                    build_pair_index(self.lake, versions, self._holdout_limit, path)
                index = PairIndex(self.lake, path)
                self._remove_other_files(path)
                # The one before is not closed: a page may still be read from it. It goes with its last reader.
                self._index, self._file_name, self.problem = index, name, ""
        except Exception as error:
            _logger.exception("the index of the judged pairs cannot be made")
            self.problem = f"{type(error).__name__}: {error}"
        finally:
            self.building_since = None
            self._built.set()

    def _remove_other_files(self, path: Path) -> None:
        for other in self._folder.glob("pairs-*"):
            if other != path:
                other.unlink(missing_ok=True)

    # -- selecting -------------------------------------------------------------------------------------------------

    def select(self, index: PairIndex, state: ViewState) -> Selection:
        """Return the pairs of a page's filter. Raises `ConditionError`."""
        if state.queue_rows:
            return self._select_queue(index, state)
        restricted, tag = self._restrict(index, state)
        return index.select(state.pair_filter, restricted, tag)

    def count_values(self, index: PairIndex, state: ViewState) -> dict[str, list[tuple[str | None, int]]]:
        """Return the numbers of pairs by value of each facet. Raises `ConditionError`."""
        restricted, tag = self._restrict(index, state)
        return index.count_values(state.pair_filter, restricted, tag)

    def _restrict(self, index: PairIndex, state: ViewState) -> tuple[np.ndarray | None, object]:
        """Return the ordinals that words and labels leave, None for all, and what they depend on."""
        pair_filter = state.pair_filter
        restricted = None
        tag: tuple[object, ...] = ()
        if pair_filter.words:
            categories = pair_filter.values.get("category", ())
            restricted = self._search(index, pair_filter.words, categories)
            tag = (pair_filter.words, categories)
        if pair_filter.label:
            labelled = self.labels.find_ordinals(index, pair_filter.label)
            everything = np.arange(index.n_rows, dtype=np.int32) if restricted is None else restricted
            restricted = (
                np.setdiff1d(everything, labelled, assume_unique=True)
                if pair_filter.label == "none"
                else np.intersect1d(everything, labelled, assume_unique=True)
            )
            tag = (*tag, self.labels.version)
        return restricted, tag

    def _search(self, index: PairIndex, words: tuple[str, ...], categories: tuple[str, ...]) -> np.ndarray:
        key = (index.path.name, words, categories)
        with self._lock:
            if key in self._searches:
                return self._searches[key]
        ordinals = search_rewrites(index, words, categories)
        with self._lock:
            self._searches[key] = ordinals
            while len(self._searches) > MAX_SEARCHES:
                self._searches.popitem(last=False)
        return ordinals

    def _select_queue(self, index: PairIndex, state: ViewState) -> Selection:
        """Return the pairs that `mvl judge sample` draws, in its order."""
        rewrite_ids = self.labels.draw_queue(state.queue_rows, state.pair_filter.seed)
        ordinals = index.find_ordinals("rewrite_id", rewrite_ids)
        return Selection(np.array([ordinals[i] for i in rewrite_ids if i in ordinals], dtype=np.int32))
