"""Shared code of the stages that ask a model: messages, re-asks, the loop that runs a stage, and its request plan."""
