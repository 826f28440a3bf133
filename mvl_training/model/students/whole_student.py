"""Students that start as a whole: what all families have in common around `AutoModelForImageTextToText`.

Parameters are named in exports as in transformers' modules, which transformers and vLLM both load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from jinja2 import TemplateError

from mvl_assets.common.text import format_exception_line
from mvl_assets.errors import MvlError
from mvl_assets.inference.local_server.torch_compat import patch_cpu_torch
from mvl_training.data.chat_format import ChatTokenizer, encode_conversation
from mvl_training.data.processing import SampleProcessor
from mvl_training.data.students.model_files import resolve_model_dir
from mvl_training.data.students.open_inputs import check_family
from mvl_training.data.students.processor_files import read_processor_settings, resolve_processor_dir
from mvl_training.model.student_model import Student
from mvl_training.recipe import Recipe
from mvl_training.recipe_student import StudentConfig

patch_cpu_torch()  # before transformers: it imports torchvision

from PIL import Image  # noqa: E402
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor  # noqa: E402
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD  # noqa: E402

PREFIX = "vlm."

PROBE_QUESTION, PROBE_ANSWER = "What is it?", "A circle."
PROBE_SIZE = (300, 240)


class WholeStudent(Student):
    """See `Student`.

    Args:
        vlm: transformers' model.
        processor_settings: Of its image and its video processor.

    Attributes:
        vlm: The model.

    Raises:
        MvlError: Images and videos are normalised in different ways.
    """

    hub_head_name = "lm_head.weight"

    def __init__(self, vlm: Any, processor_settings: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
        super().__init__()
        self.vlm = vlm
        images, videos = (
            (settings.get("image_mean") or OPENAI_CLIP_MEAN, settings.get("image_std") or OPENAI_CLIP_STD)
            for settings in processor_settings
        )
        if images != videos:
            raise MvlError("the student's processor normalises images and videos in different ways: that is not known")
        self._mean, self._std = images
        self.pack_attention()

    @classmethod
    def start(cls, recipe: Recipe, tokenizer: ChatTokenizer, dtype: torch.dtype = torch.float32) -> Self:
        """Return the student before any training: the recipe's model."""
        student = _get_config(recipe)
        model_dir = resolve_model_dir(student.model, student.revision)
        loaded = cls._load_dir(student, model_dir, dtype)
        n_words = loaded.vlm.get_input_embeddings().weight.shape[0]
        # Not all of its tokens: InternVL's last, `<video>`, is never in the ids, and has no embedding.
        if n_words <= max(*tokenizer.placeholder_ids, tokenizer.im_start_id, tokenizer.im_end_id):
            raise MvlError(
                f"{model_dir}: the model has {n_words} words, fewer than ids of its tokenizer",
                hint="use the tokenizer that the model was published with",
            )
        return loaded

    @classmethod
    def load(cls, recipe: Recipe, export_dir: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load the student from an export."""
        return cls._load_dir(_get_config(recipe), export_dir, dtype)

    @classmethod
    def _load_dir(cls, student: StudentConfig, model_dir: Path, dtype: torch.dtype) -> Self:
        check_family(model_dir, student.family)
        try:
            vlm = AutoModelForImageTextToText.from_pretrained(
                model_dir, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise MvlError(
                f"{model_dir}: the student cannot be loaded ({format_exception_line(error)})",
                hint="a student is a folder in Hugging Face form with safetensors",
            ) from error
        return cls(vlm, read_processor_settings(model_dir)[1:])

    @classmethod
    def build_shell(cls, recipe: Recipe) -> Self:
        """Return the student without memory for its weights, on the meta device."""
        student = _get_config(recipe)
        model_dir = resolve_processor_dir(student)
        check_family(model_dir, student.family)
        config = AutoConfig.from_pretrained(model_dir, local_files_only=True)
        with torch.device("meta"):
            vlm = AutoModelForImageTextToText.from_config(config)
        return cls(vlm, read_processor_settings(model_dir)[1:])

    @staticmethod
    def to_hub_name(parameter_name: str) -> str:
        """Return a parameter's name in transformers' model."""
        if not parameter_name.startswith(PREFIX):
            raise KeyError(parameter_name)
        return parameter_name.removeprefix(PREFIX)

    def write_model_files(self, source_dir: Path, model_dir: Path, processor: SampleProcessor) -> None:
        """Write config, generation config and the processor, with the limits of images that the stage has."""
        hf_processor = AutoProcessor.from_pretrained(source_dir, local_files_only=True)
        self.apply_limits(hf_processor, processor)
        check_tokens(hf_processor, processor, source_dir)
        model_dir.mkdir(parents=True, exist_ok=True)
        self.vlm.config.architectures = [type(self.vlm).__name__]
        self.vlm.config.save_pretrained(model_dir)
        self.vlm.generation_config.save_pretrained(model_dir)
        hf_processor.save_pretrained(model_dir)

    @staticmethod
    def apply_limits(hf_processor: Any, processor: SampleProcessor) -> None:
        """Give transformers' processor the limits of images and videos that training has."""
        raise NotImplementedError

    def build_pixels(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return uint8 tiles as the vision tower takes them: transformers' `pixel_values`, float32."""
        raise NotImplementedError

    def normalize(self, tiles: torch.Tensor, channel_dim: int) -> torch.Tensor:
        """Return uint8 pixels as the vision tower takes them, float32.

        Args:
            tiles: Pixels.
            channel_dim: Their dimension of red, green and blue.
        """
        shape = [1] * tiles.dim()
        shape[channel_dim] = 3
        mean, std = (torch.tensor(values, device=tiles.device).view(shape) * 255 for values in (self._mean, self._std))
        return (tiles.to(torch.float32) - mean) / std


def check_tokens(hf_processor: Any, processor: SampleProcessor, model_dir: Path) -> None:
    """Refuse a model whose own processor and chat template make other tokens of a conversation than training does.

    Raises:
        MvlError: They do; with both texts.
    """
    inputs = processor.inputs
    turns = [{"from": "human", "value": f"<image>\n{PROBE_QUESTION}"}, {"from": "gpt", "value": PROBE_ANSWER}]
    ours = encode_conversation(
        turns,
        [inputs.build_placeholder(layout) for layout in inputs.compute_layouts([PROBE_SIZE], is_video=False)],
        inputs.tokenizer,
        chat_format=processor.chat_format,
        system_prompt=processor.system_prompt,
        style=inputs.chat_style,
    ).input_ids.tolist()
    image_part = {"type": "image", "image": Image.new("RGB", PROBE_SIZE)}
    messages = [
        {"role": "user", "content": [image_part, {"type": "text", "text": PROBE_QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": PROBE_ANSWER}]},
    ]
    try:
        theirs = hf_processor.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    except (ValueError, TemplateError) as error:
        raise MvlError(f"{model_dir}: its chat template cannot be used ({format_exception_line(error)})") from error
    (theirs,) = [list(ids) for ids in theirs]
    if ours != theirs:
        texts = (hf_processor.tokenizer.decode(ids) for ids in (ours, theirs))
        raise MvlError(
            f"{model_dir}: its processor makes {len(theirs)} tokens of a conversation of which training would make"
            f" {len(ours)}: {' instead of '.join(map(repr, texts))}",
            hint="use the tokenizer, processor and chat template that the model was published with",
        )


def _get_config(recipe: Recipe) -> StudentConfig:
    assert recipe.student is not None
    return recipe.student
