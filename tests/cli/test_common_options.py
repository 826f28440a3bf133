"""What every command takes and what a slip of the keyboard is answered with."""

from __future__ import annotations

import os
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from mvl_assets.cli import COMMANDS, PLUGIN_COMMANDS, cli
from mvl_assets.common.suggestions import format_suggestion
from mvl_assets.common.verbosity import Verbosity, get_verbosity, set_verbosity
from mvl_assets.orchestration.asset_keys import load_active_profile


@pytest.mark.parametrize("name", [*COMMANDS, *PLUGIN_COMMANDS])
def test_every_command_has_short_help_a_profile_and_two_words_for_how_much_it_says(name: str) -> None:
    output = CliRunner().invoke(cli, [name, "-h"]).output
    assert all(flag in output for flag in ("-h, --help", "--profile", "--quiet", "-v, --verbose"))
    assert output.count("--profile") == 1


def test_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"mvl {version('mvl')}\n"


def test_a_profile_is_taken_before_and_after_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--profile", "nobody", "plan", "raw"], ["plan", "--profile", "nobody", "raw"]):
        monkeypatch.setenv("MVL_PROFILE", "demo")
        load_active_profile.cache_clear()
        result = CliRunner().invoke(cli, words, env={"MVL_HOME": "/tmp"})
        assert "there is no profile 'nobody'" in str(result.exception)
    os.environ.pop("MVL_PROFILE", None)


@pytest.mark.parametrize(("flag", "verbosity"), [("-q", Verbosity.QUIET), ("-v", Verbosity.VERBOSE)])
def test_verbosity_is_set_for_the_process(flag: str, verbosity: Verbosity) -> None:
    try:
        CliRunner().invoke(cli, ["plan", flag, "raw", "--source", "nothing"])
        assert get_verbosity() == verbosity
    finally:
        set_verbosity(Verbosity.NORMAL)


def test_a_misspelt_command_suggests_the_right_one() -> None:
    output = CliRunner().invoke(cli, ["statu"]).output
    assert "No such command 'statu'" in output and "'status'" in output


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chartqa", "did you mean `chartqa_cauldron`? "),
        ("gpa", "did you mean `gqa`? "),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_a_name_is_suggested_by_what_it_contains_or_how_it_is_spelt(name: str, expected: str) -> None:
    assert format_suggestion(name, ["gqa", "chartqa_cauldron"]) == expected
