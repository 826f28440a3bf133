"""Fixtures of this room; the helpers behind them are in `asking`, which client processes import too."""

from tests.inference.helpers import new_log, quick  # noqa: F401
from tests.servers import vllm_server  # noqa: F401
