"""Asking models: requests, the client engine, the shared local server. The only room that speaks HTTP.

Belongs here: request identity, sending, retrying, flow control, the server lease and the fake server that tests use.
Does not belong here: prompt texts, building requests from samples, and reading answers (`rewriting`, `judging`).
"""
