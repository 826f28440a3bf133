"""Bringing a source's native files into its folder: which files, at which commit, whole and checked.

Belongs here: asking the hub what a repository holds (`hub`), which of it a source needs (`rules`), the lock file
(`lock`), carrying one file over (`transfer`), a source as a whole (`source`), and what is known of it afterwards
(`state`, `archives`, `plan`). Does not: reading the files (`readers/`), anything of Dagster or of the lake.
"""
