"""Training runs seen from outside: folders, commands, process groups, forecasts."""
