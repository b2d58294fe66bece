"""What the keys of a snapshot show, in whatever pass sees them all: prefixes, carried configurations, platforms."""

from __future__ import annotations

from snaptool.bolt import numbers
from snaptool.embedded.places import PlaceFinder
from snaptool.etcd import Records, Snapshot
from snaptool.kube.cutting import Paths, Watch
from snaptool.kube.keys import resource_segments
from snaptool.operations.definitions import DefinitionFinder
from snaptool.operations.platform import PlatformFinder
from snaptool.operations.prefixes import PrefixFinder, head_of

_USUAL = ("/registry",)


class Scout:
    """Sees all records once, in order. `given`: prefixes that the user said, in their normal form."""

    def __init__(self, snapshot: Snapshot, given: tuple[str, ...] = ()) -> None:
        self._snapshot = snapshot
        self._given = given
        self.prefixes = PrefixFinder(given)
        self.places = PlaceFinder()
        self.platforms = PlatformFinder()
        self._watch = Watch(snapshot.view, PlaceFinder.heads)
        self._signs = Watch(snapshot.view, PlatformFinder.heads)
        self.definitions = DefinitionFinder()
        self._defines = Watch(snapshot.view, self.definitions.heads)

    def likely(self) -> tuple[str, ...]:
        """Guess the prefixes: those given, or what the first records say. `prefixes` knows in the end."""
        if self._given:
            return self._given
        finder = PrefixFinder()
        cut = Cut(self._snapshot, ())
        for records in self._snapshot.chunks(lambda _: None):
            finder.add(records, *cut.add(records))
            break
        return finder.facts().taken or _USUAL

    def add(self, records: Records, paths: Paths, path_of: memoryview) -> None:
        """Take the records of a chunk. `path_of`: of each, the number of its path in `paths`."""
        self.prefixes.add(records, paths, path_of)
        for row in self._watch.rows(records.key_at, records.key_size, len(records)):
            self.places.take(records, row)
        for row in self._signs.rows(records.key_at, records.key_size, len(records)):
            self.platforms.take(records, row)
        for row in self._defines.rows(records.key_at, records.key_size, len(records)):
            self.definitions.take(records, row)


class Cut:
    """Cuts the paths of resources out of keys, for passes that need no other labels."""

    def __init__(self, snapshot: Snapshot, prefixes: tuple[str, ...]) -> None:
        heads = [head_of(prefix) for prefix in sorted(prefixes, key=len, reverse=True)]
        self._paths = Paths(snapshot.view, heads, resource_segments)
        self._numbers = numbers(0)

    def add(self, records: Records) -> tuple[Paths, memoryview]:
        """Number the paths of a chunk."""
        if len(self._numbers) < records.room:
            self._numbers = numbers(records.room)
        self._paths.cut(records.key_at, records.key_size, len(records), self._numbers)
        return self._paths, self._numbers
