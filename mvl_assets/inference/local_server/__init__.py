"""The vLLM server that processes of one machine share: starting, finding, supervising, stopping."""
