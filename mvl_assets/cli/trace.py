"""`mvl trace`: show the lineage of a row: source file, prompt, raw answer and verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mvl_assets.common.tables import as_json
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.settings import load_settings
from mvl_assets.errors import MvlError
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.lineage import MAX_USES, trace


@click.command(name="trace")
@click.argument("row_id", metavar="ID")
@click.option(
    "--images",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the row's images to this folder.",
)
@click.option("--json", "json_", is_flag=True, help="Everything, as one JSON object.")
def command(row_id: str, folder: Path | None, json_: bool) -> None:
    """Show where a row came from. ID is the id of a mixture row, verdict, rewrite or sample, or a prefix of it.

    Of an answer or an image, named by its id, it shows what was made of it.
    """
    lake = Lake(load_settings().lake_root)
    lineage = trace(lake, row_id)
    if "sample" in lineage:
        lineage["location"] = _find_location(lineage["sample"])
    if json_:
        click.echo(as_json(lineage))
    else:
        click.echo("\n".join(_format_lineage_lines(lineage) if "sample" in lineage else _format_use_lines(lineage)))
    for path in _write_images(lake, lineage, folder) if folder is not None else ():
        click.echo(f"written   {path}", err=json_)


def _write_images(lake: Lake, lineage: dict[str, Any], folder: Path) -> list[Path]:
    images = [lineage["image"]] if "image" in lineage else lineage.get("images", [])
    source = images[0]["source"] if "image" in lineage else lineage.get("sample", {}).get("source")
    data_by_id = lake.get_images(source).read_stored_images([image["image_id"] for image in images])
    paths = []
    for image in images:
        if image["image_id"] in data_by_id:
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f"{image['image_id']}.{image['format'].lower()}")
            paths[-1].write_bytes(data_by_id[image["image_id"]])
    return paths


def _find_location(sample: dict[str, Any]) -> dict[str, Any] | None:
    """Return file and position of a sample in the files as they are now, None where that is not known.

    A row without an id of its own is identified by its place. One with an id may have moved since it was first read.
    """
    source = load_catalog().get(sample["source"])
    if sample["withdrawn"] or source is None:
        return None
    if sample["native_id"] is None:
        return {"file": sample["file"], "position": sample["position"]}
    from mvl_assets.ingest.sample_location import find_sample_location

    try:
        key = find_sample_location(source, sample["sample_id"])
    except (MvlError, OSError):
        return None
    return None if key is None else {"file": key.file, "position": key.position}


def _format_location(sample: dict[str, Any], location: dict[str, Any] | None) -> str:
    if sample["withdrawn"]:
        return "no longer in the source's files"
    source = load_catalog().get(sample["source"])
    root = f"{source.root}/" if source else ""
    first_location = f"{root}{sample['file']} row {sample['position']}"
    own_id = "" if sample["native_id"] is None else f", native id {sample['native_id']}"
    if location is None:
        return f"{first_location} when it was first read, perhaps another row now{own_id}"
    if (location["file"], location["position"]) == (sample["file"], sample["position"]):
        return f"{first_location}{own_id}"
    current_location = f"{root}{location['file']} row {location['position']}"
    return f"{current_location}{own_id} (first read from {sample['file']} row {sample['position']})"


def _format_lineage_lines(lineage: dict[str, Any]) -> list[str]:
    sample = lineage["sample"]
    lines = [f"{lineage['id']}  ({lineage['table']})"]
    for rewrite in lineage.get("rewrites", []):
        verdict = "not judged" if rewrite["keep"] is None else "kept" if rewrite["keep"] else "dropped"
        lines.append(f"rewritten {rewrite['rewrite_id']}  {verdict}")
    for row in lineage.get("mixture", []):
        lines.append(f"used in   mixture/{row['stage']} at position {row['position']} as {row['kind']}")
    if scored := lineage.get("scored"):
        scores = f"content {scored['content']}, relevance {scored['relevance']}"
        lines.append(f"scores    {scores} of the {scored['kind']} conversation")
        lines.append(f"          by {scored['model']}@{scored['model_revision']}")
    if judged := lineage.get("judged"):
        state = "kept" if judged["keep"] else f"dropped ({judged['drop_reason']})"
        lines.append(
            f"verdict   {state} by rule `{judged['keep_rule']}`; "
            f"matches the reference answer: {judged['matches_reference']}"
        )
        for v in judged["verdicts"]:
            p = "unknown" if v["p_yes"] is None else f"{v['p_yes']:.3f} by {v['p_yes_from']}"
            lines.append(f"            {v['criterion']}: {'Yes' if v['verdict'] else 'No'}, P(yes) {p}")
        lines.append(
            f"          by {judged['model']}@{judged['model_revision']}" + (" (blind)" if judged["blind"] else "")
        )
        for member in judged["panel"] or ():
            verdicts_text = ", ".join(
                f"{v['criterion']} {'Yes' if v['verdict'] else 'No'}" for v in member["verdicts"] or ()
            )
            lines.append(f"          {member['model']}@{member['model_revision']} says {verdicts_text or 'nothing'}")
    if lineage.get("is_superseded"):
        missing_note = "" if "rewritten" in lineage else ", and was removed with the older versions of its table"
        lines.append(f"replaced  this rewrite has been replaced since{missing_note}")
    if rewrite := lineage.get("rewritten"):
        task_type = f"  {rewrite['task_type']}" if rewrite["task_type"] else ""
        lines.append(f"rewrite   {rewrite['rewrite_id']}  pair {rewrite['ordinal']}{task_type}")
        lines += [f"            {t['from']}: {_truncate(t['value'])}" for t in rewrite["conversations"]]
        lines.append(f"          prompt {rewrite['prompt']} ({rewrite['prompt_hash'][:12]})")
        lines.append(
            f"          by {rewrite['model']}@{rewrite['model_revision']}" + (" (blind)" if rewrite["blind"] else "")
        )
    if answer := lineage.get("answer"):
        lines.append(
            f"answer    {answer['request_key']}  {answer['completion_tokens']} tokens, {answer['finish_reason']}"
        )
        lines.append(f"            {_truncate(answer['text'])}")
    lines.append(
        f"sample    {sample['sample_id']}  revision {sample['revision']}, licence {sample['license'] or 'unknown'}"
    )
    lines += [f"            {t['from']}: {_truncate(t['value'])}" for t in sample["conversations"]]
    lines += [f"          image {i['image_id']}  {i['width']}x{i['height']} {i['format']}" for i in lineage["images"]]
    lines.append(f"file      {_format_location(sample, lineage['location'])}")
    lines += [f"rejected  {r['stage']}: {r['error']}: {_truncate(r['message'])}" for r in lineage["rejects"]]
    return lines


def _format_use_lines(lineage: dict[str, Any]) -> list[str]:
    """Return the lines of an answer or an image."""
    lines = [f"{lineage['id']}  ({lineage['table']})"]
    if answer := lineage.get("answer"):
        lines.append(f"answer    {answer['completion_tokens']} tokens, {answer['finish_reason']}")
        lines.append(f"            {_truncate(answer['text'])}")
        lines.append(f"          prompt {answer['prompt']} ({answer['prompt_hash'][:12]})")
        lines.append(f"          by {answer['model']}@{answer['model_revision']}")
    if image := lineage.get("image"):
        size = f"{image['width']}x{image['height']} {image['format']}, {image['size']:,} bytes"
        lines.append(f"image     {size}, of the source {image['source']}; --images FOLDER writes it")
    lines += [f"used in   {use['table']}  {use['id']}" for use in lineage["uses"]]
    if not lineage["uses"]:
        lines.append("used in   nothing: it was rejected, or what was made of it has been replaced")
    elif len(lineage["uses"]) == MAX_USES:
        lines.append(f"          (the first {MAX_USES})")
    return lines


def _truncate(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 200 else one_line[:199] + "…"
