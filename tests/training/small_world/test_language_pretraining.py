"""The language tower learns to continue the words of lessons, and keeps their tokenizer."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from mvl_assets.small_world.write import train_tokenizer
from mvl_training.small_world import language_pretraining
from mvl_training.small_world.language_pretraining import iter_sequences, pretrain_language_tower

TEXTS = [f"The bar of day {n} is {n % 7} high.\n\nAnswer: {n % 7}" for n in range(400)]


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(TEXTS, folder)
    return folder


def test_every_token_but_the_first_is_predicted_once(tokenizer_dir: Path):
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    stream = [token for text in TEXTS for token in (*tokenizer.encode(text).ids, end)]
    targets = [token for sequence in iter_sequences(TEXTS, tokenizer, 16) for token in sequence[1:].tolist()]
    assert targets == stream[1 : len(targets) + 1] and len(stream) - len(targets) <= 16


def test_the_loss_falls_and_the_folder_loads(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    tiny = language_pretraining.LANGUAGE_CONFIG | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    monkeypatch.setattr(language_pretraining, "LANGUAGE_CONFIG", tiny)
    pretrain_language_tower(TEXTS * 4, tokenizer_dir, tmp_path / "tower", 26, batch_size=4)
    losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert losses[-1] < 0.7 * losses[0]
    assert load_file(tmp_path / "tower" / "model.safetensors")["model.norm.weight"].shape == (64,)
    assert (tmp_path / "tower" / "tokenizer.json").is_file()
