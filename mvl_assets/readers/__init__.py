"""Reads native formats into samples. One module of `formats/` per format; its docstring shows two lines of the bytes.

`registry` finds a format by name, `files` the images and videos that rows name (also in archives), `rows` builds a
sample from a row, `parsers/` read file types, `conversations/` make turns.
"""
