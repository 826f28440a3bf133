"""Fetching a source's native files: which files, at which commit, complete and checked.

`hub` asks what a repository holds, `rules` selects what a source needs, `lock` stores the selection, `transfer`
downloads one file, `source` a source as a whole; `state` records what was fetched, `overview` describes it, `retention`
removes it after ingest, `plan` estimates sizes.
"""
