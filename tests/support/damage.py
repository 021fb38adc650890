"""Random damage to the bytes of a file: what a bad disk, a broken copy, or a stranger with a hex editor makes of it."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from random import Random
from typing import Any

HEADER = 512  # bytes at the start, where most formats say what follows
MOST_CHANGES = 4
GZIP = b"\x1f\x8b"
INTEGERS = (0, 1, -1, 2, 127, 255, 2**15 - 1, -(2**15), 2**31 - 1, -(2**31), 2**62)
FLOATS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))
WORDS = ("", "x", "../x", "/tmp/x", "a\0b", "\x1b[2J", "9" * 400, "label", "nan", "é" * 200)
VALUES: tuple[Any, ...] = (*INTEGERS, *FLOATS, *WORDS, 10**30, True, None, [], {}, [[]], [0] * 1000, {"a": {"b": 1}})


def damaged(content: bytes, random: Random) -> bytes:
    """The content with something wrong in it; what is inside a gzip file is damaged two times out of three."""
    if content.startswith(GZIP) and random.random() < 2 / 3:
        return gzip.compress(damaged(gzip.decompress(content), random), 1)
    if random.random() < 1 / 2 and (other := _damaged_json(content, random)) is not None:
        return other
    changed = bytearray(content)
    for _ in range(random.randint(1, MOST_CHANGES)):
        random.choice((_flip, _number, _number, _cut, _insert, _repeat, _blank))(changed, random)
    return bytes(changed)


def _damaged_json(content: bytes, random: Random) -> bytes | None:
    """JSON with one value, key or entry changed; None where the content is no JSON."""
    try:
        document = json.loads(content)
    except ValueError:
        return None
    inner = document
    while isinstance(inner, dict | list) and inner:
        key = random.choice(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
        if not isinstance(inner[key], dict | list) or not inner[key] or random.random() < 1 / 4:
            _change_entry(inner, key, random)
            break
        inner = inner[key]
    return json.dumps(document, allow_nan=True).encode()


def _change_entry(inner: Any, key: Any, random: Random) -> None:
    kind = random.randrange(6)
    if kind == 0:
        del inner[key]
    elif kind == 1 and isinstance(inner, dict):
        inner[random.choice(WORDS)] = inner.pop(key)
    elif kind == 2 and isinstance(inner, list):
        inner.insert(key, inner[key])
    elif kind == 3 and isinstance(inner[key], int | float):
        inner[key] = inner[key] * random.choice((-1, 2, 0.5, 1000, 1e9))
    else:
        inner[key] = random.choice(VALUES)


def _place(content: bytearray, random: Random) -> int:
    """A place in the content, half of the time in its header."""
    end = len(content) if random.random() < 1 / 2 else min(len(content), HEADER)
    return random.randrange(end) if end else 0


def _flip(content: bytearray, random: Random) -> None:
    if content:
        content[_place(content, random)] ^= 1 << random.randrange(8)


def _number(content: bytearray, random: Random) -> None:
    """A number of a binary header, at a place where one may begin; or the digits of one in text."""
    kind = random.choice("bhiqfd")
    value = random.choice(FLOATS) if kind in "fd" else random.choice(INTEGERS)
    if kind in "bhiq":
        bits = 8 * struct.calcsize(kind)
        value = (int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    packed = struct.pack(random.choice("<>") + kind, value)
    if random.random() < 1 / 4:
        packed = str(random.choice((*INTEGERS, *FLOATS))).encode()
    start = _place(content, random) // len(packed) * len(packed)
    content[start : start + len(packed)] = packed


def _cut(content: bytearray, random: Random) -> None:
    del content[_place(content, random) :]


def _insert(content: bytearray, random: Random) -> None:
    start = _place(content, random)
    content[start:start] = random.randbytes(random.choice((1, 2, 8, 1000)))


def _repeat(content: bytearray, random: Random) -> None:
    start = _place(content, random)
    content[start:start] = content[start : start + random.choice((1, 16, 400))] * random.choice((1, 2, 50))


def _blank(content: bytearray, random: Random) -> None:
    start = _place(content, random)
    length = len(content[start : start + random.choice((4, 64, 1000))])
    content[start : start + length] = bytes((random.choice((0, 255, 32)),)) * length


def damaged_archive(content: bytes, random: Random) -> bytes:
    """Damage behind a checksum: a zip (as .npz is) whose entries were packed anew after one of them was damaged."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        spoiled = random.choice(old.namelist())
        for name in old.namelist():
            new.writestr(name, damaged(old.read(name), random) if name == spoiled else old.read(name))
    return packed.getvalue()
