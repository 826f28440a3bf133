"""`mvl trace`: show the lineage of a row: source file, prompt, raw answer and verdict."""

from __future__ import annotations

from typing import Any

import click

from mvl_assets.common.tables import as_json
from mvl_assets.config.catalog import load_catalog
from mvl_assets.config.settings import load_settings
from mvl_assets.lake.lake import Lake
from mvl_assets.lake_queries.lineage import trace


@click.command(name="trace")
@click.argument("row_id", metavar="ID")
@click.option("--json", "json_", is_flag=True, help="Everything, as one JSON object.")
def command(row_id: str, json_: bool) -> None:
    """Show where a row came from. ID is the id of a mixture row, verdict, rewrite or sample, or a prefix of it."""
    lineage = trace(Lake(load_settings().lake_root), row_id)
    click.echo(as_json(lineage) if json_ else "\n".join(_format_lineage_lines(lineage)))


def _format_lineage_lines(lineage: dict[str, Any]) -> list[str]:
    sample = lineage["sample"]
    source = load_catalog().get(sample["source"])
    root = f"{source.root}/" if source else ""
    lines = [f"{lineage['id']}  ({lineage['table']})"]
    for row in lineage.get("mixture", []):
        lines.append(f"used in   mixture/{row['stage']} at position {row['position']} as {row['kind']}")
    if judged := lineage.get("judged"):
        state = "kept" if judged["keep"] else f"dropped ({judged['drop_reason']})"
        lines.append(
            f"verdict   {state} by rule `{judged['keep_rule']}`; "
            f"matches the reference answer: {judged['matches_reference']}"
        )
        for v in judged["verdicts"]:
            p = "unknown" if v["p_yes"] is None else f"{v['p_yes']:.3f}"
            lines.append(f"            {v['criterion']}: {'Yes' if v['verdict'] else 'No'}, P(yes) {p}")
        lines.append(
            f"          by {judged['model']}@{judged['model_revision']}" + (" (blind)" if judged["blind"] else "")
        )
        if judged["second_model"]:
            second_verdicts = {v["criterion"]: "Yes" if v["verdict"] else "No" for v in judged["second_verdicts"]}
            verdicts_text = ", ".join(
                f"{criterion} {verdict_text}" for criterion, verdict_text in second_verdicts.items()
            )
            lines.append(f"          {judged['second_model']}@{judged['second_model_revision']} says {verdicts_text}")
    if lineage.get("is_superseded"):
        missing_note = "" if "rewritten" in lineage else ", and was removed with the older versions of its table"
        lines.append(f"replaced  this rewrite has been replaced since{missing_note}")
    if rewrite := lineage.get("rewritten"):
        lines.append(f"rewrite   {rewrite['rewrite_id']}  pair {rewrite['ordinal']}")
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
    lines.append(f"file      {root}{sample['file']} row {sample['position']}, native id {sample['native_id']}")
    lines += [f"rejected  {r['stage']}: {r['error']}: {_truncate(r['message'])}" for r in lineage["rejects"]]
    return lines


def _truncate(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 200 else one_line[:199] + "…"
