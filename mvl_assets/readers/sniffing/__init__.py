"""Looks at files of unknown form and proposes the field map that reads them (`mvl sources sniff`).

`listing` lists the files, `record_files` finds those that hold records and how, `fields` says which field is what,
`images` finds the images that records name, `propose` puts the map together and reads the first rows with it.
"""
