"""Sending requests to models: request identity, the engine, the shared local server, and fake servers for tests.

`engine.answer_all` is the entry point. Prompts, building requests from samples, and reading answers are elsewhere.
"""
