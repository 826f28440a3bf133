"""Tables as declared: columns, their descriptions, upgrades and checks."""
