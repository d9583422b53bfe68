"""Read a recording's lines from a file, a pipe or standard input, plain or gzip."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain

from esper_exporter.replay.stop import Waiter

STANDARD_INPUT = "-"

LONGEST_LINE = 16 * 2**20
"""Bytes kept of a line; a longer line is not an event, and the kept part shows that."""

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 16384

OnBytes = Callable[[int], object]
"""Called with the number of bytes read from a file, as on disk."""


class Damaged(Exception):
    """A recording that cannot be read to its end; the lines before that were read."""


class LineSplitter:
    """Splits a byte stream into lines and buffers the last one until its end arrives."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines, without their ends, that ``data`` completes."""
        *ended, rest = data.split(b"\n")
        if ended:
            self._hold(ended[0])
            ended[0] = self.take()
            ended = [line[:LONGEST_LINE] for line in ended]
        self._hold(rest)
        return ended

    def take(self) -> bytes:
        """Take the unfinished line out of the buffer."""
        line = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return line

    def _hold(self, part: bytes) -> None:
        kept = part[: LONGEST_LINE - self._size]
        if kept:
            self._parts.append(kept)
            self._size += len(kept)


def read_lines(name: str, waiter: Waiter, on_bytes: OnBytes) -> Generator[bytes]:
    """The lines of a file, or of standard input for ``-``, until its end or a stop request.

    The content, not the name, decides about compression. The last line needs no line end.
    Raises Damaged when the file cannot be read to its end.
    """
    splitter = LineSplitter()
    try:
        with _opened(name) as descriptor:
            for data in _decoded(_pieces(descriptor, waiter, on_bytes)):
                yield from splitter.feed(data)
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error
    except Damaged:
        # A stream that the reader left early is not damaged.
        if waiter.stopping:
            return
        raise
    if last := splitter.take():
        yield last


@contextmanager
def _opened(name: str) -> Iterator[int]:
    if name == STANDARD_INPUT:
        yield 0
        return
    # Opening a named pipe without a writer would block here and miss a stop request.
    flags = os.O_NONBLOCK if stat.S_ISFIFO(os.stat(name).st_mode) else 0
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, waiter: Waiter, on_bytes: OnBytes) -> Iterator[bytes]:
    """The content of a file, in pieces as they become available."""
    while not waiter.wait(None, descriptor):
        try:
            piece = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            continue
        if not piece:
            return
        on_bytes(len(piece))
        yield piece


def _decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, decompressed if they are gzip."""
    first = next(pieces, b"")
    if len(first) == 1:
        first += next(pieces, b"")
    everything = chain((first,), pieces)
    return _unzipped(everything) if first.startswith(_GZIP_MAGIC) else everything


def _unzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of one or several consecutive gzip streams.

    Raises Damaged where the last stream is truncated or one cannot be decoded.
    """
    stream: zlib._Decompress | None = None
    for piece in pieces:
        while piece:
            if stream is None:
                piece = piece.lstrip(b"\0")  # padding between streams and after the last
                if not piece:
                    break
                stream = zlib.decompressobj(wbits=31)
            before = stream.copy()
            try:
                content = stream.decompress(piece)
            except zlib.error as error:
                yield _sound_part(before, piece)
                raise Damaged(f"its gzip data is damaged ({error})") from error
            yield content
            piece = stream.unused_data
            if stream.eof:
                stream = None
    if stream is not None:
        raise Damaged("it ends in the middle of its gzip data")


def _sound_part(stream: zlib._Decompress, data: bytes) -> bytes:
    """The content of ``data`` before the first byte that cannot be decoded."""
    content = bytearray()
    try:
        for byte in data:
            content += stream.decompress(bytes((byte,)))
    except zlib.error:
        pass
    return bytes(content)
