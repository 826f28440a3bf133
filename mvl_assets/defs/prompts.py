"""Assets `prompts/<name>`: the prompt files as nodes of the graph; an edit becomes an observation.

A prompt's data version is the hash of what decides a request, so an edited note makes nothing stale.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import textwrap
import warnings
from typing import Any

import dagster as dg

from mvl_assets.common import metadata_keys
from mvl_assets.config.prompts import Prompt, load_prompts
from mvl_assets.orchestration import asset_keys

# Dagster stores the data version of an observation in this tag.
DATA_VERSION_TAG = "dagster/data_version"
WRAP_WIDTH = 64


def build_prompt_asset(prompt: Prompt) -> dg.AssetsDefinition:
    """Return the observable asset `prompts/<name>`."""
    name = prompt.name

    def _observe(context: dg.AssetExecutionContext) -> dg.ObserveResult:
        latest_prompt = load_prompts()[name]
        return dg.ObserveResult(
            asset_key=asset_keys.build_prompt_key(name),
            data_version=dg.DataVersion(latest_prompt.file_hash),
            metadata=_build_metadata(latest_prompt),
        )

    with warnings.catch_warnings():
        # A beta feature: said once for each prompt, at every load of the definitions.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.multi_observable_source_asset(
            name=f"observe_{name}",
            specs=[_build_asset_spec(prompt)],
            partitions_def=dg.StaticPartitionsDefinition([name]),
        )(_observe)


def report_edited_prompts(instance: dg.DagsterInstance) -> list[str]:
    """Report an observation of each prompt whose hash is not the last observed one, and return their names."""
    edited = []
    for prompt in _list_used_prompts():
        key = asset_keys.build_prompt_key(prompt.name)
        if _read_observed_hash(instance, key) != prompt.file_hash:
            instance.report_runless_asset_event(
                dg.AssetObservation(
                    key,
                    partition=prompt.name,
                    tags={DATA_VERSION_TAG: prompt.file_hash},
                    metadata=_build_metadata(prompt),
                )
            )
            edited.append(prompt.name)
    return edited


def _list_used_prompts() -> list[Prompt]:
    """Return the prompts of the graph: without those of scores and probes where the profile has none."""
    profile = asset_keys.load_active_profile()
    unused_roles = {"score"} if not profile.score_rows else set()
    if profile.prober is None:
        unused_roles.add("probe")
    return [prompt for prompt in load_prompts().values() if prompt.role not in unused_roles]


def _read_observed_hash(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    for record in instance.fetch_observations(key, limit=1).records:
        observation = record.asset_observation
        return None if observation is None else observation.tags.get(DATA_VERSION_TAG)
    return None


def _build_asset_spec(prompt: Prompt) -> dg.AssetSpec:
    role = "rewriting" if prompt.role == "rewrite" else "judging"
    return dg.AssetSpec(
        asset_keys.build_prompt_key(prompt.name),
        group_name="prompts",
        description=f"The {role} prompt of the family {prompt.family}, in prompts/{prompt.file}. {prompt.note}",
        kinds={"prompt"},
        owners=asset_keys.OWNERS,
        tags={metadata_keys.FAMILY: prompt.family},
    )


def _build_metadata(prompt: Prompt) -> dict[str, Any]:
    return {
        metadata_keys.TEMPLATE: dg.MetadataValue.md(_format_code_block(prompt.template)),
        metadata_keys.OUTPUT: prompt.output,
        metadata_keys.MODALITY: prompt.modality,
        metadata_keys.SAMPLING: dg.MetadataValue.json(dict(prompt.sampling)),
        metadata_keys.PROMPT_VERSION: prompt.version,
        metadata_keys.PROMPT_NOTE: prompt.note,
        metadata_keys.PROMPT_HASH: prompt.hash,
    }


def _format_code_block(template: str) -> str:
    """Return a code block whose lines fit the page."""
    lines = [segment for line in template.splitlines() for segment in textwrap.wrap(line, WRAP_WIDTH) or [""]]
    return "\n".join("    " + line for line in lines)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the assets of all prompts."""
    return dg.Definitions(assets=[build_prompt_asset(p) for p in _list_used_prompts()])
