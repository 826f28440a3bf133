"""The client of one endpoint: protocol, transport, faults, state, concurrency limit, and the server's image cache."""
