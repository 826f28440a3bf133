"""The web application behind `mvl view`: addresses, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mvl_assets.errors import MvlError
from mvl_assets.judging.label_history import LABEL_NAMES
from mvl_assets.judging.probes.contrast_pairs import PROBE_FAULTS
from mvl_assets.lake_queries.pair_index.columns import FACET_COLUMNS, VERDICT_COLUMNS
from mvl_assets.lake_queries.pair_index.filters import FIXED_ORDERS, NO_VALUE
from mvl_assets.lake_queries.pair_index.index import PairIndex, Selection
from mvl_assets.view.image_files import ImageFile, ImageShelf
from mvl_assets.view.library import PairLibrary
from mvl_assets.view.lineage_page import read_lineage_sections
from mvl_assets.view.neighbours import read_near_sample, read_neighbours
from mvl_assets.view.overview_page import read_overview_page
from mvl_assets.view.pairs import read_cards, read_page
from mvl_assets.view.security import RequestGuard
from mvl_assets.view.state import LABEL_FILTERS, PAGE_ROWS, ViewState, is_id, parse_state
from mvl_assets.view.training_page import TrainingOverview, draw_training_page

FIRST_WAIT_S = 0.3
"""How long a page waits for an index that is being made, before it says so."""

FOLDER = Path(__file__).parent
_IMAGE_HEADERS = {
    # An image's address holds the digest of its bytes.
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def build_environment() -> Environment:
    """Return the templates' environment: every value is escaped, a missing one is an error."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(FOLDER / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["probability"] = lambda value: "–" if value is None else f"{value:.2f}"
    environment.filters["path_part"] = lambda text: quote(text, safe="")
    return environment


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What a page shows besides the pairs.

    Attributes:
        lake_root: Of the lake.
        dagster_url: Address of Dagster's web interface; empty without links to it.
        annotator: The name that labels get, unless somebody gives another one.
        read_training: Reads trainings and studies; None where nothing can be trained.
    """

    lake_root: str
    dagster_url: str = ""
    annotator: str = ""
    read_training: Callable[[], TrainingOverview] | None = None


class ViewApp:
    """Answers the requests of a browser. Everything that reads the lake runs in a thread of Starlette's pool."""

    def __init__(self, library: PairLibrary, options: PageOptions) -> None:
        self.library = library
        self.options = options
        self.guard = RequestGuard()
        self._images = ImageShelf(library.lake)
        self._templates = build_environment()
        self._read_overview = lru_cache(1)(read_overview_page)

    def build(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self.show_pairs),
                Route("/rows", self.show_rows),
                Route("/facets", self.show_facets),
                Route("/pair/{judged_id}", self.show_pair),
                Route("/pair/{judged_id}/lineage", self.show_lineage),
                Route("/pair/{judged_id}/neighbours", self.show_neighbours),
                Route("/pair/{judged_id}/label", self.add_label, methods=["POST"]),
                Route("/agreement", self.show_agreement),
                Route("/overview", self.show_overview),
                Route("/training", self.show_training),
                Route("/status", self.show_status),
                Route("/image/{source}/{image_id}", self.send_image),
                Route("/thumbnail/{source}/{image_id}", self.send_thumbnail),
                Mount("/static", StaticFiles(directory=FOLDER / "static")),
            ],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self.guard.handle)],
            exception_handlers={MvlError: self.show_error, 404: self.show_missing},
        )

    # -- the list ----------------------------------------------------------------------------------------------------

    def show_pairs(self, request: Request) -> Response:
        """Answer with the first pairs of a filter, between the filters and their counts."""
        state = parse_state(request.query_params.multi_items())
        index = self.library.get_index(FIRST_WAIT_S)
        if index is None:
            return self._render("building.html", 503, problem=self.library.problem)
        selection = self.library.select(index, state)
        start = self._find_start(index, selection, state)
        return self._render(
            "pairs.html",
            state=state,
            n_selected=len(selection),
            n_all=index.n_rows,
            numbers=index.number_columns,
            sorts=[*FIXED_ORDERS, *index.number_columns],
            **self._list_cards(index, selection, start, state),
        )

    def show_rows(self, request: Request) -> Response:
        """Answer with the next pairs alone, which a page adds to those that it has."""
        state = parse_state(request.query_params.multi_items())
        index = self._require_index()
        selection = self.library.select(index, state)
        start = self._find_start(index, selection, state)
        return self._render("rows.html", state=state, **self._list_cards(index, selection, start, state))

    def show_facets(self, request: Request) -> Response:
        """Answer with the values of each facet and their numbers of pairs."""
        state = parse_state(request.query_params.multi_items())
        counts = self.library.count_values(self._require_index(), state)
        return self._render("facets.html", state=state, facets=_list_facets(state, counts))

    def _list_cards(self, index: PairIndex, selection: Selection, start: int, state: ViewState) -> dict[str, Any]:
        ordinals = selection.ordinals[start : start + PAGE_ROWS].tolist()
        cards = read_cards(index, ordinals, self.library.labels.by_rewrite)
        has_more = start + len(cards) < len(selection)
        more = state.build_query(after=cards[-1].row["judged_id"]) if cards and has_more else ""
        return {"cards": cards, "more": more}

    def _find_start(self, index: PairIndex, selection: Selection, state: ViewState) -> int:
        if not state.after:
            return 0
        ordinal = index.find_ordinals("judged_id", [state.after]).get(state.after)
        position = None if ordinal is None else selection.find_position(ordinal)
        return 0 if position is None else position + 1

    # -- one pair ----------------------------------------------------------------------------------------------------

    def show_pair(self, request: Request) -> Response:
        """Answer with everything about a pair, and its neighbours in the filter that it was found by."""
        state = parse_state(request.query_params.multi_items())
        index, ordinal = self._find_pair(request)
        selection = self.library.select(index, state)
        position = selection.find_position(ordinal)
        around = {"previous": "", "next": ""}
        if position is not None:
            for name, other in (("previous", position - 1), ("next", position + 1)):
                if 0 <= other < len(selection):
                    (row,) = index.read_rows([int(selection.ordinals[other])])
                    around[name] = row["judged_id"]
        page = read_page(index, ordinal, self.library.labels.by_rewrite)
        return self._render(
            "pair.html",
            state=state,
            page=page,
            labels=self.library.labels.read_labels_of(page.card.row["rewrite_id"]),
            position=position,
            n_selected=len(selection),
            asset_url=self._build_asset_url(page.card.row),
            run_url=self._build_run_url(page.judged["run_id"]),
            label_names=LABEL_NAMES,
            faults=PROBE_FAULTS,
            previous_id=around["previous"],
            next_id=around["next"],
        )

    def show_lineage(self, request: Request) -> Response:
        """Answer with the lineage of a pair: raw answers, mixtures, rejects."""
        index, ordinal = self._find_pair(request)
        (row,) = index.read_rows([ordinal])
        sections = read_lineage_sections(self.library.lake, row["category"], row["rewrite_id"])
        return self._render("lineage.html", sections=sections)

    def show_neighbours(self, request: Request) -> Response:
        """Answer with the near-duplicates of a pair's sample, and what benchmarks have of it."""
        index, ordinal = self._find_pair(request)
        (row,) = index.read_rows([ordinal])
        lake = self.library.lake
        own = read_near_sample(lake, row["source"], row["sample_id"])
        return self._render("neighbours.html", neighbours=read_neighbours(lake, row["sample_id"]), own=own)

    def _find_pair(self, request: Request) -> tuple[PairIndex, int]:
        index = self._require_index()
        judged_id = request.path_params["judged_id"]
        ordinal = index.find_ordinals("judged_id", [judged_id]).get(judged_id) if is_id(judged_id) else None
        if ordinal is None:
            raise MvlError(f"no judged pair has the id {judged_id[:40]}", hint="it may have been judged anew since")
        return index, ordinal

    def _build_asset_url(self, row: dict[str, Any]) -> str:
        if not self.options.dagster_url:
            return ""
        path = f"assets/judged/{quote(row['category'])}?partition={quote(row['source'])}"
        return f"{self.options.dagster_url.rstrip('/')}/{path}"

    def _build_run_url(self, run_id: str | None) -> str:
        """Return the address of the Dagster run that judged a pair."""
        if not self.options.dagster_url or not run_id:
            return ""
        return f"{self.options.dagster_url.rstrip('/')}/runs/{quote(run_id, safe='')}"

    # -- labels ------------------------------------------------------------------------------------------------------

    async def add_label(self, request: Request) -> Response:
        """Store a label and answer with it."""
        from starlette.concurrency import run_in_threadpool

        try:
            values = json.loads(await request.body())
        except ValueError as error:
            raise MvlError("the label is no JSON", hint="reload the page") from error
        if not isinstance(values, dict):
            raise MvlError("the label is no JSON object", hint="reload the page")

        def store() -> str | None:
            index, ordinal = self._find_pair(request)
            (row,) = index.read_rows([ordinal])
            return self.library.labels.add(row, values).label

        return JSONResponse({"label": await run_in_threadpool(store)})

    def show_agreement(self, request: Request) -> Response:
        """Answer with the agreement of the judge with people, and of people with each other."""
        return self._render("agreement.html", agreement=self.library.labels.measure_agreement())

    def show_overview(self, request: Request) -> Response:
        """Answer with pictures of the lake as a whole, drawn once for each index."""
        return self._render("overview.html", page=self._read_overview(self._require_index()))

    def show_training(self, request: Request) -> Response:
        """Answer with the loss curves of trainings, and what studies measured."""
        if self.options.read_training is None:
            raise MvlError("nothing can be trained here", hint="mvl doctor")
        return self._render("training.html", page=draw_training_page(self.options.read_training()))

    # -- images, errors ----------------------------------------------------------------------------------------------

    def send_image(self, request: Request) -> Response:
        """Answer with an image in full size."""
        return self._send(self._images.read, request)

    def send_thumbnail(self, request: Request) -> Response:
        """Answer with an image reduced to the size of a list."""
        return self._send(self._images.read_thumbnail, request)

    def _send(self, read: Callable[[str, str], ImageFile | None], request: Request) -> Response:
        image_id = request.path_params["image_id"]
        file = read(request.path_params["source"], image_id) if is_id(image_id) else None
        if file is None:
            return PlainTextResponse("no such image", 404)
        return Response(file.data, media_type=file.media_type, headers=_IMAGE_HEADERS)

    def show_status(self, request: Request) -> Response:
        """Answer whether there is an index, for the page that waits for it."""
        return JSONResponse({"is_ready": self.library.get_index() is not None, "problem": self.library.problem})

    def show_error(self, request: Request, error: Exception) -> Response:
        """Answer with an error that a person can act on."""
        assert isinstance(error, MvlError)
        if request.method == "POST":
            return JSONResponse({"error": error.message, "hint": error.hint or ""}, 400)
        return self._render("error.html", 400, message=error.message, hint=error.hint or "")

    def show_missing(self, request: Request, error: Exception) -> Response:
        """Answer to an address that is none."""
        return self._render("error.html", 404, message="There is no such page.", hint="")

    def _require_index(self) -> PairIndex:
        index = self.library.get_index(FIRST_WAIT_S)
        if index is None:
            raise MvlError("the index of the lake is still being made", hint="reload the page in a moment")
        return index

    def _render(self, name: str, status: int = 200, **values: Any) -> Response:
        shared = {
            "token": self.guard.token,
            "options": self.options,
            "label_filters": LABEL_FILTERS,
        }
        return HTMLResponse(self._templates.get_template(name).render(**shared, **values), status)


def _list_facets(state: ViewState, counts: dict[str, list[tuple[str | None, int]]]) -> list[dict[str, Any]]:
    """Return the facets that tell pairs apart, or are chosen, with a link for each value."""
    facets = []
    for name, heading in FACET_COLUMNS.items():
        chosen = state.pair_filter.values.get(name, ())
        values = [
            {
                "text": "none" if value is None else {"true": "yes", "false": "no"}.get(value, value),
                "n": n,
                "is_chosen": (NO_VALUE if value is None else value) in chosen,
                "query": state.toggle(name, NO_VALUE if value is None else value).build_query(),
            }
            for value, n in [*counts[name], *((value, 0) for value in _list_missing(chosen, counts[name]))]
        ]
        if chosen or (len(values) > 1 and not (state.is_blind and name in VERDICT_COLUMNS)):
            facets.append({"name": name, "heading": heading, "values": values, "is_chosen": bool(chosen)})
    return facets


def _list_missing(chosen: tuple[str, ...], counts: list[tuple[str | None, int]]) -> list[str]:
    """Return the chosen values that no pair has under the other conditions: they, too, can be taken away."""
    known = {NO_VALUE if value is None else value for value, _ in counts}
    return [value for value in chosen if value not in known]
