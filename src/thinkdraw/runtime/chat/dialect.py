"""Which names of fields a server accepts, learned from what it refuses."""

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
    """Put a user's fields into a request, and take null fields out.

    Of two names for one thing the user's stays.
    """
    both = {**body, **extra_body}
    for name, alternative in ALTERNATIVE_NAMES.items():
        if extra_body.get(alternative) is not None and name not in extra_body:
            both.pop(name, None)
    return {name: value for name, value in both.items() if value is not None}


class Dialect:
    """Which names of fields a server accepts, and which fields it refuses.

    It is learned from refusals, with one warning for each dropped field. where: who refuses, for the warning. fixed: fields that the
    user set, which are sent as they are.
    """

    def __init__(self, where: str, fixed: JsonMapping | None = None) -> None:
        self._where, self._fixed, self._lock = where, frozenset(fixed or {}), threading.Lock()
        self._names: dict[str, str | None] = {}  # our name → the server's, None for a field that it refuses

    @property
    def dropped_fields(self) -> list[str]:
        return sorted(name for name, other in self._names.items() if other is None)

    def translate(self, body: JsonMapping) -> JsonObject:
        """Return the request as this server takes it."""
        named = {self._names.get(name, name): value for name, value in body.items()}
        return {name: value for name, value in named.items() if name is not None}

    def learn(self, sent: JsonMapping, refusal: NoAnswer) -> bool:
        """Learn from a refusal, and tell whether the request would now be another."""
        if refusal.status not in (400, 422):
            return False
        with self._lock:
            for name in sent.keys() - self._fixed - self._names.keys() - set(filter(None, self._names.values())):
                if name in ALTERNATIVE_NAMES and self._refuses(name, refusal.detail):
                    self._names[name] = ALTERNATIVE_NAMES[name]
                elif name in OPTIONAL_FIELDS and _mentions(name, refusal.detail):
                    self._names[name] = None
                    warnings.warn(
                        f"{self._where} refuses {name} ({refusal.detail}): requests are sent without it.", stacklevel=3
                    )
            return any(name in self._names for name in sent)

    @staticmethod
    def _refuses(name: str, message: str) -> bool:
        """Tell whether it is the name that is refused.

        A number that is too large is refused with its name in the message too.
        """
        return _mentions(name, message) and (
            _mentions(ALTERNATIVE_NAMES[name], message) or bool(_REFUSAL.search(message))
        )


def _mentions(field: str, text: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){field}(?![A-Za-z0-9_])", text) is not None
