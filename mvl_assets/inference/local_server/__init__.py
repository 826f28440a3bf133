"""The local vLLM server that processes of one machine share."""
