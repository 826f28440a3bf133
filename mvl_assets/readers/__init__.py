"""Native formats in, samples out. One small module per format; each docstring shows two lines of the format.

A reader is a generator function `(source, root) -> Iterator[Sample | Broken]`. It opens files below `root` only, holds
one row at a time, never decodes pixels and never writes. A row it cannot read is yielded as `RejectedRow`, not raised.
"""
