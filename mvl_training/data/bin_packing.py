"""Which samples share a pack: bin packing of a shard in memory.

Belongs here: the method. Does not: where samples come from and where packs go (`packing`).

The method is a short form of minimum bin slack (Gupta and Ho, Production Planning & Control 10(6), 1999), with the
longest sample fixed in each bin as in MBS' (Fleszar and Hindi, Computers & Operations Research 29(7), 2002): packs are
filled one after another; a pack begins with the longest sample left, and what is left of its room is filled by the
best *pair* of the samples that remain, of which the longer is put in and the search begins anew. The whole search of
MBS is exponential; pairs alone find an exact fill nearly always while there are many different lengths. Best-fit
decreasing, which looks for one sample at a time, cannot see that three middling samples fill a pack together.

A set of lengths is one integer, bit n for length n, so that the longest sample which fits is one look at its bits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from mvl_training.data.token_counts import Member

TRIES = 64
"""Longer partners looked at for a pair. All of them fill by 0.0005 better, at twenty times the work."""


def pack(members: Sequence[Member], length: int, max_tiles: int) -> list[list[Member]]:
    """Packs of at most `length` tokens, each sample in one of them, the pack with the longest sample first.

    No pack exceeds `max_tiles` tiles unless one sample alone does; that one shares its pack with text at most. Equal
    input gives equal packs: ties are broken by the order of `members`. Raises ValueError for a sample longer than
    `length`. Some 5 µs a sample at 8,192 tokens.
    """
    left = _Left(members)
    packs: list[list[Member]] = []
    while longest := left.longest():
        if longest > length:
            raise ValueError(f"a sample of {longest} tokens does not fit into {length}")
        room, tiles, chosen = length, max_tiles, longest
        of_pack: list[Member] = []
        while chosen:
            # The first may have more tiles than a pack should.
            member = left.take(chosen, tiles if of_pack else None)
            of_pack.append(member)
            room -= chosen
            tiles = max(0, tiles - member.counts.tiles)
            chosen = left.best(room, tiles)
        packs.append(of_pack)
    return packs


class _Left:
    """The samples that no pack has yet."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._by_length: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # (tiles, minus place), sorted
        self._lengths = 0
        self._of_tiles: defaultdict[int, int] = defaultdict(int)  # the lengths of the samples with so many tiles
        for place, member in enumerate(members):
            self._by_length[member.counts.tokens].append((member.counts.tiles, -place))
        for length, samples in self._by_length.items():
            samples.sort()
            self._lengths |= 1 << length
            for tiles in {tiles for tiles, _ in samples}:
                self._of_tiles[tiles] |= 1 << length
        self._most_tiles = max(self._of_tiles, default=0)

    def longest(self) -> int:
        """0 when none is left."""
        return self._lengths.bit_length() - 1 if self._lengths else 0

    def take(self, length: int, tiles: int | None) -> Member:
        """The sample of this length with the most tiles of those with at most `tiles` (None: of all): the light ones
        are kept for packs that have many tiles already."""
        samples = self._by_length[length]
        spot = (len(samples) if tiles is None else bisect_left(samples, (tiles, 1))) - 1
        taken, place = samples.pop(spot)
        if not samples:
            self._lengths ^= 1 << length
        if all(other != taken for other, _ in samples[max(0, spot - 1) : spot + 1]):
            self._of_tiles[taken] ^= 1 << length
        return self._members[-place]

    def best(self, room: int, tiles: int) -> int:
        """The length to put into this room next, 0 when nothing fits: the longer of the two that fill it best."""
        fitting = self._within(tiles) & ((2 << room) - 1)
        if not fitting or fitting >> room:
            return fitting.bit_length() - 1 if fitting else 0
        filled = best = fitting.bit_length() - 1
        shortest = (fitting & -fitting).bit_length() - 1
        # Partners of the shortest at most; from the longest down, so that short samples are spent where they are used.
        longer = fitting & ((2 << max(0, room - shortest)) - 1)
        for _ in range(TRIES):
            one = longer.bit_length() - 1
            if 2 * one <= filled:
                break
            two = self._partner(one, room - one, tiles)
            if two and one + two > filled:
                filled, best = one + two, max(one, two)
                if filled == room:
                    break
            longer ^= 1 << one
        return best

    def _partner(self, one: int, room: int, tiles: int) -> int:
        """The longest that fits into `room` beside the lightest sample of length `one`, 0 when none does."""
        samples = self._by_length[one]
        fitting = self._within(tiles - samples[0][0]) & ((2 << room) - 1)
        if fitting >> one == 1 and (len(samples) < 2 or samples[0][0] + samples[1][0] > tiles):
            fitting ^= 1 << one
        return fitting.bit_length() - 1 if fitting else 0

    def _within(self, tiles: int) -> int:
        """The lengths of the samples with at most so many tiles."""
        if tiles >= self._most_tiles:
            return self._lengths
        lengths = 0
        for count, some in self._of_tiles.items():
            if count <= tiles:
                lengths |= some
        return lengths
