"""What happens to files: a disk flips bits, a copy is cut, a person or another program writes odd values."""

import random
import re
from collections.abc import Callable, Iterator

Mutation = tuple[str, bytes]  # what was done, the file after it
ODD = (
    "null", "true", "-1", "0", "1e999", "-1e-400", "NaN", ".nan", ".inf", "Infinity", '""', "[]", "{}", "[[[]]]", '"\\ud800"',
    '"\\u0000"', str(10**30), "9" * 5000, '"' + "x" * 5000 + '"', '"\\u001b[2J"', '"\\u202e"', "0x_", "1:2:3", "2024-13-45",
    "!!python/object/apply:os.system [id]", "&a [*a]", "[" * 300 + "]" * 300, "[" * 3000, "{" * 3000, "~", "'", '"', "- - -",
    "../../../etc/passwd", '{"name": 3}', "1.5", "-0.0", "[1, two, null]", "\u2028", "%", "*a", "<<", "@", "`",
)  # fmt: skip
_SCALAR = re.compile(rb'(?<=[:\[,] )("[^"\n]*"|[^\s,\[\]{}"]+)')


def of_bytes(data: bytes, rng: random.Random) -> Iterator[Mutation]:
    """Endless damage such as a disk or an interrupted copy does."""
    size = len(data)
    whole: list[Callable[[], Mutation]] = [
        lambda: ("empty", b""),
        lambda: ("cut", data[: rng.randrange(max(1, size))]),
        lambda: ("zeros", bytes(size)),
        lambda: ("head gone", data[rng.randrange(1, max(2, size)) :]),
        lambda: ("garbage", rng.randbytes(min(size, 4096))),
        lambda: ("twice", data + data),
        lambda: ("hole", data[: size // 3] + bytes(min(512, size - size // 3)) + data[size // 3 + 512 :]),
    ]
    for make in whole:
        yield make()
    while True:
        changed, place = bytearray(data), rng.randrange(max(1, size))
        how = rng.choice(["bit", "bit", "bit", "byte", "swap", "cut"])
        if how == "bit" and data:
            changed[place] ^= 1 << rng.randrange(8)
        elif how == "byte" and data:
            changed[place] = rng.randrange(256)
        elif how == "swap":
            other = rng.randrange(max(1, size))
            changed[place : place + 8], changed[other : other + 8] = data[other : other + 8], data[place : place + 8]
        else:
            changed = changed[:place]
        yield how, bytes(changed)


def of_text(data: bytes, rng: random.Random) -> Iterator[Mutation]:
    """Endless odd values, encodings and shapes such as persons and other programs write; damage in between."""
    text = data.decode("utf-8", errors="replace")
    yield from (
        ("utf-16", text.encode("utf-16")), ("latin-1", (text + "\u00e9").encode("latin-1", "replace")),
        ("byte order mark", b"\xef\xbb\xbf" + data), ("carriage returns", data.replace(b"\n", b"\r\n")),
        ("old mac", data.replace(b"\n", b"\r")), ("NUL", data[: len(data) // 2] + b"\0" + data[len(data) // 2 :]),
        ("only spaces", b" \n\t\n"), ("a list", b"[1, 2]"), ("a number", b"3"), ("deep list", b"[" * 20_000),
        ("deep mapping", b'{"a":' * 20_000), ("bomb", _bomb()), ("one long line", b"a" * 100_000),
    )  # fmt: skip
    damage = of_bytes(data, rng)
    places = [found.span() for found in _SCALAR.finditer(data)] or [(0, len(data))]
    while True:
        begin, end = rng.choice(places)
        odd = rng.choice(ODD).encode("utf-8", "surrogatepass")
        yield f"{odd[:20]!r} for {data[begin:end][:20]!r}", data[:begin] + odd + data[end:]
        one, other = sorted(rng.sample(places, 2)) if len(places) > 1 else (places[0], places[0])
        if one[1] <= other[0]:
            first, second = data[one[0] : one[1]], data[other[0] : other[1]]
            yield "two values swapped", data[: one[0]] + second + data[one[1] : other[0]] + first + data[other[1] :]
        yield next(damage)


def _bomb() -> bytes:
    """Anchors that stand for 10^8 values."""
    rows = [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10) if i else '1'}]" for i in range(9)]
    return "\n".join(rows).encode()
