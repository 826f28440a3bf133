"""The command line, `mvl`: one module per command, imported when the command is called.

Commands call the same functions as the assets, or materialise the assets themselves (`mvl run`). Only they print.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from importlib.metadata import entry_points

import click

from mvl_assets.cli.common_options import add_common_options
from mvl_assets.common.arm_address import split_lake_address
from mvl_assets.common.project_root import require_project
from mvl_assets.common.verbosity import Verbosity, get_verbosity
from mvl_assets.config.settings import load_settings, validate_settings

COMMANDS = {
    "init": "Make a project of your own: a folder for sources, prompts, profiles, recipes.",
    "doctor": "Check what this machine has and lacks, with the command that fixes it.",
    "run": "Materialise the whole pipeline, or a part of it, in this process.",
    "status": "Show per stage what is materialised, what is stale, rows and rejects.",
    "sources": "List the declared sources with their state; look them up, fetch them.",
    "plan": "Show what a stage would fetch, send or take, without doing it.",
    "mixture": "Compare two mixtures; search for better shares (short: mix).",
    "rejects": "Show the rows that were refused: file, row, why, and what to do.",
    "retry": "Ask again for rejected rewrites and verdicts; --list shows them.",
    "benchmarks": "Declare the items of a benchmark, from the file of its lmms-eval task.",
    "batches": "Show the requests that servers have in batches.",
    "try": "Ask a few rows with a prompt at hand; a page shows old and new side by side.",
    "judge": "Measure the judge: against human labels, and on known faults.",
    "study": "Measure what a change of mixture or recipe does: arms, seeds, one report.",
    "stale": "List stale partitions; --launch materialises them again.",
    "export": "Write the mixtures, or the judged pairs, in the formats of trainers and viewers.",
    "publish": "Publish the mixtures on the Hugging Face hub; a repeat sends the difference.",
    "trace": "Show where a row came from, back to its source file.",
    "purge": "Delete a source, or samples, and everything that was made from them.",
    "gc": "Free disk space: unused images, old versions, leftovers of killed runs.",
    "serve": "Show, stop or start the local model servers.",
    "view": "Look at judged pairs in a browser: filter, compare, label.",
    "ui": "Open Dagster's web interface on this lake.",
}

# Where a command is defined that is not in the module `mvl_assets.cli.<name>`.
COMMAND_MODULES = {
    "run": "mvl_assets.runner.pipeline_runner",
    "study": "mvl_training.studies.cli",  # needs both packages on one machine
    "try": "mvl_assets.cli.try_prompt",
}

# Found by their entry points (group `mvl.commands`): this package does not import the modules that define them.
PLUGIN_COMMANDS = {
    "demo-data": "Write small raw data sets in the sources' native formats.",
    "truth": "Hold the demo's rewrites and its judge against what was drawn.",
    "recipe": "Show what a training recipe would run: parameters, FLOPs, memory, days.",
    "train-rows": "List the rows that a training step of a checkpoint was trained on.",
    "compare": "Compare two checkpoints on the benchmarks, question by question.",
}

SHORT_NAMES = {"mix": "mixture"}

# These say something useful anywhere.
COMMANDS_WITHOUT_PROJECT = ("doctor", "recipe")
ASKS_FOR_HELP = "mvl.asks_for_help"


class LazyGroup(click.Group):
    """Command group that imports a command's module only when it is used, so that `mvl --help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *PLUGIN_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = SHORT_NAMES.get(cmd_name, cmd_name)
        if cmd_name in COMMANDS:
            module_name = COMMAND_MODULES.get(cmd_name, f"mvl_assets.cli.{cmd_name}")
            return add_common_options(importlib.import_module(module_name).command)
        for entry in entry_points(group="mvl.commands", name=cmd_name):
            return add_common_options(entry.load())
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        ctx.meta[ASKS_FOR_HELP] = bool({"--help", "-h"} & set(args))
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list((COMMANDS | PLUGIN_COMMANDS).items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mvl", message="mvl %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """MAmmoTH-VL's pipeline from 153 sources to a trained model, as a data lake with lineage."""
    if ctx.meta[ASKS_FOR_HELP] or ctx.invoked_subcommand == "init":
        return
    if ctx.invoked_subcommand not in COMMANDS_WITHOUT_PROJECT:
        require_project()
    validate_settings()
    if "://" in load_settings().lake_root and ctx.invoked_subcommand != "doctor":  # it says so in its own way
        from mvl_assets.lake.storage import check_store

        check_store(split_lake_address(load_settings().lake_root)[0])


add_common_options(cli)


def main() -> None:
    """Run the command line; an error that a person can act on is shown in one line, with exit status 1."""
    try:
        cli(prog_name="mvl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; run the same command again to continue", err=True)
        sys.exit(130)
    except Exception as error:
        from mvl_assets.runner.user_errors import to_user_facing_error

        user_error = to_user_facing_error(error)
        if user_error is None:
            raise
        if get_verbosity() == Verbosity.VERBOSE:
            traceback.print_exc()
        click.secho(f"error: {user_error.message}", fg="red", err=True)
        if user_error.hint:
            click.echo(f"  what to do: {user_error.hint}", err=True)
        sys.exit(1)
