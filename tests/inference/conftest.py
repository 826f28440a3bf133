"""Fixtures of the inference tests; those of `helpers` are also imported by client processes."""

from tests.inference.helpers import new_log, quick  # noqa: F401
from tests.servers import vllm_server  # noqa: F401
