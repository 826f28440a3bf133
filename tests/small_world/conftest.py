"""The prompts that lessons are in the words of."""

import pytest

from mvl_assets.config.profile import load_profile
from mvl_assets.config.prompts import Prompt, load_prompts


@pytest.fixture(scope="module")
def prompts() -> dict[str, Prompt]:
    return dict(load_prompts(profile=load_profile("demo").model_copy(update={"prompts": "drawn"})))
