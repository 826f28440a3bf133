"""`servers` is shared by several rooms; `vllm_server` is the one real server of a session."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import vllm_server  # noqa: F401
