"""Batch endpoints (`/v1/files`, `/v1/batches`): many requests in a file, answered within hours at a lower price."""
