"""Studies: what a change of mixture or recipe does, measured over arms and seeds; needs the lake on this machine."""
