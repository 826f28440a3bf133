"""Small raw data sets in the sources' native formats and folder layouts: the pipeline runs without a network.

Images are drawn with true answers derived from what was drawn, or are photos that ship inside scikit-image, with our
own captions. `write.write_demo_sources` writes folders; `drawings.questions.iter_shape_questions` yields images with
questions that a tiny model can learn. `drawings` has one module per kind of content, `layouts` the native formats,
`recipes` the sources, `rows` the invalid rows.
"""
