"""What all rows of a shard share, stored in the metadata of its file."""

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
    """What all rows of a shard share.

    widths: columns, padding included, of the tokens, the prompt's context, and each fresh context. A shard that
        does not describe its segments has at most one fresh context; a width of 0 means none.
    pad_id: id that fills up contexts.
    digest: SHA-256 of all columns but `rows.NOT_CONTENT`.
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
        """The row after the last one."""
        return self.first_row + self.num_rows

    @property
    def num_groups(self) -> int:
        """Groups in the shard."""
        return self.num_rows // self.group_size

    @property
    def end_group(self) -> int:
        """The group after the last one."""
        return self.first_group + self.num_groups

    @staticmethod
    def of(metadata: Mapping[bytes, bytes]) -> "Footer":
        """Read the footer from a file's metadata.

        Raises KeyError, TypeError or ValueError where there is none.
        """
        text = metadata[KEY]
        if metadata.get(SEAL_KEY, _digest(text)) != _digest(text):
            raise ValueError("its footer is not what was written")
        footer = Footer(**parse_json(text))
        counts = (footer.first_row, footer.num_rows, footer.first_group, footer.group_size - 1, *footer.widths)
        if min(counts) < 0 or footer.num_rows % footer.group_size:
            raise ValueError(f"{footer.num_rows} rows in groups of {footer.group_size} from row {footer.first_row} on")
        return dataclasses.replace(footer, widths=tuple(footer.widths))

    def metadata(self) -> dict[bytes, str]:
        """Render the footer as a file's metadata, sealed with a digest of its own."""
        text = json.dumps(dataclasses.asdict(self))
        return {KEY: text, SEAL_KEY: _digest(text.encode()).decode()}


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
