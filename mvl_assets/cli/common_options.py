"""The options that every command has: `--profile`, `--arm`, `-q` and `-v`, before or after the command's name."""

from __future__ import annotations

import os
from functools import partial

import click

from mvl_assets.common.arm_address import parse_arm_id
from mvl_assets.common.verbosity import Verbosity, set_verbosity


def _set_profile(context: click.Context, option: click.Parameter, name: str | None) -> None:
    if name is not None:
        os.environ["MVL_PROFILE"] = name


def _set_arm(context: click.Context, option: click.Parameter, path: str | None) -> None:
    if path is not None:
        from mvl_assets.config.study_arms import build_arm_environment

        os.environ.update(build_arm_environment(parse_arm_id(path)))


def _set_verbosity(verbosity: Verbosity, context: click.Context, option: click.Parameter, is_set: bool) -> None:
    if is_set:
        set_verbosity(verbosity)


def _build_options() -> list[click.Option]:
    # Eager: the profile has to be known before another option is looked up in it.
    return [
        click.Option(
            ["--profile"],
            metavar="NAME",
            help="Profile, or a YAML file, instead of MVL_PROFILE.",
            expose_value=False,
            is_eager=True,
            callback=_set_profile,
        ),
        click.Option(
            ["--arm"],
            metavar="STUDY/ARM/SEED",
            help="Work on the mixtures, plans and checkpoints of an arm of a study.",
            expose_value=False,
            is_eager=True,
            callback=_set_arm,
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            help="No progress: only results, warnings and errors.",
            expose_value=False,
            is_eager=True,
            callback=partial(_set_verbosity, Verbosity.QUIET),
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            help="Also the traceback of an error.",
            expose_value=False,
            is_eager=True,
            callback=partial(_set_verbosity, Verbosity.VERBOSE),
        ),
    ]


def add_common_options(command: click.Command) -> click.Command:
    """Add the options to a command and its subcommands, but for those whose flags it has itself, and return it."""
    for subcommand in command.commands.values() if isinstance(command, click.Group) else ():
        add_common_options(subcommand)
    taken_flags = {flag for option in command.params for flag in option.opts}
    command.params += [option for option in _build_options() if not taken_flags & set(option.opts)]
    return command
