"""What a run of the engine does with its requests: queue, dispatch, retries, quarantine, settling."""
