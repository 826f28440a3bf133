"""The client of one endpoint: protocol, transport, faults, state, concurrency limit, and what the server has cached."""
