"""Pieces of a source, made of chunks that are at hand."""

from __future__ import annotations

from collections.abc import Sequence

from snaptool.bolt import BucketWriter, Chunk
from snaptool.bolt.building import Piece
from snaptool.providers.values import words


def piece_of(
    chunk: Chunk,
    first: int = 0,
    last: int | None = None,
    *,
    whole: Sequence[int] | None = None,
    action: Sequence[int] | None = None,
) -> Piece:
    """Some leaves of a chunk, all with their records; carried over whole unless `whole` says something else."""
    last = chunk.leaves if last is None else last
    return Piece(
        chunk.leaf_page[first:last],
        chunk.leaf_span[first:last],
        memoryview(bytearray([1] * (last - first) if whole is None else whole)),
        (chunk.leaf_start[first:last], chunk.leaf_start[first + 1 : last + 1]),
        chunk,
        memoryview(bytearray(len(chunk) if action is None else action)),
    )


def put(out: BucketWriter, data: bytes, piece: Piece, page_size: int) -> None:
    """Write a piece in which no record changes."""
    at, none = words(2), words(0)
    at[1] = -1
    assert not out.put_piece(memoryview(data), piece, page_size, (none, none), (memoryview(b""), none, none), at)
    assert at.tolist() == [len(piece.page), -1]
