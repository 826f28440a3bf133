"""What becomes out of date by which change: exactly the partitions concerned."""

from __future__ import annotations

import json

import dagster as dg
from click.testing import CliRunner

from mvl_assets.cli.stale import command as stale_command
from mvl_assets.common import metadata_keys
from mvl_assets.defs.freshness import FRESHNESS_CHECK
from mvl_assets.defs.refresh import REFRESH_JOB, submit_refresh
from tests.defs.world import GENERAL, MATH, PARTITIONS, World, put_general
from tests.servers import FakeServer

CODE_MATH = dg.AssetKey(["rewritten", "code_math"])


def materialization(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_nothing_is_stale_after_everything_was_made_once(world: World) -> None:
    made = {(s.key.to_user_string(), s.partition_key) for s in world.standing() if s.state == "fresh"}
    assert made == set(PARTITIONS)
    assert world.stale() == []


def test_making_the_same_again_makes_nothing_stale(world: World) -> None:
    for asset in (f"raw/{MATH}", "category/code_math", "rewritten/code_math"):
        world.make(asset, MATH)
    assert world.stale() == []


def test_a_changed_source_reaches_its_own_partition_and_no_other_stage_by_stage(world: World) -> None:
    put_general(world.home, range(1, 7))
    world.make(f"raw/{GENERAL}", GENERAL)
    assert world.stale() == [("category/code_math", GENERAL)]
    world.make("category/code_math", GENERAL)
    assert world.stale() == [("rewritten/code_math", GENERAL)]


def test_an_edited_prompt_makes_the_sources_of_its_family_stale_and_no_other(world: World) -> None:
    world.edit("rewrite_general.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    assert world.report_prompts() == ["rewrite_general"]
    assert world.stale() == [("rewritten/code_math", GENERAL)]


def test_an_edited_criterion_makes_what_it_judged_stale_and_no_rewrite(world: World) -> None:
    world.edit("judge_general.md", "</sample>\n", "</sample>\n\nBe strict.\n")
    assert len(world.report_prompts()) >= 3
    assert world.stale() == [("judged/code_math", MATH), ("judged/code_math", GENERAL)]


def test_an_edited_note_makes_nothing_stale_and_an_edit_taken_back_neither(world: World) -> None:
    world.edit("rewrite_math.md", "\nnote: ", "\nnote: Reworded. ")
    assert world.report_prompts() == []
    world.edit("rewrite_math.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    world.report_prompts()
    assert world.stale() == [("rewritten/code_math", MATH)]
    world.edit("rewrite_math.md", "</sample>\n\nBe brief.\n", "</sample>\n")
    assert world.report_prompts() == ["rewrite_math"]
    assert world.stale() == []


def test_a_changed_keep_rule_makes_judged_stale_and_asks_nothing_again(
    world: World, model: tuple[FakeServer, str]
) -> None:
    world.profile(keep={"rule": "p_yes >= 0.99"})
    world.reload()
    stale = [("judged/code_math", MATH), ("judged/code_math", GENERAL)]
    assert world.stale() == stale
    asked = sum(model[0].request_counts.values())
    for asset, partition in stale:
        shown = materialization(world.make(asset, partition))
        assert shown[metadata_keys.REQUESTS_SENT] == 0
        assert shown[metadata_keys.REQUESTS_REUSED] == shown[metadata_keys.REQUESTS_TOTAL] != 0
        assert shown[metadata_keys.KEPT] == 0
    assert sum(model[0].request_counts.values()) == asked


def test_the_sensor_reports_an_edit_once_and_marks_what_was_made_with_the_old_prompt(world: World) -> None:
    quiet = world.tick(None)
    assert all(event.passed for event in quiet.asset_events)
    world.edit("rewrite_general.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    told = world.tick(quiet.cursor)
    (marked,) = told.asset_events
    assert isinstance(marked, dg.AssetCheckEvaluation)
    assert (marked.asset_key, marked.check_name, marked.passed) == (CODE_MATH, FRESHNESS_CHECK, False)
    assert marked.severity == dg.AssetCheckSeverity.WARN
    assert marked.metadata[metadata_keys.STALE_PARTITIONS].value == 1
    assert "prompts/rewrite_general" in str(marked.metadata[GENERAL].value)
    assert MATH not in marked.metadata
    again = world.tick(told.cursor)
    assert again.asset_events == []
    assert told.run_requests == [] and again.run_requests == []


def test_the_sensor_takes_its_mark_back_when_the_partition_was_made_again(world: World) -> None:
    world.edit("rewrite_general.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    cursor = world.tick(None).cursor
    assert latest_check(world).passed is False
    result = world.make("rewritten/code_math", GENERAL)
    assert materialization(result)[metadata_keys.REQUESTS_SENT] == 3
    ticked = {e.asset_key.to_user_string(): e for e in world.tick(cursor).asset_events}
    assert ticked["rewritten/code_math"].passed
    assert not ticked["judged/code_math"].passed and GENERAL in ticked["judged/code_math"].metadata


def test_a_run_that_makes_one_of_two_stale_partitions_still_warns_of_the_other(world: World) -> None:
    for prompt in ("rewrite_general.md", "rewrite_math.md"):
        world.edit(prompt, "</sample>\n", "</sample>\n\nBe brief.\n")
    world.report_prompts()
    result = world.make("rewritten/code_math", GENERAL)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == FRESHNESS_CHECK]
    assert not check.passed and result.success
    assert MATH in check.metadata and GENERAL not in check.metadata


def test_mvl_stale_lists_and_launches_exactly_the_stale_partitions(world: World, model: tuple[FakeServer, str]) -> None:
    world.edit("rewrite_general.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    asked = sum(model[0].request_counts.values())
    with world.instance() as instance:
        runs = instance.get_runs_count()
    launched = CliRunner().invoke(stale_command, ["--launch"], catch_exceptions=False)
    assert launched.exit_code == 0
    assert "1 stale" in launched.stdout and "prompts/rewrite_general" in launched.stdout
    assert sum(model[0].request_counts.values()) == asked + 3
    with world.instance() as instance:
        assert instance.get_runs_count() == runs + 1
    listed = CliRunner().invoke(stale_command, ["judged", "--json"], catch_exceptions=False)
    (one,) = json.loads(listed.stdout)
    assert (one["asset"], one["partition"]) == ("judged/code_math", GENERAL)
    assert "rewritten/code_math" in one["causes"]
    rest = CliRunner().invoke(stale_command, ["--launch", "--downstream"], catch_exceptions=False)
    assert rest.exit_code == 0, rest.stdout
    assert "still stale" not in rest.stdout
    assert "judged/code_math" in rest.stdout and "export/dataset_card" in rest.stdout
    assert json.loads(CliRunner().invoke(stale_command, ["--json"], catch_exceptions=False).stdout) == []


def test_the_job_backfills_what_is_out_of_date_and_what_was_made_from_it(world: World) -> None:
    graph = world.definitions.resolve_asset_graph()
    with world.instance() as instance:
        assert submit_refresh(instance, graph, train=False) == [] and instance.get_backfills() == []
    world.edit("rewrite_general.md", "</sample>\n", "</sample>\n\nBe brief.\n")
    with world.instance() as instance:
        made = submit_refresh(instance, graph, train=False)
        (backfill,) = instance.get_backfills()
    assert [("/".join(key.path), partition) for key, partition in made] == [
        ("export/dataset_card", None),
        ("judged/code_math", GENERAL),
        ("mixture/single_image", None),
        ("rewritten/code_math", GENERAL),
    ]
    subset = backfill.asset_backfill_data.target_subset  # type: ignore[union-attr]
    assert {(p.asset_key, p.partition_key) for p in subset.iterate_asset_partitions()} == set(made)


def test_nothing_makes_up_to_date_by_itself(world: World) -> None:
    (schedule,) = world.definitions.schedules or ()
    assert schedule.job_name == REFRESH_JOB
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED  # type: ignore[union-attr]


def latest_check(world: World) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(CODE_MATH, FRESHNESS_CHECK)
    with world.instance() as instance:
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.evaluation is not None
    return record.evaluation
