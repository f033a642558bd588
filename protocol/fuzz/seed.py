#!/usr/bin/env python3
"""Writes the golden messages as first inputs of the fuzz targets, so that they need not guess lengths."""

import pathlib
import re

HERE = pathlib.Path(__file__).parent


def golden(folder):
    for path in sorted((HERE / "../tests/golden" / folder).glob("*.hex")):
        text = re.sub(r"#.*", "", path.read_text())
        yield path.stem, bytes.fromhex("".join(text.split()))


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


stream = b""
for name, frame in golden("."):
    stream += frame
    # The targets read two bytes of message type, then the body.
    for target in ("request_decode", "reply_decode"):
        write(target, name, frame[4:6] + frame[40:])
    write("frame_split", name, b"\x40\x00" + frame)
for name, frame in golden("link"):
    write("link_decode", name, frame[4:6] + frame[40:])
write("frame_split", "all", b"\x00\x04" + stream)
for number, text in enumerate(["0", "12.34", "1200", "1.234", "184467440737095516.15", "18446744073709551615"]):
    write("amount_text", str(number), (977).to_bytes(2, "little") + text.encode())
