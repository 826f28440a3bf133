"""Scheduling of the requests of one engine run: queue, dispatch, retries, quarantine, settling."""
