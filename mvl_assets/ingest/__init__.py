"""From a source's files to rows of the lake: images, samples, rejects and the category tables."""
