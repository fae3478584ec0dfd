"""What the rows of a shard have in common, kept in its file's footer."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thinkdraw.runtime.formats import parse_json

KEY, SEAL_KEY = b"thinkdraw", b"thinkdraw-sha256"


@dataclass(frozen=True)
class Footer:
    """See the module. pad_id: what contexts are padded with. digest: SHA-256 of all but `rows.NOT_CONTENT`.

    widths: columns, padding included, of tokens, the prompts' context, and each fresh one; where the shard does not say
    what its segments are, there is at most one, and a width of 0 says that there is none.
    """

    first_row: int
    num_rows: int
    first_group: int
    group_size: int
    widths: tuple[int, ...]
    pad_id: int
    has_kept: bool
    has_thoughts: bool
    sampling: dict[str, Any]
    revision: str
    policy: str
    digest: str = ""

    @property
    def end_row(self) -> int:
        return self.first_row + self.num_rows

    @property
    def num_groups(self) -> int:
        return self.num_rows // self.group_size

    @property
    def end_group(self) -> int:
        return self.first_group + self.num_groups

    @staticmethod
    def of(metadata: Mapping[bytes, bytes]) -> "Footer":
        """Raises KeyError, TypeError or ValueError where there is none."""
        text = metadata[KEY]
        if metadata.get(SEAL_KEY, _digest(text)) != _digest(text):
            raise ValueError("what it says about its rows is not what was written")
        footer = Footer(**parse_json(text))
        counts = (footer.first_row, footer.num_rows, footer.first_group, footer.group_size - 1, *footer.widths)
        if min(counts) < 0 or footer.num_rows % footer.group_size:
            raise ValueError(f"{footer.num_rows} rows in groups of {footer.group_size} from row {footer.first_row} on")
        return dataclasses.replace(footer, widths=tuple(footer.widths))

    def metadata(self) -> dict[bytes, str]:
        text = json.dumps(dataclasses.asdict(self))
        return {KEY: text, SEAL_KEY: _digest(text.encode()).decode()}


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
