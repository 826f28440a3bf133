"""The vision tower learns what lies on each patch."""

from pathlib import Path

import pytest

from mvl_assets.media.drawing import create_canvas
from mvl_assets.small_world.cards import CARD_SIZE, MARK_NAMES, Card
from mvl_training.small_world.vision_pretraining import label_patches, pretrain_vision_tower

TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": CARD_SIZE,
    "patch_size": 32,
}


def test_a_mark_belongs_to_the_patches_that_hold_a_good_part_of_it():
    image, _ = create_canvas((CARD_SIZE, CARD_SIZE), (255, 255, 255))
    # In the first row of patches: from the middle of the first patch into the second.
    card = Card(image, "red circle", (("circle", (16.0, 2.0, 48.0, 30.0)), ("7", (64.0, 40.0, 70.0, 50.0))))
    labels = label_patches(card, 32).reshape(4, 4, len(MARK_NAMES)).bool()
    circle, seven = MARK_NAMES.index("circle"), MARK_NAMES.index("7")
    assert labels[..., circle].nonzero().tolist() == [[0, 0], [0, 1]]
    assert labels[..., seven].nonzero().tolist() == [[1, 2]]
    assert labels.sum() == 3


def test_the_tower_is_written_whole_and_the_same_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a", "b"):
        pretrain_vision_tower(TINY, tmp_path / name, 64, batch_size=16)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    assert (tmp_path / "a" / "config.json").is_file()
    assert '"step": 0' in capsys.readouterr().out
