"""Pictures and videos that still lie in the archives in which their source is published: tar, tar.gz, zip, in parts.

Nothing of an archive becomes a path on disk. Every archive gets an index of its members (name, place, size) in
`<root>/.unpacked`, made in one pass; a compressed tar is written there once as one plain tar. Members are then read
where they lie. So a member's name can lead nowhere, links and devices are never made, and memory stays flat.

Belongs here: finding and reading members. Not here: which names a row asks for (`files`), what is in them.
"""
