"""The rules of the filters, as pure functions.

Each gives the reason why a row is left out, or None for a row that stays.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.teachers.answers import REFUSAL
from thinkdraw.data.leak_guard import find_leaks, normalise
from thinkdraw.data.near_copies import find_near_copies
from thinkdraw.types import Prompt


class ShapeSettings(StrictModel):
    min_side: int = Field(default=64, ge=1, description="Fewest pixels of a picture's shorter side.")
    max_aspect: float = Field(
        default=3.0, ge=1, description="Largest ratio of a picture's longer side to its shorter one."
    )


Language = Literal["English", "German", "French", "Spanish", "Italian", "Portuguese", "Dutch"]
FUNCTION_WORDS: dict[Language, str] = {
    "English": "the a an of and is in on with to at its it by are from behind this that there which",
    "German": "der die das und ist ein eine mit auf im von dem den einem einer nicht sich auch zu hinter",
    "French": "le la les des et est un une avec sur dans du de au aux qui que il elle sont",
    "Spanish": "el la los las y es un una con en de del al que se su por para está hay",
    "Italian": "il lo gli e è un una con su nel della del di che si sono al alla per",
    "Portuguese": "o os as e é um uma com em no na do da de que se ao por são há",
    "Dutch": "de het een en is met op van in dat die zijn niet aan er naar bij door onder tot",
}
_WORDS_OF = {name: frozenset(words.split()) for name, words in FUNCTION_WORDS.items()}
BOILERPLATE = re.compile(
    r"\A(?:sure|certainly|of course|absolutely|okay|ok|great)\b[,!.:]|\A(?:here(?:['’]s| is| are)) (?:a|an|the|your|some)\b.{0,60}:"
    r"|\bas (?:you )?requested\b|\blet me know if\b|\bI hope this helps\b|\bthe JSON\b"
    r"|\bthis (?:prompt|caption|description) (?:describes|asks)\b"
    r"|\bin (?:conclusion|summary)\b[,:]|\blorem ipsum\b|\b(?:insert|your) (?:text|caption|description) here\b"
    r"|\b(?:image|picture|photo) (?:is|was|has) (?:not|been not|missing|not been) (?:provided|visible|loaded|available|attached)\b",
    re.IGNORECASE,
)


def bad_shape(width: int, height: int, settings: ShapeSettings) -> str | None:
    short, long = sorted((width, height))
    if short < settings.min_side:
        return f"shorter side below {settings.min_side} pixels"
    return f"longer than {settings.max_aspect:g} to 1" if long > settings.max_aspect * short else None


def language_of(text: str) -> str | None:
    """Guess a text's language by its function words.

    Of the languages in FUNCTION_WORDS; "not Latin" where most letters are of another script; None where neither says
    anything, as in a list of nouns.
    """
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return None
    if not text.isascii() and sum(c < "\u0250" for c in letters) < 0.7 * len(letters):
        return "not Latin"
    words = re.findall(r"[^\W\d_]+", text.lower())
    hits = {name: sum(word in known for word in words) for name, known in _WORDS_OF.items()}
    best = max(hits, key=lambda name: hits[name])
    # One shared word is no evidence: "a" or "en" belongs to several languages.
    return best if hits[best] >= max(2, 0.05 * len(words)) else None


def wrong_language(text: str, language: str) -> str | None:
    guess = language_of(text)
    return None if guess in (None, language) else f"{guess}, not {language}"


def bad_length(rationale: str, min_words: int, max_words: int) -> str | None:
    count = len(rationale.split())
    if count < min_words:
        return f"fewer than {min_words} words"
    return f"more than {max_words} words" if count > max_words else None


def boilerplate(texts: Sequence[str]) -> str | None:
    """Find a refusal, or words to the person who asks instead of about the picture."""
    for text in texts:
        if REFUSAL.search(text):
            return "refusal"
        if BOILERPLATE.search(text):
            return "boilerplate"
    return None


def contradiction(p_yes: Sequence[float], min_p_yes: float, max_frac: float) -> str | None:
    """Find out whether a questioner denies too many claims of a rationale.

    p_yes: of each claim; NaN = no verdict, which counts for neither side.
    """
    known = [p for p in p_yes if not math.isnan(p)]
    denied = sum(p < min_p_yes for p in known)
    return "the picture does not show what is said" if known and denied > max_frac * len(known) else None


def low_score(score: float, min_score: float) -> str | None:
    """Compare a score with the least one; NaN is no verdict, and the row stays."""
    return f"below {min_score:g}" if score < min_score else None


def repeats(rationales: Sequence[str], min_jaccard: float) -> dict[int, int]:
    """Map each row that repeats an earlier one to that row.

    Two rows are one if they are equal after normalisation, or share at least `min_jaccard` of their word triples
    (MinHash).
    """
    texts = [normalise(text) for text in rationales]
    first: dict[str, int] = {}
    originals = {i: first[text] for i, text in enumerate(texts) if first.setdefault(text, i) != i}
    unique = [i for i in range(len(texts)) if i not in originals]
    unique_texts = [texts[i] for i in unique]
    for copy in find_near_copies(unique_texts, unique_texts, min_jaccard):
        # A text is compared with itself, too, and its first copy is then itself: only an earlier one counts.
        if copy.right < copy.left:
            originals[unique[copy.left]] = unique[copy.right]
    return originals


def match_test_prompts(rows: Sequence[Sequence[Prompt]], test: Sequence[Prompt]) -> dict[int, str]:
    """Map each row that holds a test prompt to how it matches.

    rows: all texts of a row that would be trained on, the first with its clauses.
    """
    flat = [(row, prompt) for row, prompts in enumerate(rows) for prompt in prompts]
    reasons: dict[int, str] = {}
    for leak in find_leaks([prompt for _, prompt in flat], test):
        reasons.setdefault(flat[leak.train][0], leak.reason.partition(" of the ")[2] or leak.reason)
    return reasons
