"""`mvl view`: a local page over the judged pairs of a lake, to look, filter, compare and label."""
