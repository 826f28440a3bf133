"""Images and videos read from the archives in which their source is published: tar, tar.gz, zip, also in parts.

No member of an archive becomes a path on disk. Every archive gets an index of its members (name, offset, size) in
`<root>/.unpacked`, made in one pass; a compressed tar is written there once as one plain tar. Members are then read in
place. So a member's name cannot lead out of the folder, links and devices are never created, and memory stays flat.
"""
