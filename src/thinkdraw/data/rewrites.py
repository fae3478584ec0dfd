"""Meaning-preserving rewrites of a prompt, found from its structure: other clause orders, inverted relations.

"a red circle and a blue cup" ↔ "a blue cup and a red circle"; "a cup left of a ring" ↔ "a ring right of a cup".
PeRL permutes the pictures of a question (arXiv 2506.14907); a prompt to draw has clauses to permute.
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
MAX_REWRITES = 23  # of four things in a row: all orders but one's own

_COUNTED = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten)"
_PLACED = re.compile(
    rf"\bthe ([\w ]+?) is ({'|'.join(sorted(map(re.escape, INVERSE), key=len, reverse=True))}) the ([\w ]+)"
)


def rewrites(prompt: Prompt) -> tuple[str, ...]:
    """Other texts that ask for the same picture, without the prompt's own; empty where its structure shows none.

    Only words that stand in the prompt are used, and the inverse of its relation.
    """
    found = {prompt.text: None}
    for text in _reordered(prompt):
        found[text] = None
    for text in list(found):
        found[_PLACED.sub(lambda m: f"the {m[3]} is {INVERSE[m[2]]} the {m[1]}", text)] = None
    del found[prompt.text]
    return tuple(found)[:MAX_REWRITES]


def _reordered(prompt: Prompt) -> list[str]:
    """The prompt with its counted things in other orders, or swapped around an inverted relation."""
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
    """Where each `include` clause stands in the text ("a red cup", "two cups"), in reading order; empty if one is missing."""
    places = []
    for clause in prompt.include:
        *first, last = (re.escape(word) for word in clause["class"].split())
        color = re.escape(clause["color"]) + r"\s" if clause.get("color") else ""
        before = "".join(rf"{word}\s" for word in first)
        named = rf"(?:{color}{before}{last}|{before}{color}{last})" if color else f"{before}{last}"
        stem = named if clause["count"] == 1 else rf"{named}\w{{0,3}}"
        found = re.search(rf"\b{_COUNTED}\s{stem}\b", prompt.text)
        if found is None:
            return []
        places.append(found.span())
    places.sort()
    overlap = any(b > a for (_, b), (a, _) in itertools.pairwise(places))
    return [] if overlap else places
