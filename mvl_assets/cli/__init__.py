"""The command line, `mvl`. One module per command, imported when it is called; nothing else may print.

Commands call the same plain functions as the assets do, or drive the assets themselves (`mvl run`).
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points

import click

from mvl_assets.config.settings import validate_settings

COMMANDS = {
    "doctor": "Check what this machine has and lacks, with the command that mends it.",
    "run": "Materialise the whole road, or a part of it, in this process.",
    "status": "Per stage: what is materialised, what is out of date, rows and rejects.",
    "sources": "List the declared sources with what is known and what was found.",
    "plan": "Say what a stage would fetch or send, before anything moves.",
    "retry": "Ask again what rewriting and judging could not get; --list says what that is.",
    "judge": "See how far the judge can be trusted: against labels, and on known faults.",
    "stale": "List the partitions that are out of date; --launch backfills them through Dagster.",
    "trace": "Show where a row came from.",
    "purge": "Take a source, or samples, out of everything that was made of them.",
    "gc": "Remove what nothing needs: unused pictures, old versions, leftovers of killed runs.",
    "serve": "Look at, stop or start the local model servers.",
    "ui": "Open Dagster's web interface on this lake.",
}


# Of other packages (entry points of the group `mvl.commands`), which this one does not import.
PLUGIN_COMMANDS = {
    "demo-data": "Write small raw data sets in the sources' native formats.",
    "recipe": "Show what a training recipe would run: parameters, FLOPs, memory, days.",
    "train-rows": "List the rows that a training step of a checkpoint was trained on.",
    "compare": "Compare two checkpoints on the benchmarks, question by question.",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, so that `mvl --help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *PLUGIN_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            return importlib.import_module(f"mvl_assets.cli.{cmd_name}").command
        for entry in entry_points(group="mvl.commands", name=cmd_name):
            return entry.load()
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list((COMMANDS | PLUGIN_COMMANDS).items()))


@click.group(cls=LazyGroup)
def cli() -> None:
    """MAmmoTH-VL's road from 153 sources to a trained model, as a lake with lineage."""
    validate_settings()


def main() -> None:
    """Runs the command line. An error a person can act on ends with one line and exit status 1."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except Exception as error:
        from mvl_assets.runner.user_errors import to_user_facing_error

        user_error = to_user_facing_error(error)
        if user_error is None:
            raise
        click.secho(f"error: {user_error.message}", fg="red", err=True)
        if user_error.hint:
            click.echo(f"  what to do: {user_error.hint}", err=True)
        sys.exit(1)
