"""Runs tasks on processes of this machine or on a Ray cluster."""
