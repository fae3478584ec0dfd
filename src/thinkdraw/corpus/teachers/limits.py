"""Limits of a teacher: pace, back-off, and a budget over requests under way."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.runtime.endpoints import backoff_pause_s


class LimitSettings(StrictModel):
    attempts: int = Field(
        default=3, ge=1, description="Answers that are asked for, if they are malformed, before a row is set aside."
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Most requests a minute, spread evenly; null sets no limit."
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="Most tokens a minute, sent and written together; null sets no limit."
    )
    first_wait_s: float = Field(
        default=0.5,
        gt=0,
        description="Seconds to wait after a request's first failure; the wait doubles with each further one, up "
        "to a minute.",
    )
    give_up_after_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds without any answer after which the run stops; started again it goes on.",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Budget of tokens, sent and written, over all runs of this corpus; null sets none.",
    )
    max_money: float | None = Field(
        default=None,
        gt=0,
        description="Budget in the currency of price_in and price_out, over all runs of this corpus; null sets none.",
    )
    price_in: float = Field(
        default=0.0, ge=0, description="Price of a million tokens sent, for the budget and the card."
    )
    price_out: float = Field(
        default=0.0, ge=0, description="Price of a million tokens written, for the budget and the card."
    )

    def money(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class Pace:
    """Spreads requests evenly over the minute; pauses all while the teacher is busy."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._next, self._held_until = 0.0, 0.0

    async def wait_turn(self) -> None:
        """Wait until a request may be sent."""
        per_minute = self._limits.requests_per_minute
        at = max(time.monotonic(), self._next)
        self._next = at + (60 / per_minute if per_minute else 0.0)
        while (wait := max(at, self._held_until) - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def charge(self, tokens: int) -> None:
        """Delay the next request by the time that these tokens take.

        The limit of tokens per minute sets that time.
        """
        if self._limits.tokens_per_minute:
            self._next = max(self._next, time.monotonic()) + 60 * tokens / self._limits.tokens_per_minute

    def pause(self, seconds: float) -> None:
        self._held_until = max(self._held_until, time.monotonic() + seconds)


def back_off_s(tries: int, seed: int, first_wait_s: float) -> float:
    """Return the seconds to wait after a request's `tries`-th failure.

    The first wait doubles each time, up to 60 s; times 0.5 to 1 by `seed`, so that requests do not come back together.
    """
    return backoff_pause_s(first_wait_s, tries - 1, 60.0) * (0.5 + (seed % 1000) / 2000)


class Budget:
    """What is spent and reserved: a request starts only if it would fit.

    Its size is taken to be that of the largest so far.
    """

    def __init__(self, limits: LimitSettings, tokens_in: int, tokens_out: int) -> None:
        self.limits, self.tokens_in, self.tokens_out = limits, tokens_in, tokens_out
        self._under_way = 0
        self._largest = (0, 0)

    @property
    def money(self) -> float:
        return self.limits.money(self.tokens_in, self.tokens_out)

    def reserve(self) -> bool:
        """Reserve tokens for a request; False where they do not fit the budget."""
        reserved_in, reserved_out = ((self._under_way + 1) * n for n in self._largest)
        tokens_in, tokens_out = self.tokens_in + reserved_in, self.tokens_out + reserved_out
        limits = self.limits
        fits = limits.max_tokens is None or max(tokens_in + tokens_out, 1) <= limits.max_tokens
        fits = fits and (limits.max_money is None or limits.money(tokens_in, tokens_out) <= limits.max_money)
        # No answer has come yet, so nobody knows how large one is: within a budget, only one request may be under way.
        limited = limits.max_tokens is not None or limits.max_money is not None
        if not fits or (limited and self._largest == (0, 0) and self._under_way):
            return False
        self._under_way += 1
        return True

    def could_fit(self) -> bool:
        """Whether a request would fit if none were under way."""
        waiting, self._under_way = self._under_way, 0
        fits = self.reserve()
        self._under_way = waiting
        return fits

    def settle(self, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Release a reservation, and charge what the reply used; nothing where none came."""
        self._under_way -= 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self._largest = (max(self._largest[0], tokens_in), max(self._largest[1], tokens_out))


class Capacity:
    """An amount that all who are under way share; who needs more than is free waits.

    Who needs more than there is gets all of it, alone.
    """

    def __init__(self, most: int) -> None:
        self.most = self.free = most
        self._change = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        amount = min(amount, self.most)
        async with self._change:
            await self._change.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            self.free += amount
            async with self._change:
                self._change.notify_all()
