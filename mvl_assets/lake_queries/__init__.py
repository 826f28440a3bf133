"""Queries across tables that know what the rows mean, and removal of data: purge and garbage collection."""
