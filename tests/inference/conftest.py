"""Fixtures of this room; the helpers behind them are in `asking`, which client processes import too."""

from asking import new_log, quick  # noqa: F401
from servers import vllm_server  # noqa: F401
