"""A home of its own for the `mvl` command, tried as a user tries it: in a process, by its words and its exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from mvl_assets.lake.lake import Lake
from tests.cli.warm_start import run_forked
from tests.patience import PATIENCE_S

PROJECT = Path(__file__).resolve().parents[2]
MAIN = "from mvl_assets.cli import main; main()"
COMMAND = (sys.executable, "-c", MAIN)
MODEL = "fake"

# One source that is kept as it is and two that are rewritten, all drawn.
KEPT, REWRITTEN = "allava_laion", ("sharegpt4v", "geo170k")
SOURCES = tuple(word for slug in (KEPT, *REWRITTEN) for word in ("--source", slug))


@dataclass(frozen=True)
class Home:
    """`folder` is MVL_HOME; `extra` are further environment variables; `before` and `command`
    begin the command line, which runs in the folder `project`."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    command: tuple[str, ...] = COMMAND
    project: Path = PROJECT

    @property
    def lake(self) -> Lake:
        return Lake(str(self.folder / "lake"))

    @property
    def environment(self) -> dict[str, str]:
        own = {"MVL_HOME": str(self.folder), "MVL_PROFILE": str(self.folder / "profile.yaml")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MVL_", "DAGSTER_HOME"))}
        quiet = {"DAGSTER_DISABLE_TELEMETRY": "1", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        return kept | quiet | own | self.extra

    def using(self, **variables: str) -> Home:
        return replace(self, extra=self.extra | variables)

    def mvl(self, *words: str, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end."""
        # The hub's client reads its variables when it is imported: a fork has those of the process it was made from.
        is_about_hub = any(name.startswith("HF_") for name in self.extra)
        if self.command == COMMAND and self.project == PROJECT and not self.before and not is_about_hub:
            return run_forked(MAIN, list(words), self.project, self.environment, seconds)
        return subprocess.run(
            [*self.before, *self.command, *words],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts the command in a session of its own, as a terminal's foreground job is one."""
        return subprocess.Popen(
            [*self.before, *self.command, *words],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> str:
        """What the command says; it must succeed."""
        done = self.mvl(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def profile(self, **changed: Any) -> None:
        """Writes the home's profile; `model_` before a key changes the model."""
        model = {"name": MODEL, "revision": "1", "supports_images": False, "base_urls": ["http://127.0.0.1:9/v1"]}
        model |= {key.removeprefix("model_"): value for key, value in changed.items() if key.startswith("model_")}
        if {"serve", "endpoints_file"} & model.keys():
            del model["base_urls"]
        data = {
            "name": "test",
            "limit": 12,
            "models": {"one": model},
            "score_rows": 0,
            "prompts": "small",
            "roles": dict.fromkeys(("caption", "rewrite", "judge"), "one"),
            "keep": {"rule": "p_yes >= 0.1"},
            "mixture": {"alignment": 4, "single_image": 20, "one_vision": 4},
            "recipe": "demo",
        }
        data |= {key: value for key, value in changed.items() if not key.startswith("model_")}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "profile.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")

    def copy(self, folder: Path) -> Home:
        shutil.copytree(self.folder, folder, symlinks=True)
        return replace(self, folder=folder)

    def processes(self) -> list[psutil.Process]:
        """The living processes that were started for this home, whoever their parent is now."""
        result = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("MVL_HOME") == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    result.append(process)
            except (psutil.Error, OSError):
                continue
        return result


def one_error(done: subprocess.CompletedProcess[str], message: str, hint: str) -> None:
    """The command ended with 1 and said what is wrong and what to do, once each, and nothing of how it is built."""
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "Traceback" not in output, output
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    hints = [line for line in done.stderr.splitlines() if line.startswith("  what to do:")]
    assert len(errors) == len(hints) == 1, output
    assert message in errors[0], output
    assert hint in hints[0], output


def lines_with(text: str, words: Sequence[str]) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]
