"""Queries across the lake's tables that know what the rows mean."""
