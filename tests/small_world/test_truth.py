"""What is true of a drawing, and what is not."""

from pathlib import Path

from mvl_assets.demo_data.drawings.drawing import DrawnQAPair
from mvl_assets.demo_data.truth import read_truths
from mvl_assets.demo_data.write import write_demo_sources
from mvl_assets.media.image import compute_image_id
from mvl_assets.small_world.truth import is_true_answer

PAIRS = (DrawnQAPair("What comes after rain?", "river", "The arrow from rain leads to river.", ("river", "sea")),)


def test_reasons_and_result_must_both_be_true():
    question = "What comes after rain?"
    assert is_true_answer(PAIRS, question, "The arrow from rain leads to river.\n\nAnswer: river") is True
    assert is_true_answer(PAIRS, question, "the arrow from rain  leads to river. answer: River") is True
    assert is_true_answer(PAIRS, question, "The arrow from rain leads to sea.\n\nAnswer: river") is False
    assert is_true_answer(PAIRS, question, "The arrow from rain leads to river.\n\nAnswer: sea") is False
    assert is_true_answer(PAIRS, "What is the weather?", "Rain.") is None


def test_the_result_of_a_question_with_choices_is_its_letter():
    question = "What comes after rain?\nA. sea\nB. river\nAnswer with the letter of the choice."
    assert is_true_answer(PAIRS, question, "The arrow from rain leads to river.\n\nAnswer: B") is True
    assert is_true_answer(PAIRS, question, "The arrow from rain leads to river.\n\nAnswer: A") is False


def test_demo_data_says_what_is_true_of_its_images(tmp_path: Path):
    (written,) = write_demo_sources(tmp_path, ["allava_laion"], n_rows=8)
    truths = read_truths(written.source_dir)
    files = [path for path in written.source_dir.rglob("*") if path.suffix in (".png", ".jpg")]
    assert truths and truths.keys() <= {compute_image_id(path.read_bytes()) for path in files}
    assert all(qa_pairs for qa_pairs in truths.values())


def test_a_folder_that_is_not_demo_data_has_no_truths(tmp_path: Path):
    assert read_truths(tmp_path) == {}
