"""Small ICC profiles (ICC.1:2001-04), whose right values a formula gives."""

from __future__ import annotations

import struct

import numpy as np

# sRGB's primaries, adapted to D50; columns X, Y, Z.
PRIMARIES = {
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}
D50 = (0.9642, 1.0, 0.8249)
GAMMA_1 = b"curv" + struct.pack(">III", 0, 0, 0)


def _xyz(values: tuple[float, ...]) -> bytes:
    fixed = [round(value * 65536) for value in values]
    return b"XYZ " + struct.pack(">Iiii", 0, *fixed)


def _text(text: bytes) -> bytes:
    body = b"desc" + struct.pack(">II", 0, len(text) + 1) + text + b"\0"
    return body + bytes(8) + bytes(3 + 67)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(b"test"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50)} | tags
    table, data = b"", b""
    first = 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", first + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    size = first + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def linear_profile(space: str) -> bytes:
    """Levels are linear light: "RGB " with sRGB's primaries, or "GRAY"."""
    if space == "GRAY":
        return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": GAMMA_1})
    tags = {name: _xyz(value) for name, value in PRIMARIES.items()}
    tags |= {name: GAMMA_1 for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def cmyk_profile() -> bytes:
    """Paper is white, black is L* 0, cyan (with magenta or yellow or not) a gray of L* 50."""
    corners = np.zeros((2, 2, 2, 2, 3), dtype=np.uint8)
    corners[..., 0] = 255
    corners[1, ..., 0] = round(0.5 * 255)
    corners[..., 1, 0] = 0
    corners[..., 1:] = 128
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix
    table += straight * 4 + corners.tobytes() + straight * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})
