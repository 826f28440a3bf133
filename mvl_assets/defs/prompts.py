"""`prompts/<name>`: the prompt files as nodes of the graph, and the sensor that notices an edit.

A prompt's data version is the hash of what decides a request, so a changed comment in its front matter stales nothing.
The sensor costs nothing and runs by default; it reports observations and starts no run.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of asset functions as they are.
import json

import dagster as dg

from mvl_assets.prompts import Prompt, load_prompts


def prompt_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["prompts", name])


def prompt_asset(prompt: Prompt) -> dg.SourceAsset:
    name = prompt.name

    @dg.observable_source_asset(
        key=prompt_key(name),
        group_name="prompts",
        description=f"The {prompt.role} prompt of the family {prompt.family}: prompts/{prompt.file}. {prompt.note}",
        tags={"mvl/family": prompt.family},
        metadata={
            "output": dg.MetadataValue.text(prompt.output),
            "sees": dg.MetadataValue.text(prompt.sees),
            "template": dg.MetadataValue.md(_fenced(prompt)),
        },
    )
    def _prompt() -> dg.DataVersion:
        return dg.DataVersion(load_prompts()[name].hash)

    return _prompt


def _fenced(prompt: Prompt) -> str:
    return "\n".join("    " + line for line in prompt.template.splitlines())


@dg.sensor(
    name="prompt_observer",
    description="Reports an observation for every prompt file whose request-deciding content changed.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def prompt_observer(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    prompts = load_prompts()
    return dg.SensorResult(
        cursor=json.dumps({name: p.hash for name, p in prompts.items()}, sort_keys=True),
        asset_events=[_observation(p) for name, p in prompts.items() if seen.get(name) != p.hash],
    )


def report_prompts(instance: dg.DagsterInstance) -> None:
    """The same, now: for commands that cannot wait for the sensor's next tick."""
    for prompt in load_prompts().values():
        instance.report_runless_asset_event(_observation(prompt))


def _observation(prompt: Prompt) -> dg.AssetObservation:
    return dg.AssetObservation(
        prompt_key(prompt.name),
        tags={"dagster/data_version": prompt.hash},
        metadata={"template": dg.MetadataValue.md(_fenced(prompt)), "version": prompt.version, "note": prompt.note},
    )


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(assets=[prompt_asset(p) for p in load_prompts().values()], sensors=[prompt_observer])
