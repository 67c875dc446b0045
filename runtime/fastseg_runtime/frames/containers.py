"""Video files that play wherever their writing ended: Motion JPEG, a time for every picture.

A picture is written at once, as a fragment of its own: a process that is killed loses none.
finish() adds what players seek by. Layouts: ISO/IEC 14496-12 and -14 (MP4, MOV), RFC 9559
(Matroska), Microsoft's "AVI RIFF File Reference".
"""

import errno
import logging
import struct
from array import array
from pathlib import Path
from typing import IO, Tuple

log = logging.getLogger(__name__)
_MATRIX = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)  # upright
# Descriptors of an elementary stream: 0x6C is JPEG, 0x11 a visual one.
_JPEG_STREAM = bytes.fromhex("0315000000 040D6C11000000 0000000000000000 060102")
# Of one picture in .mp4: 13 hours, in which a camera may have been off. FFmpeg takes this for -1,
# and a gap as long as this or longer is cut to what any reader takes, 6.6 hours.
_MOST_TICKS, _CUT_TICKS = 2**32 - 1, 2**31 - 1
_MOST_EMPTY = 1_000_000  # pictures in a gap of an .avi: 11 hours at 25 FPS, 24 MB
_AVI_BYTES = (1 << 32) - (1 << 26)  # sizes have 32 bits; room for the index
_FIRST_BOXES = (b"ftyp", b"free", b"mdat", b"moov", b"skip", b"wide")
# At the outermost level: ISO/IEC 14496-12, table 1, and QuickTime's; of RIFF, those of AVI.
_BOXES = (
    *_FIRST_BOXES,
    *(b"moof", b"mfra", b"sidx", b"ssix", b"styp", b"uuid", b"pdin", b"meta", b"emsg", b"prft"),
    *(b"udta", b"pnot"),
)
_CHUNKS = (b"RIFF", b"LIST", b"JUNK", b"idx1")
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7  # of an EBML element that goes on to the end of the file


class _Container:
    """A file that grows, and where and when its pictures are.

    Args:
        file: empty, unbuffered, can seek.
        size: width, height of all pictures.
        fps: the usual rate; times may differ from it.
    """

    def __init__(self, file: IO[bytes], size: Tuple[int, int], fps: float) -> None:
        self._file, self._size, self._fps = file, size, fps
        self.end = 0  # of what is whole; an interrupted write may have left something behind it
        self._ticks, self._offsets, self._lengths = array("Q"), array("Q"), array("L")

    def _append(self, content: bytes) -> None:
        self._file.seek(self.end)
        rest = memoryview(content)
        while rest:  # an unbuffered file may take a part
            rest = rest[self._file.write(rest) :]
        self.end += len(content)

    def _patch(self, offset: int, content: bytes) -> None:
        self._file.seek(offset)
        self._file.write(content)

    def _note(self, tick: int, offset: int, length: int) -> None:
        self._ticks.append(tick)
        self._offsets.append(offset)
        self._lengths.append(length)


class Mp4(_Container):
    """Fragmented MP4 or MOV; finish() hides the fragments in a box of data with one index."""

    ticks_per_s = 90_000.0  # holds 24, 25, 29.97, 30 and 60 FPS exactly

    def __init__(self, file: IO[bytes], size: Tuple[int, int], fps: float, brand: bytes) -> None:
        super().__init__(file, size, fps)
        self._brand = brand
        self._append(_box(b"ftyp", brand, bytes(4), brand, b"iso5"))
        self._hidden = self.end  # where a box of 16 bytes waits to become the box of data
        self._append(_box(b"free", bytes(8)))
        extends = _full(b"trex", 0, struct.pack(">5I", 1, 1, self._usual, 0, 0))
        empty = (_count(b"stts"), _count(b"stsc"), _full(b"stsz", 0, bytes(8)), _count(b"stco"))
        self._append(self._movie(0, *empty, extends=_box(b"mvex", extends)))

    @property
    def _usual(self) -> int:
        return max(1, round(self.ticks_per_s / self._fps))

    def add(self, tick: int, jpeg: bytes) -> None:
        """Append a picture that is shown from a time on."""
        fragment = self._fragment(tick, len(jpeg), 0)
        fragment = self._fragment(tick, len(jpeg), len(fragment) + 8)
        self._append(fragment + struct.pack(">I4s", len(jpeg) + 8, b"mdat") + jpeg)
        self._note(tick, self.end - len(jpeg), len(jpeg))

    def finish(self) -> None:
        """Add the index; may be repeated where it was interrupted."""
        end, count = self.end, len(self._ticks)
        gaps = [after - tick for tick, after in zip(self._ticks, self._ticks[1:])]
        shown = [gap if gap < _MOST_TICKS else _CUT_TICKS for gap in gaps] + [self._usual]
        if max(gaps, default=0) >= _MOST_TICKS:
            log.warning("%s: a gap of more than 13 hours is cut to 6.6; .mkv keeps the times",
                        self._file.name)  # fmt: skip
        runs = array("L")
        for ticks in shown:
            if runs and runs[-1] == ticks:
                runs[-2] += 1
            else:
                runs.extend((1, ticks))
        tables = (
            _count(b"stts", len(runs) // 2, _big(runs, "I")),
            _count(b"stsc", 1, struct.pack(">3I", 1, 1, 1)),
            _full(b"stsz", 0, struct.pack(">2I", 0, count), _big(self._lengths, "I")),
            _count(b"co64", count, _big(self._offsets, "Q")),
        )
        self._append(self._movie(sum(shown), *tables))
        self._patch(self._hidden, struct.pack(">I4sQ", 1, b"mdat", end - self._hidden))

    def _fragment(self, tick: int, length: int, data_offset: int) -> bytes:
        run = struct.pack(">4I", 1, data_offset, self._usual, length)
        header = _full(b"mfhd", 0, struct.pack(">I", len(self._ticks) + 1))
        track = _box(
            b"traf",
            _full(b"tfhd", 0x020000, struct.pack(">I", 1)),  # offsets from this fragment on
            _full(b"tfdt", 1 << 24, struct.pack(">Q", tick)),
            _full(b"trun", 0x000301, run),  # with data offset, duration and size
        )
        return _box(b"moof", header, track)

    def _movie(self, ticks: int, *tables: bytes, extends: bytes = b"") -> bytes:
        width, height = self._size
        clock = struct.pack(">16xIQ", int(self.ticks_per_s), ticks)
        kind, stream = b"jpeg", b""
        if self._brand != b"qt  ":
            kind, stream = b"mp4v", _full(b"esds", 0, _JPEG_STREAM)
        entry = struct.pack(
            ">6xH16x2H2I4xH32x2H", 1, width, height, 72 << 16, 72 << 16, 1, 24, 65535
        )
        media = _box(
            b"minf",
            _full(b"vmhd", 1, bytes(8)),
            _box(b"dinf", _count(b"dref", 1, _full(b"url ", 1))),
            _box(b"stbl", _count(b"stsd", 1, _box(kind, entry, stream)), *tables),
        )
        media = _box(
            b"mdia",
            _full(b"mdhd", 1 << 24, clock, struct.pack(">2H", 0x55C4, 0)),  # no language
            _full(b"hdlr", 0, bytes(4), b"vide", bytes(13)),
            media,
        )
        sides = struct.pack(">2I", width << 16, height << 16)
        placed = struct.pack(">16xI4xQ16x", 1, ticks)
        track = _box(b"trak", _full(b"tkhd", 1 << 24 | 3, placed, _MATRIX, sides), media)
        start = struct.pack(">IH10x", 1 << 16, 1 << 8)  # usual speed and volume
        header = _full(b"mvhd", 1 << 24, clock, start, _MATRIX, bytes(24), struct.pack(">I", 2))
        return _box(b"moov", header, track, extends)


class Mkv(_Container):
    """Matroska with a cluster for each picture."""

    ticks_per_s = 100_000.0

    def __init__(self, file: IO[bytes], size: Tuple[int, int], fps: float) -> None:
        super().__init__(file, size, fps)
        versions = _element("4287", b"\4") + _element("4285", b"\2")
        self._append(_element("1A45DFA3", _element("4282", b"matroska") + versions))
        self._segment = self.end + 4
        self._append(bytes.fromhex("18538067") + _UNKNOWN_SIZE)
        self._room = self.end  # for what says where the index is
        self._append(_element("EC", bytes(len(_seek(0)) - 9)))
        head = _element("2AD7B1", _number(round(1e9 / self.ticks_per_s)))
        head += _element("4D80", b"fastseg") + _element("5741", b"fastseg")
        info = _element("1549A966", head + _element("4489", bytes(8)))
        self._append(info)
        self._duration = self.end - 8
        video = _element("E0", _element("B0", _number(size[0])) + _element("BA", _number(size[1])))
        track = _element("D7", b"\1") + _element("73C5", b"\1") + _element("83", b"\1")
        track += _element("9C", b"\0") + _element("86", b"V_MJPEG")
        track += _element("23E383", _number(round(1e9 / fps)))
        self._append(_element("1654AE6B", _element("AE", track + video)))

    def add(self, tick: int, jpeg: bytes) -> None:
        """Append a picture that is shown from a time on."""
        start = self.end
        block = _element("A3", b"\x81\0\0\x80" + jpeg)  # of track 1, at the cluster's time
        self._append(_element("1F43B675", _element("E7", _number(tick)) + block))
        if not self._ticks or tick >= self._ticks[-1] + self.ticks_per_s:
            self._note(tick, start, len(jpeg))  # in the index: one a second
        self._last = tick

    def finish(self) -> None:
        """Add the index; may be repeated where it was interrupted."""
        base, cues, index = self._segment + 8, self.end, bytearray()
        for tick, offset in zip(self._ticks, self._offsets):
            place = _element("F7", b"\1") + _element("F1", _number(offset - base))
            index += _element("BB", _element("B3", _number(tick)) + _element("B7", place))
        self._append(_element("1C53BB6B", bytes(index)))
        self._patch(self._room, _seek(cues - base))
        shown = self._last + self.ticks_per_s / self._fps
        self._patch(self._duration, struct.pack(">d", shown))
        self._patch(self._segment, struct.pack(">Q", 1 << 56 | (self.end - base)))


class Avi(_Container):
    """AVI, which knows one rate alone: in gaps are empty pictures, which show the last one."""

    def __init__(self, file: IO[bytes], size: Tuple[int, int], fps: float) -> None:
        super().__init__(file, size, fps)
        self.ticks_per_s = fps
        self._append(self._head(0))
        self._data = self.end - 4
        self._left_out = 0  # ticks, of gaps that are too long

    def add(self, tick: int, jpeg: bytes) -> None:
        """Append a picture that is shown from a time on."""
        tick -= self._left_out
        too_many = tick - self._ticks[-1] - 1 - _MOST_EMPTY if self._ticks else 0
        if too_many > 0:
            log.warning("%s: a gap of an .avi is a picture each 1/%g s, and is cut to %d; .mkv "
                        "keeps the times", self._file.name, self._fps, _MOST_EMPTY)  # fmt: skip
            self._left_out += too_many
            tick -= too_many
        if self._ticks and self._ticks[-1] + 1 < tick:
            self._add_empty(range(self._ticks[-1] + 1, tick))
        self._check_room(len(jpeg))
        self._note(tick, self.end, len(jpeg))
        self._append(_chunk(b"00dc", jpeg))

    def finish(self) -> None:
        """Add the index; may be repeated where it was interrupted."""
        data_bytes = self.end - self._data
        index = b"".join(
            struct.pack("<4s3I", b"00dc", 16 if length else 0, offset - self._data, length)
            for offset, length in zip(self._offsets, self._lengths)
        )
        self._append(_chunk(b"idx1", index))
        self._patch(0, self._head(data_bytes))

    def _add_empty(self, ticks: range) -> None:
        """Append empty pictures, all in one write: one each stalls a camera for minutes."""
        start, empty = self.end, _chunk(b"00dc", b"")
        size = len(empty) * len(ticks)
        self._check_room(size)
        self._append(empty * len(ticks))
        self._ticks.extend(ticks)
        self._offsets.extend(range(start, start + size, len(empty)))
        self._lengths.extend(bytes(len(ticks)))

    def _check_room(self, more_bytes: int) -> None:
        if self.end + more_bytes > _AVI_BYTES:
            raise OSError(errno.EFBIG, "an .avi holds 4 GB, .mkv and .mp4 any size")

    def _head(self, data_bytes: int) -> bytes:
        (width, height), count = self._size, len(self._ticks)
        main = (round(1e6 / self._fps), 0, 0, 0x10, count, 0, 1, 0, width, height)  # 0x10: indexed
        rate = (1000, round(self._fps * 1000), 0, count, 0, 2**32 - 1, 0)
        usual = struct.pack("<4s4s12x7I4H", b"vids", b"MJPG", *rate, 0, 0, width, height)
        form = struct.pack("<3I2H4sI16x", 40, width, height, 1, 24, b"MJPG", width * height * 3)
        stream = _chunk(b"LIST", b"strl" + _chunk(b"strh", usual) + _chunk(b"strf", form))
        main_chunk = _chunk(b"avih", struct.pack("<10I16x", *main))
        head = _chunk(b"LIST", b"hdrl" + main_chunk + stream)
        riff = struct.pack("<4sI4s", b"RIFF", max(self.end - 8, 0), b"AVI ")
        return riff + head + struct.pack("<4sI4s", b"LIST", data_bytes, b"movi")


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _full(kind: bytes, version_and_flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version_and_flags), *parts)


def _count(kind: bytes, count: int = 0, *entries: bytes) -> bytes:
    return _full(kind, 0, struct.pack(">I", count), *entries)


def _big(values: "array[int]", code: str) -> bytes:
    return struct.pack(f">{len(values)}{code}", *values)


def _element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + struct.pack(">Q", 1 << 56 | len(content)) + content


def _number(value: int) -> bytes:
    return struct.pack(">Q", value)


def _seek(offset: int) -> bytes:
    """Return the element that says where the index is."""
    index = _element("53AB", bytes.fromhex("1C53BB6B")) + _element("53AC", _number(offset))
    return _element("114D9B74", _element("4DBB", index))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2)


def missing_bytes(path: Path) -> int:
    """Return how much a file lacks of what its headers announce; 0 where they do not say."""
    with path.open("rb") as file:
        there, end = path.stat().st_size, 0
        head = file.read(12)
        is_mp4, is_riff = head[4:8] in _FIRST_BOXES, head[:4] == b"RIFF"
        if head[:4] == bytes.fromhex("1A45DFA3"):  # EBML: a header, then one Segment with all else
            file.seek(4)
            end = _ebml_size(file) + file.tell()
            if end <= there:  # beyond it a place may be one that no file can have
                file.seek(end + 4)
                end = _ebml_size(file) + file.tell()
        while (is_mp4 or is_riff) and end < there:
            file.seek(end)
            head = file.read(16)
            is_known = head[4:8] in _BOXES if is_mp4 else head[:4] in _CHUNKS
            if len(head) < 8 or not is_known:
                return 0  # a trailer, as some cameras write one
            size = struct.unpack_from(">I" if is_mp4 else "<4xI", head)[0]
            size = size if is_mp4 else size + 8 + size % 2 if size else 0
            if is_mp4 and size == 1 and len(head) == 16:
                size = struct.unpack_from(">8xQ", head)[0]
            if size < 8:  # up to the end of the file
                return 0
            end += size
    return max(0, end - there)


def _ebml_size(file: IO[bytes]) -> int:
    """Read the size of an element; one that is unknown is 0."""
    first = (file.read(1) or b"\1")[0]
    length = 8 - first.bit_length() if first else 7  # bytes after the first
    rest = int.from_bytes(file.read(length), "big")
    size, most = (first & (1 << 7 - length) - 1) << 8 * length | rest, (1 << 7 * (length + 1)) - 1
    return 0 if size == most else size
