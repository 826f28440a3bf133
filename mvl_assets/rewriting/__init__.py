"""Rewriting: from a sample to a request, from a raw answer to dialogues, and the rows of `rewritten/<category>`.

Prompt wording lives in the prompt files, sending in `inference`, tables in `lake`.
"""
