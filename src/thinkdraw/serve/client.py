"""A client of `thinkdraw serve`: who the server is, and its verdicts on rollouts."""

import uuid
from collections import Counter
from functools import partial

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import TRUSTED_HOSTS, check_url, is_trusted, key_for_url
from thinkdraw.runtime.http import HttpClient, NoAnswer, RetryPolicy
from thinkdraw.serve.wire import (
    ABOUT,
    API,
    JUDGE,
    About,
    PictureForm,
    Verdict,
    WireError,
    parse,
    read_reply,
    write_request,
)  # fmt: skip
from thinkdraw.types import Rollouts

FINAL = frozenset({401, 403, 413, 422})  # another try cannot help: token, limit, or rollouts that cannot be judged
_BUSY = frozenset({429, 503})
MAX_PAUSE_S = 20.0
TOKEN = "THINKDRAW_TOKEN"
_ABOUT_RETRIES = 2


class RemoteJudge:
    """The server at `url`; `about` is what it said of itself at construction.

    Several threads may use it. token_env: variable with the server's token; None reads THINKDRAW_TOKEN, but only where
    the server is on this machine or a trusted host.
    failures: rows without a verdict so far, by reason.
    Raises UserError at construction where the server cannot be reached, refuses the token or has another API version.
    """

    elsewhere = True

    def __init__(
        self, url: str, token_env: str | None, patience: RetryPolicy, max_concurrency: int, pictures: PictureForm
    ):  # fmt: skip
        url = check_url(url, "url")
        token = key_for_url(url, "token_env", token_env, TOKEN, at_home=is_trusted(url))
        self.client = HttpClient(url, token, patience, max_concurrency)
        self.pictures: PictureForm = pictures
        self.failures: Counter[str] = Counter()
        self.about = self._fetch_about()

    @property
    def url(self) -> str:
        return self.client.url

    @property
    def name(self) -> str:
        return self.about.reward

    @property
    def revision(self) -> str:
        return self.about.revision

    def judge(self, rollouts: Rollouts, hashes: list[str]) -> list[Verdict]:
        """Judge whole groups, on the CPU.

        Raises NoAnswer, and UserError where another try cannot help.
        """
        request_id = uuid.uuid4().hex

        def read(body: bytes) -> list[Verdict]:
            try:
                return read_reply(body, request_id, hashes, self.revision)
            except WireError as error:
                raise NoAnswer(str(error)) from error

        try:
            return self.client.ask(JUDGE, read, partial(write_request, rollouts, request_id, self.pictures))
        except NoAnswer as failure:
            if refusal := self._refusal(failure):
                raise refusal from failure
            raise

    def close(self) -> None:
        self.client.close()

    def _fetch_about(self) -> About:
        def read(body: bytes) -> About:
            try:
                return parse(About, body)
            except WireError as error:
                raise NoAnswer(str(error)) from error

        try:
            about = self.client.ask(ABOUT, read, retries=_ABOUT_RETRIES)
        except NoAnswer as failure:
            raise self._refusal(failure) or UserError(
                f"the server at {self.url} is busy ({failure}). Try again later, or raise its max_connections."
                if failure.status in _BUSY
                else f"no reward is served at {self.url} ({failure}). Start `thinkdraw serve REWARD` there, or correct url."
            ) from failure
        if about.api != API:
            raise UserError(
                f"{self.url} speaks version {about.api} of the interface (thinkdraw {about.version}), and this side version "
                f"{API}. Install the same thinkdraw on both sides."
            )
        return about

    def _refusal(self, failure: NoAnswer) -> UserError | None:
        """Return an error with the server's own line, if it says what the user can mend."""
        if failure.status not in FINAL:
            return None
        message = failure.detail or f"{self.url} refused with {failure.reason}."
        if failure.status in (401, 403) and not self.client.sends_key:
            # The default token is a secret of this machine's owner: it is not sent to an address that nobody vouched for.
            message += (
                f" No token was sent: {TOKEN} goes to this machine and to the hosts in {TRUSTED_HOSTS}; for another server, "
                "name the variable with its token in token_env."
            )
        return UserError(message)
