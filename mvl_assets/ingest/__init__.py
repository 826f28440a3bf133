"""From a source's files to rows of the lake: pictures, samples and rejects; then the category tables."""
