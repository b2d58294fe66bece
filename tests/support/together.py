"""Values side by side in one buffer, as in a file, opened and sealed many at a time."""

from __future__ import annotations

from array import array
from itertools import accumulate
from types import ModuleType

from snaptool.providers import values
from snaptool.providers.keyring import Chain
from snaptool.providers.provider import Entropies
from snaptool.providers.values import Sealed, Values, words


def side_by_side(listed: list[tuple[bytes, bytes]], way: ModuleType = values) -> tuple[Values, memoryview]:
    """Values and their contexts in one buffer, as in a file, and the rows of all of them, last one first."""
    parts = [part for value in listed for part in value]
    ends = [0, *accumulate(map(len, parts))]
    at, size, key_at, key_size = words(len(listed)), words(len(listed)), words(len(listed)), words(len(listed))
    for row in range(len(listed)):
        at[row], size[row] = ends[2 * row], len(parts[2 * row])
        key_at[row], key_size[row] = ends[2 * row + 1], len(parts[2 * row + 1])
    found: Values = way.Values(memoryview(b"".join(parts)))
    rows = memoryview(array("q", reversed(range(len(listed)))))
    found.begin(at, size, key_at, key_size, rows)
    return found, rows


def sealed_together(
    chain: Chain, plaintexts: list[bytes], contexts: list[bytes], entropy: Entropies, way: ModuleType = values
) -> list[bytes]:
    """The stored values of all, half of them read from the file and half as if they had been opened before."""
    together, rows = side_by_side(list(zip(plaintexts, contexts, strict=True)), way)
    together.ask(rows, [])
    together.open_plain(rows)
    for row, plaintext in enumerate(plaintexts):
        if row % 2 or plaintext.startswith(b"k8s:enc:"):
            together.put(row, plaintext)
    sealed: Sealed = way.Sealed()
    sealed.begin(len(plaintexts))
    in_order = memoryview(array("q", range(len(plaintexts))))
    chain.seal_many(together, in_order, entropy, sealed)
    return [bytes(sealed.value(row)) for row in range(len(plaintexts))]
