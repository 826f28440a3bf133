"""`mvl retry`: what was refused stays refused until it is asked for, through the assets the UI shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
from click.testing import CliRunner

from mvl_assets.cli import cli
from tests.cli.home import REWRITTEN, Home, lines_with, one_error
from tests.servers import FakeProcess

SOURCE = REWRITTEN[1]
UNTIL_JUDGED = ("--source", SOURCE, "--until", "judged")


def listed(home: Home) -> list[dict[str, Any]]:
    return json.loads(CliRunner().invoke(cli, ["retry", "--json"], env=home.environment).output)


def test_a_refused_request_is_asked_again_by_retry_alone(sorted_in: Home, model: FakeProcess, tmp_path: Path) -> None:
    home = sorted_in.copy(tmp_path / "home")
    with FakeProcess("--fault", "400=0.4") as moody:
        home.profile(model_base_urls=[moody.base_url])
        home.run("run", *UNTIL_JUDGED)
        result = listed(home)
        assert {(g["source"], g["error"], g["is_auto_retried"]) for g in result} == {(SOURCE, "http_400", False)}
        assert {g["stage"] for g in result} == {"rewritten", "judged"}
        refused = {g["stage"]: g["rows"] for g in result}
        output = home.run("retry", "--list")
        assert lines_with(output, ["rewritten", "http_400", str(refused["rewritten"]), "mvl retry", "fault 400"])
        before = moody.counts()["requests"]
        home.run("run", *UNTIL_JUDGED, "--force")
        assert moody.counts()["requests"] == before, "what was refused is left alone"
    # The same model at another address, which refuses nothing.
    home.profile(model_base_urls=[model.base_url])
    assert "nothing to ask again" in home.run("retry", "--error", "timeout")
    before = model.counts()["requests"]
    output = home.run("retry", "--stage", "rewritten", "--error", "http_400")
    assert model.counts()["requests"] - before == refused["rewritten"]
    assert f"{refused['rewritten']} of {refused['rewritten']} rejects are resolved" in output
    assert [g["stage"] for g in listed(home)] == ["judged"]
    # What came in is judged by the next run, and the refused verdicts still wait.
    home.run("run", *UNTIL_JUDGED)
    assert listed(home)[0]["rows"] == refused["judged"]
    home.run("retry")
    assert listed(home) == []
    rewritten = {row["rewrite_id"] for row in home.lake.get_table("rewritten/code_math").iter_rows()}
    assert {row["rewrite_id"] for row in home.lake.get_table("judged/code_math").iter_rows()} == rewritten
    with dg.DagsterInstance.from_config(str(home.folder / "dagster")) as instance:
        tags = [run.tags.get("mvl/retry") for run in instance.get_runs()]
    assert tags[0] == "all" and "http_400" in tags


def test_a_row_that_failed_by_chance_makes_its_partition_run_again(
    sorted_in: Home, model: FakeProcess, tmp_path: Path
) -> None:
    home = sorted_in.copy(tmp_path / "home")
    until = ("--source", SOURCE, "--until", "rewritten")
    with FakeProcess("--fault", "malformed=0.9") as broken:
        home.profile(model_base_urls=[broken.base_url])
        home.run("run", *until)
    (one,) = listed(home)
    assert (one["error"], one["is_auto_retried"]) == ("malformed_reply", True)
    home.profile(model_base_urls=[model.base_url])
    output = home.run("run", *until)
    assert lines_with(output, ["-- rewritten: 1 made, 0 up to date, 0 failed"])
    assert listed(home) == []
    assert lines_with(home.run("run", *until), ["-- rewritten: 0 made, 1 up to date, 0 failed"])


def test_an_undeclared_source_is_an_error(raw: Home) -> None:
    one_error(raw.mvl("retry", "--source", "nothing"), "there is no source 'nothing'", "`mvl sources`")
