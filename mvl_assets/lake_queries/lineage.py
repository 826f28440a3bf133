"""Where a row came from: from a training row back to the verdict, the raw answer, the prompt, the sample, its file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mvl_assets.lake import sql
from mvl_assets.lake.errors import LakeError
from mvl_assets.lake.lake import Lake

SHORTEST = 6


def trace(lake: Lake, row_id: str) -> dict[str, Any]:
    """The history of a mixture row, verdict, rewrite, sample, or sample version, by its id or an unambiguous beginning.

    The result has the keys `found_in`, `id` and, as far as the row goes back: `mixture` (rows that use it), `judged`,
    `verdicts` (raw judge answers), `rewritten`, `answer` (the raw answer it was read from), `replaced` (whether another
    rewrite has taken its place since, as after an edit of the prompt; it is then read from an older version of its
    table, and missing when `mvl gc` has removed that), `sample`, `images`, `rejects`. Raises `LakeError` when nothing
    or more than one row matches.
    """
    name, column, full = _find(lake, row_id.strip().lower())
    # A sample is traced from its newest version; other ids name one row.
    row = max(lake.table(name).rows(None, sql.equals(column, full)), key=lambda r: r.get("revision", 1))
    out: dict[str, Any] = {"found_in": name, "id": full}
    family = name.split("/", 1)[0]
    if family == "mixture":
        out["mixture"] = [{"stage": name.split("/", 1)[1], **row}]
    if family != "samples":
        _rewrite_side(lake, row["category"], row["rewrite_id"], out)
    _sample_side(lake, out.get("rewritten", row), out)
    if "mixture" not in out:
        key, value = (
            ("rewrite_id", out["rewritten"]["rewrite_id"]) if "rewritten" in out else ("sample_id", row["sample_id"])
        )
        out["mixture"] = [
            {"stage": n.split("/", 1)[1], **r}
            for n in lake.names("mixture")
            for r in lake.table(n).rows(None, sql.equals(key, value))
        ]
    return out


def _find(lake: Lake, prefix: str) -> tuple[str, str, str]:
    if len(prefix) < SHORTEST or set(prefix) - set("0123456789abcdef"):
        raise LakeError(f"{prefix!r} is no id", hint=f"give at least {SHORTEST} characters of a row's id")
    found = list(_matches(lake, prefix))
    if not found:
        raise LakeError(
            f"nothing in the lake has an id that begins with {prefix}",
            hint="`mvl step STAGE NUMBER` lists training rows by id; the web UI shows the ids of every table",
        )
    if len(found) > 1:
        listed = ", ".join(f"{full} in {name}" for name, _, full in found[:4])
        raise LakeError(f"more than one row begins with {prefix}: {listed}", hint="give more characters")
    return found[0]


def _matches(lake: Lake, prefix: str) -> Iterator[tuple[str, str, str]]:
    places = [
        *((n, "row_id") for n in lake.names("mixture")),
        *((n, "judged_id") for n in lake.names("judged")),
        *((n, "rewrite_id") for n in lake.names("rewritten")),
        ("samples", "version_id"),
        ("samples", "sample_id"),
    ]
    for name, column in places:
        condition = f"{column} LIKE {sql.literal(prefix + '%')}"
        seen = {row[column] for row in lake.table(name).rows([column], condition)}
        yield from ((name, column, full) for full in sorted(seen))


def _rewrite_side(lake: Lake, category: str, rewrite_id: str | None, out: dict[str, Any]) -> None:
    if rewrite_id is None:
        return
    about = sql.equals("rewrite_id", rewrite_id)
    rewrite, is_current = lake.table(f"rewritten/{category}").newest_row(about)
    out["replaced"] = not is_current
    if rewrite is None:
        return
    out["rewritten"] = rewrite
    out["answer"] = lake.answers("rewrite", rewrite["source"]).get([rewrite["request_key"]]).get(rewrite["request_key"])
    judged, _ = lake.table(f"judged/{category}").newest_row(about)
    if judged is not None:
        out["judged"] = judged
        keys = [v["request_key"] for v in (judged["verdicts"] or []) + (judged["second_verdicts"] or [])]
        out["verdicts"] = list(lake.answers("judge", rewrite["source"]).get(keys).values())


def _sample_side(lake: Lake, row: dict[str, Any], out: dict[str, Any]) -> None:
    if "version_id" in row:
        sample = lake.index("samples").rows([row["version_id"]])[row["version_id"]]
    else:  # a verdict over a rewrite that has been replaced since
        versions = lake.table("samples").rows(None, sql.equals("sample_id", row["sample_id"]))
        sample = max(versions, key=lambda r: r["revision"])
    out["sample"] = sample
    out["images"] = list(lake.images.describe(sample["image_ids"] or []).values())
    out["rejects"] = list(lake.table("rejects").rows(None, sql.equals("row_key", sample["sample_id"])))
