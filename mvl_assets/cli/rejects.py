"""`mvl rejects`: which rows were refused, where they are, why, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from mvl_assets.config.catalog import get_source
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.rejects import RejectSummary, iter_rejects, summarize_rejects
from mvl_assets.model_stage.retry_policy import is_transient
from mvl_assets.stages import STAGE_NAMES

FIXES = {
    "ambiguous_member": "name the image with the folder that it is in, because several archives have one of that name",
    "bad_answer": "`answer_is` says how the answer names its choice: text, index or letter",
    "bad_csv": "correct the line; `quoted`, `delimiter` and `columns` in the field map say how the table is written",
    "bad_field": "the field holds a list or an object: name what is inside it, such as `{answers.0}`",
    "bad_json": "correct the line or element of the file",
    "bad_xml": "correct the file, or leave it out",
    "bad_utf8": "convert the file to UTF-8, or name its `encoding` in the field map",
    "broken_archive": "fetch or copy the archive again; its checksum tells whether it is whole",
    "broken_file": "the file ends too early or is damaged: fetch or copy it again; no sample of the source is withdrawn"
    " meanwhile",
    "empty_answer": "the row has no answer, as in held-back test sets: leave it out",
    "empty_question": "the question is blank: correct it, or give a constant `question` in the field map",
    "incomplete_file": "the file ends too early: fetch or copy it again",
    "marker_mismatch": "the text must hold one <image> per image, or none; `marker` names another way to write it",
    "missing_field": "the record lacks the field: correct the name in the field map, or leave the row out",
    "missing_image": "put the image into the source's folder, or name its folder in `image_folders`",
    "missing_video": "put the video into the source's folder",
    "no_image": "`images_optional: true` in the source takes rows without an image as text",
    "no_turns": "the row has no conversation: `turns` must name its field",
    "not_an_image": "replace the file by the image itself",
    "outside_root": "copy the file into the source's folder; only its folders of images may be links",
    "purged": "`mvl purge allow` takes it in again",
    "svg_image": "convert the drawing to PNG",
    "truncated_image": "fetch or copy the image again",
    "unknown_role": "turns are spoken by human and gpt, or user and assistant",
}
"""What a person can do, by error class. Other messages say it themselves."""

N_EXAMPLES, N_FILTERED_EXAMPLES = 2, 20
MAX_ANSWER_CHARS = 160


@click.command(name="rejects")
@click.option("--source", "sources", multiple=True, metavar="SLUG", help="Only this source; may be given again.")
@click.option("--error", "errors", multiple=True, metavar="CLASS", help="Only this error class; may be given again.")
@click.option("--stage", type=click.Choice(STAGE_NAMES), help="Only this stage.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Rows to show of each class; {N_EXAMPLES} by default, {N_FILTERED_EXAMPLES} for a source or a class.",
)
@click.option("--json", "json_", is_flag=True, help="All rows, as a JSON list.")
def command(
    sources: tuple[str, ...], errors: tuple[str, ...], stage: str | None, limit: int | None, json_: bool
) -> None:
    """Show the rows that were refused: file, row, why, and what to do."""
    for slug in sources:
        get_source(slug)
    lake = Lake(load_settings().lake_root)
    rejects = iter_rejects(lake, stage=stage, sources=sources, errors=errors)
    if json_:
        _print_json(rejects)
        return
    n_examples = limit if limit is not None else N_FILTERED_EXAMPLES if sources or errors else N_EXAMPLES
    groups = summarize_rejects(rejects, n_examples)
    if not groups and errors:
        known_errors = sorted({group.error for group in summarize_rejects(iter_rejects(lake), 0)})
        raise MvlError(
            f"no row was rejected as {' or '.join(errors)}", hint=f"the lake has: {', '.join(known_errors) or 'none'}"
        )
    if not groups:
        click.echo("no rejects")
        return
    for group in groups:
        click.echo("\n".join(_format_group(group, _read_answers(lake, group))))
    if any(row["file"] for group in groups for row in group.examples):
        click.echo("rows of a file are counted from 0, without a header")


def _read_answers(lake: Lake, group: RejectSummary) -> dict[str, Any]:
    """Return what the model answered to the examples, by request."""
    keys = [row["request_key"] for row in group.examples if row["request_key"] is not None]
    return dict(lake.get_answer_lookup(group.stage, group.source).get(keys)) if keys else {}


def _format_group(group: RejectSummary, answers: Mapping[str, Any]) -> Iterator[str]:
    yield f"{group.source}  {group.stage}  {group.error}: {group.n_rows:,} row{'s' if group.n_rows > 1 else ''}"
    for row in group.examples:
        yield f"  {_format_row_location(row)}: {' '.join(row['message'].split())}"
        if text := " ".join((answers.get(row["request_key"]) or {}).get("text", "").split()):
            yield f"    the model's answer: {text[:MAX_ANSWER_CHARS]}{'…' if len(text) > MAX_ANSWER_CHARS else ''}"
    if (n_more := group.n_rows - len(group.examples)) and group.examples:
        yield f"  and {n_more:,} more (--limit)"
    if fix := _get_fix(group.error, is_request=any(row["request_key"] for row in group.examples)):
        yield f"  what to do: {fix}"


def _format_row_location(row: dict[str, Any]) -> str:
    return f"{row['file']} row {row['position']}" if row["file"] else row["row_key"]


def _get_fix(error: str, *, is_request: bool) -> str | None:
    if is_request:
        return "`mvl run` asks again" if is_transient(error) else f"`mvl retry --error {error}` asks again"
    return FIXES.get(error)


def _print_json(rejects: Iterator[dict[str, Any]]) -> None:
    """Print the rows one by one: there may be more than memory holds."""
    separator = "["
    for row in rejects:
        row["fix"] = _get_fix(row["error"], is_request=row["request_key"] is not None)
        click.echo(f"{separator}\n{json.dumps(row, ensure_ascii=False)}", nl=False)
        separator = ","
    click.echo("\n]" if separator == "," else "[]")
