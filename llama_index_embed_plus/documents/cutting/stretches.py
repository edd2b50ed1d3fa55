"""Units -> stretches of them, each of which becomes a passage: the best of all ways to cut.

A way costs something for each stretch, more for a short one, and gains what its places are worth; the cheapest is found
as a shortest path. A number that follows from the text around a place decides among equal ones. So behind an
insertion the way soon meets the one that was there before.

Guarantees: a stretch and what stands in front of it have at most the tokens that fit, by the sum of its units, and its
units at least the fewest, if units are small enough for that; constant memory. Does not know: what units are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from llama_index_embed_plus.documents.cutting.sentences import spread
from llama_index_embed_plus.documents.cutting.tokens import TokenCounter
from llama_index_embed_plus.documents.cutting.units import Unit

__all__ = ["Front", "Limits", "Stretch", "best_stretches"]

PATH_SEPARATOR = " > "
_SETTLED_EVERY = 128
_LOOK_AHEAD = 4096
"""Units after which the best way so far is taken, if several are still open."""
_TOO_SHORT = 1000.0
_STRETCH, _SHORTNESS = 1.0, 4.0
_CHANCE = 2.0
"""What the number drawn from the text may weigh: with 1, an insertion changes twice as many passages behind it."""
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Limits:
    """Tokens of a stretch: its own at least, and with what stands in front of it at most."""

    least: int
    most: int


@dataclass(frozen=True)
class Stretch:
    """The units of a passage, and what stands in front of them."""

    units: list[Unit]
    context: str = ""
    overlap: tuple[Unit, ...] = ()
    header: str = ""

    @property
    def text(self) -> str:
        units = [*self.overlap, *self.units]
        own = units[0].text + "".join(unit.glue + unit.text for unit in units[1:])
        if self.header:
            own = f"{self.header}\n{own}"
        return f"{self.context}\n\n{own}" if self.context else own

    def cut_in_two(self, front: Front, least: int) -> list[Stretch]:
        """Cut at the best place that leaves both halves long enough, or near the middle."""
        tokens = [unit.tokens for unit in self.units]

        def rank(place: int) -> tuple[float, float]:
            shorter = min(sum(tokens[:place]), sum(tokens[place:]))
            return min(shorter, least), _worth(self.units[place - 1], self.units[place])

        place = max(range(1, len(self.units)), key=rank)
        before, after = self.units[:place], self.units[place:]
        return [Stretch(before, self.context, self.overlap, self.header), front.stretch(after, before)]


@dataclass(frozen=True)
class Front:
    """What stands in front of a stretch: the path of its headings, the end of the one before, the header of its table.

    `context` and `overlap`: their most tokens; `most`: that of all together.
    """

    counter: TokenCounter
    context: int
    overlap: int
    most: int
    _tokens: dict[str, int] = field(default_factory=dict)
    _paths: dict[tuple[str, ...], str] = field(default_factory=dict)

    def size(self, text: str) -> int:
        """The tokens of a text that comes again and again."""
        if not text:
            return 0
        if text not in self._tokens:
            if len(self._tokens) >= _REMEMBERED:
                self._tokens.clear()
            self._tokens[text] = self.counter.count([text])[0]
        return self._tokens[text]

    def path(self, first: Unit) -> str:
        """The headings above a unit that it does not begin with, without the outermost if they are too long."""
        headings = first.block.headings
        if headings and first.text.startswith(headings[-1]):
            headings = headings[:-1]
        if not self.context or not headings:
            return ""
        if headings not in self._paths:
            if len(self._paths) >= _REMEMBERED:
                self._paths.clear()
            shorter = (PATH_SEPARATOR.join(headings[start:]) for start in range(len(headings)))
            self._paths[headings] = next((path for path in shorter if self.size(path) <= self.context), "")
        return self._paths[headings]

    def stretch(self, units: list[Unit], before: list[Unit]) -> Stretch:
        """A stretch with what stands in front of it; `before`: the units of the one before."""
        first = units[0]
        overlap = self.repeated(first, before)
        context = self.path(first)
        room = self.most - self.size(context) - sum(unit.tokens for unit in overlap)
        header = first.header if self.size(first.header) <= room else ""
        return Stretch(units, context, overlap, header)

    def repeated(self, first: Unit, before: list[Unit]) -> tuple[Unit, ...]:
        """The last whole sentences before a unit, below the same heading."""
        tokens = start = 0
        if self.overlap and not first.header and first.block.kind != "heading":
            for count, unit in enumerate(reversed(before), 1):
                tokens += unit.tokens
                if (
                    tokens > self.overlap
                    or unit.block.headings != first.block.headings
                    or unit.block.kind not in ("text", "item")
                ):
                    break
                start = count if unit.begins else start
        return tuple(before[len(before) - start :])

    def tokens(self, first: Unit, before: list[Unit]) -> int:
        """How many tokens stand in front of a stretch that begins with a unit."""
        if not (self.context or self.overlap or first.header):
            return 0
        stretch = self.stretch([first], before)
        own = sum(unit.tokens for unit in stretch.overlap)
        return self.size(stretch.context) + self.size(stretch.header) + own


def best_stretches(batches: Iterable[list[Unit]], front: Front, limits: Limits) -> Iterator[Stretch]:
    """Yield the stretches of the best way, as soon as it is known."""
    road, before = _Road(front, limits), list[Unit]()
    for batch in batches:
        for unit in batch:
            road.add(unit)
            if len(road.units) % _SETTLED_EVERY == 0:
                for units in road.settled():
                    yield front.stretch(units, before)
                    before = units
    for units in road.rest():
        yield front.stretch(units, before)
        before = units


class _Road:
    """The shortest paths to all places so far. Place k is before unit k; the last is the end."""

    def __init__(self, front: Front, limits: Limits) -> None:
        self.front, self.limits = front, limits
        newline = max(0, front.counter.count(["a\n\na"])[0] - 2 * front.counter.count(["a"])[0])
        self._glue = {"": 0, "\n\n": newline, "\n": newline}
        self._begin([])

    def _begin(self, units: list[Unit]) -> None:
        self.units: list[Unit] = []
        self._ends = [0]
        self._glues: list[int] = []
        self._front: list[int] = []
        self._costs = [0.0]
        self._backs = [0]
        for unit in units:
            self.add(unit)

    def add(self, unit: Unit) -> None:
        """Go on by a unit."""
        if self.units:
            self._reach(_worth(self.units[-1], unit))
        self._front.append(self.front.tokens(unit, self.units))
        self.units.append(unit)
        self._glues.append(self._glue.get(unit.glue, 0))
        self._ends.append(self._ends[-1] + self._glues[-1] + unit.tokens)

    def _reach(self, worth: float) -> None:
        """Find the best way to the place behind the last unit."""
        here = len(self.units)
        end, least, most = self._ends[here], self.limits.least, self.limits.most
        best, back = float("inf"), here - 1
        for start in range(here - 1, -1, -1):
            own = end - self._ends[start] - self._glues[start]
            if own > most and start < here - 1:
                break
            whole = own + self._front[start]
            if whole > most and start < here - 1:
                continue
            short = max(0.0, 1 - whole / most)
            cost = self._costs[start] + _STRETCH + _SHORTNESS * short * short
            if own < least:
                cost += _TOO_SHORT * (least - own)
            if cost < best:
                best, back = cost, start
        self._costs.append(best - worth)
        self._backs.append(back)

    def settled(self) -> list[list[Unit]]:
        """Take the stretches that all open ways have in common off the road."""
        here, open_ = len(self.units), set[int]()
        for start in range(here - 1, -1, -1):
            if self._ends[here] - self._ends[start] > self.limits.most and open_:
                break
            open_.add(start)
        if here >= _LOOK_AHEAD:
            cheapest = min(open_, key=self._costs.__getitem__)
            open_ = {max(place for place in self._way(cheapest) if place <= here // 2 or place == cheapest)}
        while len(open_) > 1:
            last = max(open_)
            open_.remove(last)
            open_.add(self._backs[last])
        return self._taken(open_.pop())

    def rest(self) -> list[list[Unit]]:
        """Take all that is left off the road."""
        if self.units:
            self._reach(0.0)
        return self._taken(len(self.units))

    def _way(self, place: int) -> list[int]:
        way = [place]
        while way[-1]:
            way.append(self._backs[way[-1]])
        return way

    def _taken(self, place: int) -> list[list[Unit]]:
        way = self._way(place)[::-1]
        taken = [self.units[start:end] for start, end in zip(way, way[1:])]
        if taken:
            self._begin(self.units[place:])
        return taken


def _worth(before: Unit, after: Unit) -> float:
    """How good the place between two units is."""
    return after.strength + _CHANCE * spread(f"{before.text[-24:]}|{after.text[:24]}")
