"""Rewrites of a prompt that keep its meaning: other orders, inverted relations.

They follow from the prompt's structure: "a red circle and a blue cup" ↔ "a blue cup and a red circle"; "a cup left of a ring" ↔ "a
ring right of a cup". PeRL permutes the pictures of a question (arXiv 2506.14907); a prompt to draw has clauses to permute.
"""

import itertools
import re

from thinkdraw.types import Prompt

INVERSE = {
    "left of": "right of",
    "to the left of": "to the right of",
    "on the left of": "on the right of",
    "above": "below",
    "on top of": "under",
    "in front of": "behind",
}
INVERSE |= {other: word for word, other in INVERSE.items()}
INVERSE["over"] = "under"
SYMMETRIC = ("next to", "near", "beside", "on side of", "by the side of")
INVERSE |= {word: word for word in SYMMETRIC}
LISTING = (", ", " and ", ", and ")
MAX_REWRITES = 23  # all orders of four objects, except the prompt's own

_COUNTED = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten)"
_PLACED = re.compile(
    rf"\bthe ([\w ]+?) is ({'|'.join(sorted(map(re.escape, INVERSE), key=len, reverse=True))}) the ([\w ]+)"
)


def rewrites(prompt: Prompt) -> tuple[str, ...]:
    """Return other texts that ask for the same picture.

    Empty where the prompt's structure shows none. Only words of the prompt are used, and the inverse of its relation.
    """
    texts = {prompt.text: None}  # a dict keeps the order, which a set would not
    for text in _reorder(prompt):
        texts[text] = None
    for text in list(texts):
        texts[_PLACED.sub(lambda m: f"the {m[3]} is {INVERSE[m[2]]} the {m[1]}", text)] = None
    del texts[prompt.text]
    return tuple(texts)[:MAX_REWRITES]


def _reorder(prompt: Prompt) -> list[str]:
    """Put the prompt's counted objects in other orders, or swap a relation's two.

    The relation is then inverted.
    """
    places = _phrases(prompt)
    if len(places) < 2:
        return []
    text, words = prompt.text, [prompt.text[a:b] for a, b in places]
    between = [text[b:a] for (_, b), (a, _) in itertools.pairwise(places)]
    before, after = text[: places[0][0]], text[places[-1][1] :]
    if len(words) == 2 and between[0].strip() in INVERSE:
        return [f"{before}{words[1]} {INVERSE[between[0].strip()]} {words[0]}{after}"]
    if any(gap not in LISTING for gap in between):
        return []
    orders = itertools.islice(itertools.permutations(words), 1, 1 + MAX_REWRITES)
    return [before + "".join(itertools.chain(*zip(order, [*between, after]))) for order in orders]


def _phrases(prompt: Prompt) -> list[tuple[int, int]]:
    """Find each `include` clause in the text ("a red cup", "two cups").

    Returns their spans in reading order; empty if one is missing.
    """
    places = []
    for clause in prompt.include:
        *first, last = (re.escape(word) for word in clause["class"].split())
        color = re.escape(clause["color"]) + r"\s" if clause.get("color") else ""
        before = "".join(rf"{word}\s" for word in first)
        named = rf"(?:{color}{before}{last}|{before}{color}{last})" if color else f"{before}{last}"
        phrase = named if clause["count"] == 1 else rf"{named}\w{{0,3}}"  # up to three letters of a plural's ending
        match = re.search(rf"\b{_COUNTED}\s{phrase}\b", prompt.text)
        if match is None:
            return []
        places.append(match.span())
    places.sort()
    overlap = any(b > a for (_, b), (a, _) in itertools.pairwise(places))
    return [] if overlap else places
