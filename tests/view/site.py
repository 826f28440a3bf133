"""`mvl view` on a loopback port, over a lake whose every field holds hostile text."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_assets.lake.lake import Lake
from mvl_assets.lake.schemas.data_tables import CATEGORY, JUDGED, REWRITTEN
from mvl_assets.view.app import PageOptions, ViewApp
from mvl_assets.view.library import PairLibrary
from mvl_assets.view.server import HOST, build_server, open_socket
from tests.export.small_lake import SOURCE, build_rewrite, build_verdict, draw_image
from tests.lake.rows import category_row, put, put_samples, sample
from tests.patience import PATIENCE_S

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror=window.hacked=1>\"'{{ 7 * 7 }}</p>"


@dataclass
class ViewSite:
    """A running server."""

    port: int
    app: ViewApp

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, values: Any, **headers: str) -> tuple[int, Any]:
        status, _, body = self.ask("POST", path, json.dumps(values).encode(), headers)
        return status, body.decode()

    def ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE_S)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content


@contextmanager
def serving_view(lake: Lake, folder: Path) -> Iterator[ViewSite]:
    """Until its index is there."""
    library = PairLibrary(lake, folder)
    assert library.get_index(PATIENCE_S) is not None, library.problem
    app = ViewApp(library, PageOptions(lake.root, "http://127.0.0.1:3000", "anna"))
    server = build_server(app)
    listener = open_socket(0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield ViewSite(listener.getsockname()[1], app)
    finally:
        server.should_exit = True
        thread.join()


def fill_hostile_lake(root: Path, count: int = 70) -> Lake:
    """`count` judged pairs of two categories; texts, names and models are hostile."""
    lake = Lake(str(root))
    images = [draw_image(number) for number in range(4)]
    lake.get_images(SOURCE).insert(images)
    rows = [
        sample(
            SOURCE,
            n,
            pictures=[images[n % 4]] if n % 3 else images[:2],
            question=f"<image>\nWhere is {n}? {HOSTILE}",
            answer=f"It is at [0.1, 0.2, 0.5, 0.6]. {HOSTILE}",
            license=HOSTILE,
            native_id=f"{n} {HOSTILE}",
            file=f"../{HOSTILE}.json",
        )
        for n in range(count)
    ]
    put_samples(lake, SOURCE, rows)
    for category, own in (("chart", rows[: count // 2]), ("ocr", rows[count // 2 :])):
        put(lake, f"category/{category}", CATEGORY, [category_row(row, category) for row in own], SOURCE)
        rewrites = [_build_hostile_rewrite(row, category, n) for n, row in enumerate(own)]
        put(lake, f"rewritten/{category}", REWRITTEN, rewrites, SOURCE)
        verdicts = [build_verdict(row, keep=n % 2 == 0) | {"category": category} for n, row in enumerate(rewrites)]
        for n, row in enumerate(verdicts):
            row["drop_reason"] = row["drop_reason"] and f"no_{HOSTILE}"
            row["model"] = f"judge {HOSTILE}"
            row["p_yes"] = n / len(verdicts)
        put(lake, f"judged/{category}", JUDGED, verdicts, SOURCE)
    return lake


def _build_hostile_rewrite(of: dict[str, Any], category: str, number: int) -> dict[str, Any]:
    return build_rewrite(of, number) | {
        "category": category,
        "conversations": [
            {"from": "human", "value": f"<image>\nWhere is {number}, in steps? {HOSTILE}"},
            {"from": "gpt", "value": f"First, it is at [0.1, 0.2, 0.5, 0.6]. Needle{number}. {HOSTILE}"},
        ],
        "task_type": HOSTILE,
        "model": f"writer {HOSTILE}",
    }
