"""Small raw data sets in the sources' native formats and folder layouts: the road runs with no network after install.

Pictures are drawn with true answers derived from what was drawn, or are photos that ship inside scikit-image with
captions of our own. Ask `write.write_demo_sources` for folders, `questions.iter_shape_questions` for pictures with questions
a tiny model can learn. One module per kind of content, `formats` for the folders, `faults` for the broken rows.
"""
