"""By which names a server takes a request: its own words, learned from what it refuses."""

import re
import threading
import warnings

from thinkdraw.runtime.http import NoAnswer
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

ALTERNATIVE_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
OPTIONAL_FIELDS = ("temperature", "seed", "response_format")
_REFUSAL = re.compile(
    r"unsupported|not (?:be )?(?:support|permit|allow|accept)ed|(?:does|do) not support|unrecogni[sz]ed|unknown|unexpected|"
    r"extra|deprecated|no longer|invalid (?:parameter|argument|field|key)",
    re.IGNORECASE,
)


def merge_fields(body: JsonMapping, extra_body: JsonMapping) -> JsonObject:
    """The request with a user's fields in it; one that is null, and the one of two names for the same, are taken out."""
    both = {**body, **extra_body}
    for name, other in ALTERNATIVE_NAMES.items():
        if extra_body.get(other) is not None and name not in extra_body:
            both.pop(name, None)
    return {name: value for name, value in both.items() if value is not None}


class Dialect:
    """By which names a server takes a request, and what it cannot be asked: learned from its refusals and said once.

    where: who refuses, for the warning. fixed: fields that the user set, which are sent as they are.
    """

    def __init__(self, where: str, fixed: JsonMapping | None = None) -> None:
        self._where, self._fixed, self._lock = where, frozenset(fixed or {}), threading.Lock()
        self._spoken: dict[str, str | None] = {}

    @property
    def left_out(self) -> list[str]:
        return sorted(name for name, other in self._spoken.items() if other is None)

    def put(self, body: JsonMapping) -> JsonObject:
        """The request as this server takes it."""
        named = {self._spoken.get(name, name): value for name, value in body.items()}
        return {name: value for name, value in named.items() if name is not None}

    def learn(self, sent: JsonMapping, refusal: NoAnswer) -> bool:
        """Whether the request would now be put otherwise than it was `sent`."""
        if refusal.status not in (400, 422):
            return False
        with self._lock:
            for name in sent.keys() - self._fixed - self._spoken.keys() - set(filter(None, self._spoken.values())):
                if name in ALTERNATIVE_NAMES and self._refuses(name, refusal.detail):
                    self._spoken[name] = ALTERNATIVE_NAMES[name]
                elif name in OPTIONAL_FIELDS and _names(name, refusal.detail):
                    self._spoken[name] = None
                    warnings.warn(
                        f"{self._where} refuses {name} ({refusal.detail}): requests are sent without it.", stacklevel=3
                    )
            return any(name in self._spoken for name in sent)

    @staticmethod
    def _refuses(name: str, said: str) -> bool:
        """Whether it is the name that is refused: a number that is too large has the same name in its refusal."""
        return _names(name, said) and (_names(ALTERNATIVE_NAMES[name], said) or bool(_REFUSAL.search(said)))


def _names(field: str, text: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){field}(?![A-Za-z0-9_])", text) is not None
