"""`prompts/<name>`: the prompt files as nodes of the graph.

Belongs here: the assets and how an edit becomes an observation. Does not: a prompt's form (`mvl_assets.config.prompts`), what
an edit makes out of date (`currency`). A prompt's data version is the hash of what decides a request, so a changed
comment in its front matter makes nothing stale.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import textwrap
from typing import Any

import dagster as dg

from mvl_assets.config.prompts import Prompt, load_prompts
from mvl_assets.orchestration import asset_keys

# Observations carry the version as this tag; so do Dagster's own.
VERSION_TAG = "dagster/data_version"
LINE = 64


def prompt_asset(prompt: Prompt) -> dg.AssetsDefinition:
    """The asset `prompts/<name>`."""
    name = prompt.name

    @dg.multi_observable_source_asset(
        name=f"observe_{name}", specs=[_spec(prompt)], partitions_def=dg.StaticPartitionsDefinition([name])
    )
    def _observe(context: dg.AssetExecutionContext) -> dg.ObserveResult:
        now = load_prompts()[name]
        return dg.ObserveResult(
            asset_key=asset_keys.prompt_key(name), data_version=dg.DataVersion(now.hash), metadata=_metadata(now)
        )

    return _observe


def report_prompts(instance: dg.DagsterInstance) -> list[str]:
    """Reports the prompts whose hash is not the last observed one; returns their names."""
    edited = []
    for prompt in load_prompts().values():
        key = asset_keys.prompt_key(prompt.name)
        if _observed(instance, key) != prompt.hash:
            instance.report_runless_asset_event(
                dg.AssetObservation(
                    key, partition=prompt.name, tags={VERSION_TAG: prompt.hash}, metadata=_metadata(prompt)
                )
            )
            edited.append(prompt.name)
    return edited


def _observed(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    for record in instance.fetch_observations(key, limit=1).records:
        observation = record.asset_observation
        return None if observation is None else observation.tags.get(VERSION_TAG)
    return None


def _spec(prompt: Prompt) -> dg.AssetSpec:
    role = "rewriting" if prompt.role == "rewrite" else "judging"
    return dg.AssetSpec(
        asset_keys.prompt_key(prompt.name),
        group_name="prompts",
        description=f"The {role} prompt of the family {prompt.family}, in prompts/{prompt.file}. {prompt.note}",
        kinds={"prompt"},
        owners=asset_keys.OWNERS,
        tags={"mvl/family": prompt.family},
    )


def _metadata(prompt: Prompt) -> dict[str, Any]:
    return {
        "template": dg.MetadataValue.md(_wrapped(prompt.template)),
        "output": prompt.output,
        "sees": prompt.sees,
        "sampling": dg.MetadataValue.json(dict(prompt.sampling)),
        "version": prompt.version,
        "note": prompt.note,
        "hash": prompt.hash,
    }


def _wrapped(template: str) -> str:
    """As a code block whose lines fit the page."""
    lines = [part for line in template.splitlines() for part in textwrap.wrap(line, LINE) or [""]]
    return "\n".join("    " + line for line in lines)


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[prompt_asset(p) for p in load_prompts().values()])
