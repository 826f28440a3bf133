"""A checkpoint of a grid beyond four tiles, served by the real vLLM with our plugin."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mvl_assets.inference.local_server.server import ensure_server, stop_servers
from mvl_assets.inference.local_server.server_spec import ServerSpec, is_vllm_installed
from mvl_assets.media.image import compute_standard_size
from mvl_assets.media.tiles import compute_anyres_layout
from mvl_training.data.planning import build_pack_plan
from mvl_training.evaluation.benchmarks.benchmark_run import build_media_args
from mvl_training.evaluation.student_runner import Conversation, StudentRunner
from mvl_training.recipe import parse_recipe
from mvl_training.trainer.export_main import export_stage
from tests.patience import PATIENCE_S
from tests.training import tiny_model as small
from tests.training.chat_request import asked, asked_about_video

QUESTION = "Which colour?"
SERVER_ARGS = ("--dtype", "float32", *build_media_args(4))


def wide_recipe(tokenizer: Path, video_newlines: str) -> dict[str, Any]:
    """Up to 6 x 6 tiles, shrunk to 4, as in paper-7b; tiles of 112 px and 4 x 4 patches."""
    data = small.build_seeing_recipe_data(tokenizer) | {"video_newlines": video_newlines}
    data["vision"]["config"] |= {"image_size": 112, "patch_size": 28}
    data["grid"] = {"tile": 112, "patch": 28, "side": 6, "anyres_max": 4}
    data["stages"]["single_image"] |= {"steps": 120, "global_batch_size": 8}
    return data


def plain(colour: str, size: tuple[int, int]) -> bytes:
    """One colour: resizing, which vLLM does with torch and we do with Pillow, leaves every pixel as it is."""
    buffer = io.BytesIO()
    Image.new("RGB", size, small.COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module", params=["grid", "one"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """The output folder of a run that learned to tell the colours of plain pictures."""
    folder = tmp_path_factory.mktemp("wide")
    file, data = folder / "wide.yaml", wide_recipe(tokenizer, request.param)
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    rng = random.Random(0)
    samples = [
        ([plain(colour, (rng.choice([224, 336]), 224))], QUESTION, colour) for colour in 40 * list(small.COLOURS)
    ]
    lake = small.fill_lake(folder / "lake", samples)
    build_pack_plan(lake, "single_image", parse_recipe(data), run_id="test")
    command = [sys.executable, "-m", "mvl_training.trainer.main", "--recipe", str(file), "--stage", "single_image"]
    command += ["--lake", lake.root, "--out", str(folder / "out")]
    done = subprocess.run(
        command, env=small.build_environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    export_stage(folder / "out")
    return folder / "out"


def sizes_to_ask() -> list[tuple[int, int]]:
    """Small, square, wide, tall, steep, large, and odd ones, as (width, height)."""
    rng = random.Random(1)
    named = [(10, 10), (224, 224), (448, 448), (900, 240), (240, 900), (1600, 230), (230, 1600), (2000, 1500)]
    return named + [(rng.randint(224, 900), rng.randint(224, 900)) for _ in range(16)]


def check_several_images(base_url: str, runner: StudentRunner) -> None:
    """Also images that the server's cache holds: as a prompt's only one, or as one of several."""
    rng = random.Random(2)
    alone = [plain(colour, (rng.randint(100, 700), rng.randint(100, 700))) for colour in small.COLOURS]
    for pictures in (alone[:2], alone[:1], alone[1:4], alone[::-1], [alone[2], alone[2]], alone[3:]):
        body = asked(base_url, pictures, QUESTION)
        assert body["usage"]["prompt_tokens"] == len(runner.build_prompt_ids(pictures, QUESTION))
        answer = body["choices"][0]["message"]["content"].strip()
        assert answer == runner.answer_questions([(pictures, QUESTION)])[0]


def check_videos(base_url: str, runner: StudentRunner) -> None:
    """Frames as training takes them: the server must not choose among them."""
    for n_frames in (1, 5, 40):
        frames = [plain(list(small.COLOURS)[n % 3], (320, 180)) for n in range(n_frames)]
        body = asked_about_video(base_url, frames, QUESTION)
        messages = [("user", [frames, QUESTION])]
        prompt = runner._build_prompt(Conversation(messages, max_new_tokens=8))
        assert body["usage"]["prompt_tokens"] == len(prompt.encoded.input_ids)
        answer = body["choices"][0]["message"]["content"].strip()
        assert answer == runner.generate_reply(messages)


@pytest.mark.server
@pytest.mark.soak
def test_vllm_counts_tokens_and_answers_like_our_runner_for_images_of_every_shape_and_videos(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_vllm_installed():
        pytest.skip("vLLM is not installed")
    assert any(p.value.startswith("mvl_training.model.vllm_plugin") for p in entry_points(group="vllm.general_plugins"))
    runner = StudentRunner(trained, max_new_tokens=8)
    grid = runner.processor.inputs.grid
    sizes = sizes_to_ask()
    layouts = [compute_anyres_layout(*reversed(compute_standard_size(*size).canvas), grid) for size in sizes]
    assert sum(layout.shrunk_size is not None for layout in layouts) >= 8, "these would tell max_4 from max_9"
    assert sum(layout.shrunk_size is None for layout in layouts) >= 2
    monkeypatch.setenv("MVL_HOME", str(tmp_path))
    spec = ServerSpec(str(trained / "export"), "student", max_model_len=1024, max_num_seqs=4, args=SERVER_ARGS)
    endpoint = ensure_server(spec)
    try:
        answers = set()
        for number, size in enumerate(sizes):
            colour = list(small.COLOURS)[number % 4]
            pictures = [plain(colour, size)]
            body = asked(endpoint.base_url, pictures, QUESTION)
            assert body["usage"]["prompt_tokens"] == len(runner.build_prompt_ids(pictures, QUESTION)), size
            answer = body["choices"][0]["message"]["content"].strip()
            assert answer == runner.answer_questions([(pictures, QUESTION)])[0], size
            answers.add(answer)
        assert len(answers) == 4, "the model sees its pictures"
        check_several_images(endpoint.base_url, runner)
        check_videos(endpoint.base_url, runner)
    finally:
        stop_servers(spec.name)
