"""The reward `http`: asks a server of `thinkdraw serve`, here or far away."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.runtime.cache import AnswerCache
from thinkdraw.runtime.http import NoAnswer, RetryPolicy
from thinkdraw.serve.client import FINAL, MAX_PAUSE_S, RemoteJudge
from thinkdraw.serve.wire import PictureForm, Verdict, row_hashes
from thinkdraw.types import Rollouts, Verdicts


class HttpReward(BaseReward):
    """The reward served at `url`, with its name, numbers, range, direction and parts.

    NaN: the served judge had no verdict; or no answer came; or the answer was on another row or by another revision
    than at the start.
    token_env: environment variable that holds the server's token. Without it, THINKDRAW_TOKEN is sent, but only to this
    machine and to trusted hosts. timeout_s: for the whole answer to one request.
    max_concurrency: requests under way at once. retries, backoff_s: further tries, after pauses that double.
    break_after, break_s: after so many requests in a row without an answer, nothing is asked for break_s seconds.
    rows_per_request: of whole groups; a larger group still travels whole. pictures: raw, or png for a slow connection.
    cache: a file of earlier verdicts, at most max_cached of them, which runs may share.
    revision: refuse a server of another revision at the start.
    Its verdicts' notes say why rows have none; `remote.failures` counts them since the start.

    Raises UserError at construction where nobody answers, the token is refused or the interface is another. Raises it
    later where the token is no longer taken, or the served reward cannot judge such rollouts at all.
    """

    def __init__(
        self, url: str, token_env: str | None = None, timeout_s: float = 60.0, max_concurrency: int = 4,
        retries: int = 6, backoff_s: float = 0.5, break_after: int = 3, break_s: float = 30.0,
        rows_per_request: int = 32, pictures: PictureForm = "raw", cache: Path | str | None = None,
        max_cached: int = 1_000_000, revision: str | None = None,
    ):  # fmt: skip
        minimums = {
            "timeout_s": (timeout_s, 1e-3), "max_concurrency": (max_concurrency, 1), "retries": (retries, 0),
            "backoff_s": (backoff_s, 0), "break_after": (break_after, 1), "break_s": (break_s, 0),
            "rows_per_request": (rows_per_request, 1),
        }  # fmt: skip
        for name, (value, minimum) in minimums.items():
            if value < minimum:
                raise UserError(f"reward http: {name}={value} must be at least {minimum}.")
        if pictures not in get_args(PictureForm):
            raise UserError(f"reward http: pictures={pictures!r}: one of {', '.join(get_args(PictureForm))}.")
        patience = RetryPolicy(timeout_s, retries, backoff_s, break_after, break_s, MAX_PAUSE_S, FINAL)
        self.remote = RemoteJudge(url, token_env, patience, max_concurrency, pictures)
        self.name = self.remote.name
        if revision is not None and revision != self.revision:
            raise UserError(
                f"{self.remote.url} serves {self.name} of revision {self.revision}, not {revision}: its settings or weights "
                "differ. Serve the former ones, or begin a new run with this revision."
            )
        self.weights = self.remote.about.weights  # of a combined reward; the objective may combine its parts otherwise
        self.rows_per_request = rows_per_request
        self._cache = AnswerCache(cache, max_cached) if cache is not None else None
        self._threads = ThreadPoolExecutor(max_concurrency, thread_name_prefix="http-reward")
        self._parts = dict.fromkeys([*(self.remote.about.components or ()), *(self.weights or ())])

    @property
    def revision(self) -> str:
        return self.remote.revision

    @property
    def judges(self) -> Mapping[str, object]:
        return {"": self.remote}

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        rows = self._verdicts(rollouts.to("cpu"))
        for row in rows:  # the server may not know its parts before it has judged
            self._parts |= dict.fromkeys(row.components)
        notes = Counter(row.reason or "the judge has no verdict" for row in rows if row.reward is None and row.applies)
        self._report_failures(notes, len(rows))
        return Verdicts(
            _column([row.reward for row in rows]), torch.tensor([row.applies for row in rows]),
            {name: _column([row.components.get(name) for row in rows]) for name in self._parts},
            {name: torch.tensor([row.component_applies.get(name, True) for row in rows]) for name in self._parts},
            notes,
        )  # fmt: skip

    def close(self) -> None:
        self._threads.shutdown()
        self.remote.close()
        if self._cache is not None:
            self._cache.close()

    def _verdicts(self, rollouts: Rollouts) -> list[Verdict]:
        """Get one verdict per row, with the reason where it is none."""
        hashes = row_hashes(rollouts)
        known = self._from_cache(hashes)
        futures = [
            self._threads.submit(self._ask, rollouts.select(rows, rollouts.group_size), [hashes[row] for row in rows])
            for rows in self._requests(rollouts, hashes, known)
        ]
        try:
            known |= {verdict.hash: verdict for future in futures for verdict in future.result()}
        finally:
            for future in futures:
                future.cancel()
        return [known[row_hash] for row_hash in hashes]

    def _requests(self, rollouts: Rollouts, hashes: Sequence[str], known: dict[str, Verdict]) -> Iterator[list[int]]:
        """Yield rows to ask about together, of groups whose verdicts are not all known."""
        size, limits = rollouts.group_size, self.remote.about.limits
        height, width = pictures_of(rollouts).shape[1:3]
        if max(height, width) > limits.side:
            raise UserError(
                f"reward http: pictures are {width}×{height}, and {self.remote.url} takes {limits.side} pixels a side. "
                "Start it with a larger limits.side."
            )
        # An upper estimate: base64 adds a third to a picture's 3 bytes per pixel; the rest is for tokens and the prompt.
        row_bytes = 5 * height * width + 64 * rollouts.tokens.shape[1] + 16_000
        row_tokens, row_pixels = max(1, rollouts.tokens.shape[1]), height * width
        most = min(limits.rows, limits.bytes // row_bytes, limits.tokens // row_tokens, limits.pixels // row_pixels)
        if size > most:
            raise UserError(
                f"reward http: a group of {size} is more than the {most} rows that {self.remote.url} takes in one request. "
                "Start it with larger limits: rows, bytes, tokens and pixels."
            )
        missing = [
            range(first, first + size)
            for first in range(0, len(rollouts), size)
            if any(row_hash not in known for row_hash in hashes[first : first + size])
        ]
        together = max(1, min(self.rows_per_request, most) // size)
        for i in range(0, len(missing), together):
            yield [row for group in missing[i : i + together] for row in group]

    def _ask(self, rollouts: Rollouts, hashes: list[str]) -> list[Verdict]:
        try:
            verdicts = self.remote.judge(rollouts, hashes)
        except NoAnswer as failure:
            reason = f"{failure} ({self.remote.url})"
            return [Verdict(hash=row_hash, reward=None, reason=reason) for row_hash in hashes]
        if self._cache is not None:
            # A row without a verdict is not stored: the next try may have one.
            stable = [v for v in verdicts if v.reward is not None or not v.applies]
            answers = {
                v.hash: v.model_dump(exclude={"hash"}, exclude_defaults=True) | {"reward": v.reward} for v in stable
            }
            self._cache.put(self.name, self.revision, answers)
        return verdicts

    def _from_cache(self, hashes: Sequence[str]) -> dict[str, Verdict]:
        if self._cache is None:
            return {}
        answers = self._cache.get(self.name, self.revision, hashes)
        return {row_hash: Verdict(hash=row_hash, **answer) for row_hash, answer in answers.items()}

    def _report_failures(self, notes: Counter[str], num_rows: int) -> None:
        """Count rows without a verdict, and warn of them."""
        self.remote.failures += notes
        if notes:
            reason, count = notes.most_common(1)[0]
            warnings.warn(
                f"reward {self.name}: no verdict on {notes.total()} of {num_rows} rollouts; for {count} the reason is: {reason}",
                stacklevel=3,
            )


def _column(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float32)
