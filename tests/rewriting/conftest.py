"""`vllm_server` is the one real server of a session."""

from tests.servers import vllm_server  # noqa: F401
