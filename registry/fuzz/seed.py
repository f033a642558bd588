#!/usr/bin/env python3
"""Writes first inputs of the fuzz targets: one command of each kind, so that they need not guess lengths."""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent


def text(value):
    return struct.pack("<I", len(value)) + value


def u128(value):
    return value.to_bytes(16, "little")


def head(kind):
    return struct.pack("<BQ", kind, 5)


INSUFFICIENT_FUNDS = 229
BRANCHES = struct.pack("<8H", 1, 2, 0, 0, 0, 0, 0, 0)
COMMANDS = [
    struct.pack("<BBBBHHQ", 1, 1, 0, 2, 0, 0, 5) + u128(9) + BRANCHES,
    struct.pack("<BBBBHHQ", 2, 0, 0, 2, 0, 0, 5) + u128(9) + BRANCHES,
    struct.pack("<BBBBHHQ", 4, 1, 1, 2, 2, INSUFFICIENT_FUNDS, 5) + u128(9) + BRANCHES,
    head(3) + u128(9) + b"\x02" + BRANCHES + text(b"ana") + text(b"why"),
    head(16) + u128(7) + struct.pack("<Q", 100),
    head(17) + struct.pack("<QQ", 1, 2),
    head(18) + struct.pack("<Q", 1) + u128(3) + text(b"a:1"),
    head(19) + struct.pack("<Q", 1),
    head(32) + struct.pack("<H", 1) + u128(3) + text(b"b:1"),
    head(33) + struct.pack("<HB", 1, 3),
    head(34) + u128(9) + b"\x02" + BRANCHES + u128(1 << 112 | 5) + struct.pack("<H", 1),
    head(35) + struct.pack("<HB", 1, 1),
    head(48) + bytes(32) + struct.pack("<I", 1) + text(b"gateway"),
    head(49) + text(b"gateway"),
]


def batch(commands):
    return struct.pack("<QQQII", 1, 2, 3, len(commands), 0) + b"".join(commands)


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


for number, command in enumerate(COMMANDS):
    write("batch", str(number), batch([command]))
write("batch", "all", batch(COMMANDS))
VOTE = struct.pack("<QQB", 3, 1, 1)
LOG_ID = b"\x01" + struct.pack("<QQQ", 3, 1, 4)
ENTRY = struct.pack("<QQQB", 3, 1, 5, 1) + text(batch(COMMANDS[:1]))
write("peer_call", "append", b"\x01" + VOTE + LOG_ID + b"\x00" + struct.pack("<I", 1) + ENTRY)
write("peer_call", "vote", b"\x02" + VOTE + LOG_ID)
write("peer_call", "piece", b"\x03" + struct.pack("<Q", 0) + text(b"piece"))
write("peer_call", "answer", b"\x02" + VOTE + b"\x01\x00")
write("snapshot", "empty", bytes(16 + 4 + 4 + 8 + 4 + 4 + 4 + 8 + 8 + 4 + 4))
