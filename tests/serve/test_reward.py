import dataclasses
import os
import sys
import time
import warnings

import pytest
import torch
from tests.serve.fault_proxy import FAULTS, at_random, between
from tests.serve.serving import Brightness, noise, served

from thinkdraw.errors import UserError
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.opening import open_reward
from thinkdraw.serve.reward import HttpReward
from thinkdraw.types import Verdicts

QUICK = {"timeout_s": 10, "backoff_s": 0.01, "retries": 3, "break_s": 0.2}
STALLING = {"timeout_s": 0.4}  # less than the proxy stalls


@pytest.fixture(scope="module")
def server():
    with served(Brightness()) as there:
        yield there


@pytest.fixture
def make(monkeypatch):
    """Clients, closed at the end; a row without a verdict warns, which is an error unless the test expects it."""
    monkeypatch.delenv("THINKDRAW_TOKEN", raising=False)
    clients = []

    def client(url: str, **settings) -> HttpReward:
        clients.append(HttpReward(url, **{**QUICK, **settings}))
        return clients[-1]

    yield client
    for made in clients:
        made.close()


def scored(reward, rollouts) -> tuple[Verdicts, int]:
    """Verdicts, and how many warnings of missing verdicts there were."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        verdicts = reward(rollouts)
    return verdicts, len([w for w in caught if "no verdict" in str(w.message)])


@pytest.mark.parametrize("pictures", ["raw", "png"])
@pytest.mark.parametrize("group_size", [1, 4])
def test_numbers_and_components_are_those_of_the_reward_that_is_served(server, make, pictures, group_size):
    rollouts, here = noise(24, group_size), Brightness()
    there = make(server.url, pictures=pictures, rows_per_request=6)
    verdicts = there(rollouts)
    assert torch.equal(verdicts.rewards, here(rollouts))
    assert there.name == "brightness" and there.revision == server.service.revision
    assert {name: v.tolist() for name, v in verdicts.parts.items()} == {
        "dark": here.components(rollouts)["dark"].tolist()
    }
    assert bool(verdicts.applies.all()) and bool(verdicts.part_applies["dark"].all()) and not verdicts.notes


def test_it_is_opened_by_its_name(server):
    assert open_reward("http", url=server.url, retries=0).name == "brightness"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_asked_again_and_gives_the_right_numbers(server, make, fault):
    rollouts = noise(4)
    with between(server.url, lambda number: fault if number == 0 else "") as proxy:
        verdicts, warned = scored(make(proxy.url, **(STALLING if fault == "stall" else {})), rollouts)
    assert torch.equal(verdicts.rewards, Brightness()(rollouts)) and warned == 0
    assert proxy.seen[:2] == [fault, ""]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_nan_counted_and_warned_of_and_never_a_number(server, make, fault):
    rollouts = noise(4)
    with between(server.url, lambda number: fault) as proxy:
        reward = make(proxy.url, retries=1, **(STALLING if fault == "stall" else {}))
        verdicts, warned = scored(reward, rollouts)
    assert bool(verdicts.rewards.isnan().all()) and verdicts.notes.total() == 4 and warned == 1
    assert verdicts.notes == reward.remote.failures and bool(verdicts.parts["dark"].isnan().all())
    assert len(proxy.seen) == 2  # one try and one more


def test_under_many_faults_each_row_has_its_own_number_or_none(server, make):
    # 40 requests, 30 % of the answers faulty, up to 4 tries: 0.3^4 = 0.8 % of requests stay without an answer.
    rollouts = noise(120)
    truth = Brightness()(rollouts)
    assert len(set(truth.tolist())) > 110  # a swapped row would show
    faults = tuple(fault for fault in FAULTS if fault != "stall")
    with between(server.url, at_random(3, 0.3, faults)) as proxy:
        reward = make(proxy.url, rows_per_request=3, break_after=100)
        verdicts, _ = scored(reward, rollouts)
    rewards = verdicts.rewards
    answered = ~rewards.isnan()
    assert torch.equal(rewards[answered], truth[answered])
    assert int(answered.sum()) >= 110 and verdicts.notes.total() == 120 - int(answered.sum())
    assert sum(bool(fault) for fault in proxy.seen) > 8


def test_a_server_that_is_gone_costs_nans_until_it_is_back(server, make):
    with between(server.url) as proxy:
        reward = make(proxy.url, break_after=2, retries=1, break_s=0.1, max_concurrency=1, rows_per_request=1)
        assert not bool(reward(noise(2)).rewards.isnan().any())
        proxy.gone = True
        lost, _ = scored(reward, noise(6, seed=1))
        assert bool(lost.rewards.isnan().all())
        # Two rows were asked about, twice each; then the breaker kept quiet for the other four.
        assert lost.notes.most_common(1)[0][1] == 4
        assert "was not asked" in lost.notes.most_common(1)[0][0]
        proxy.gone = False
        while reward.remote.client.breaker.is_open:
            time.sleep(0.01)
        again = noise(6, seed=1)
        assert torch.equal(reward(again).rewards, Brightness()(again))


def test_a_server_that_comes_back_with_other_weights_is_refused_and_the_same_weights_are_not(make):
    rollouts = noise(4)
    with (
        served(Brightness("one")) as one,
        served(Brightness("two", plus=1.0)) as two,
        served(Brightness("one")) as same,
    ):
        with between(one.url) as proxy:
            reward = make(proxy.url, retries=1)
            truth = reward(rollouts).rewards
            proxy.target = two.url
            verdicts, warned = scored(reward, rollouts)
            assert bool(verdicts.rewards.isnan().all()) and warned == 1
            assert f"now has revision {two.service.revision}, and had {reward.revision}" in next(iter(verdicts.notes))
            proxy.target = same.url
            assert torch.equal(reward(rollouts).rewards, truth)
        with pytest.raises(
            UserError, match=f"serves brightness of revision {two.service.revision}, not {reward.revision}"
        ):
            make(two.url, revision=reward.revision)


def test_the_cache_answers_what_was_asked_before_and_nothing_else(make, tmp_path):
    rollouts, cache = noise(6), tmp_path / "verdicts.sqlite"
    judge = Brightness("one")
    with served(judge) as server, between(server.url) as proxy:
        first = make(proxy.url, cache=cache)(rollouts).rewards
        again = make(proxy.url, cache=cache)
        verdicts = again(rollouts)
        assert torch.equal(verdicts.rewards, first) and len(proxy.seen) == 1
        assert torch.equal(verdicts.parts["dark"], 255 - first)
        more = noise(8)  # its first six are those
        assert torch.equal(again(more).rewards, Brightness()(more)) and len(proxy.seen) == 2
        assert judge.batches == [6, 6, 2, 2]  # reward and component; 2 new rows
        other_prompt = dataclasses.replace(
            rollouts, prompts=tuple(dataclasses.replace(p, text="a blue cup") for p in rollouts.prompts)
        )
        again(other_prompt)
        assert len(proxy.seen) == 3
    with served(Brightness("two", plus=1.0)) as server:  # another revision, another key
        assert torch.equal(make(server.url, cache=cache)(rollouts).rewards, first + 1)


def test_rows_without_a_verdict_are_not_cached(make, tmp_path):
    class Blind(Brightness):
        eyes_shut = True

        def __call__(self, rollouts):
            seen = super().__call__(rollouts)
            if self.eyes_shut:
                seen[1] = torch.nan
            return seen

    judge, rollouts = Blind(), noise(3)
    with served(judge) as server:
        reward = make(server.url, cache=tmp_path / "verdicts.sqlite")
        verdicts, warned = scored(reward, rollouts)
        assert verdicts.rewards.isnan().tolist() == [False, True, False] and warned == 1
        assert verdicts.notes == {"the judge has no verdict": 1}
        judge.eyes_shut = False
        assert torch.equal(reward(rollouts).rewards, Brightness()(rollouts))
    assert judge.batches == [3, 3, 1, 1]


def test_a_group_travels_whole_and_is_compared_whole(make, tmp_path):
    class WinRate:
        """The share of its group that a picture is brighter than."""

        name = "win-rate"

        def __call__(self, rollouts):
            means = Brightness()(rollouts).reshape(-1, rollouts.group_size)
            return (means[:, :, None] > means[:, None, :]).float().mean(2).flatten()

    rollouts = noise(18, group_size=6)
    with served(WinRate(), max_batch=8) as server:
        reward = make(server.url, rows_per_request=1, cache=tmp_path / "verdicts.sqlite")
        truth = WinRate()(rollouts)
        assert torch.equal(reward(rollouts).rewards, truth)
        # A group that shares five members with a known one is another group.
        pictures = rollouts.pictures.clone()
        pictures[1] = 255  # the darkest before
        changed = dataclasses.replace(rollouts, pictures=pictures)
        assert torch.equal(reward(changed).rewards, WinRate()(changed)) and not torch.equal(truth, WinRate()(changed))


def test_no_more_requests_are_on_their_way_than_allowed(make):
    on_their_way, most = [0], [0]

    with served(Brightness(seconds=0.01), max_wait_s=0.0, max_batch=1) as server:
        judge = server.service.judge

        async def counted(request):  # on the server's one event loop
            on_their_way[0] += 1
            most[0] = max(most[0], on_their_way[0])
            try:
                return await judge(request)
            finally:
                on_their_way[0] -= 1

        server.service.judge = counted
        make(server.url, max_concurrency=2, rows_per_request=1)(noise(8))
    assert most[0] == 2


def test_a_judge_that_cannot_judge_such_prompts_stops_the_run_as_it_does_locally(make):
    class Picky(Brightness):
        def __call__(self, rollouts):
            raise UserError("prompt 'x' has no questions: picky needs them.")

    with served(Picky()) as server, pytest.raises(UserError, match="picky needs them"):
        make(server.url)(noise(2))


def test_rows_with_nothing_to_judge_are_no_failure(make, tmp_path):
    class Half(Brightness):
        def applies(self, rollouts):
            return torch.arange(len(rollouts)) % 2 == 0

        def component_applies(self, rollouts):
            return {"dark": self.applies(rollouts)}

        def __call__(self, rollouts):
            return super().__call__(rollouts).masked_fill(~self.applies(rollouts), torch.nan)

    with served(Half()) as server:
        for _ in range(2):  # from the server, then from the cache
            reward = make(server.url, cache=tmp_path / "verdicts.sqlite")
            rollouts = noise(4)
            verdicts, warned = scored(reward, rollouts)
            assert verdicts.rewards.isnan().tolist() == verdicts.applies.logical_not().tolist() == [False, True] * 2
            assert verdicts.part_applies["dark"].tolist() == [True, False] * 2
            assert warned == 0 and not verdicts.notes and not reward.remote.failures


def test_nobody_at_the_address_is_one_line_at_construction(make):
    for url, says in (("http://127.0.0.1:9", "no reward is served at"), ("ftp://x", "HOST:PORT"), ("::", "HOST:PORT")):
        with pytest.raises(UserError, match=says) as error:
            make(url)
        assert "\n" not in str(error.value)


def test_another_program_or_version_at_the_address_is_one_line_at_construction(server, make, monkeypatch):
    with pytest.raises(UserError, match=r"no reward is served at .*HTTP 404"):
        make(server.url + "/nothing")
    newer = server.service.about.model_copy(update={"api": 2, "version": "9.9"})
    monkeypatch.setattr(type(server.service), "about", newer)
    with pytest.raises(UserError, match=r"speaks version 2 of the interface \(thinkdraw 9.9\)"):
        make(server.url)


def test_a_wrong_or_missing_token_is_one_line_at_construction_and_the_right_one_opens(make, monkeypatch):
    with served(Brightness(), token="correct horse battery") as server:
        for shown in ("", "wrong horse battery!!"):
            monkeypatch.setenv("JUDGE_TOKEN", shown)
            with pytest.raises(UserError, match="token is missing or wrong"):
                make(server.url, token_env="JUDGE_TOKEN")
        monkeypatch.setenv("JUDGE_TOKEN", "correct horse battery")
        reward = make(server.url, token_env="JUDGE_TOKEN")
        assert not bool(reward(noise(2)).rewards.isnan().any())


def test_a_token_that_expires_stops_the_run_and_is_not_asked_again(make, monkeypatch):
    monkeypatch.setenv("THINKDRAW_TOKEN", "correct horse battery")
    with (
        served(Brightness(), token="correct horse battery") as one,
        served(Brightness(), token="another horse battery") as two,
    ):
        with between(one.url) as proxy:
            reward = make(proxy.url)
            proxy.target = two.url
            with pytest.raises(UserError, match="token is missing or wrong"):
                reward(noise(2))
            assert len(proxy.seen) == 1


def test_the_usual_token_goes_to_this_machine_and_trusted_hosts_and_no_password_is_taken(make, monkeypatch):
    monkeypatch.setenv("THINKDRAW_TOKEN", "correct horse battery")
    for url in ("http://me:sk-secret@127.0.0.1:9", "http://127.0.0.1:9/?token=sk-secret"):
        with pytest.raises(UserError, match="holds a user, a password or a query") as caught:
            make(url)
        assert "sk-secret" not in str(caught.value)
    with pytest.raises(UserError, match=r"in clear.*THINKDRAW_TRUSTED_HOSTS=judge\.example"):
        make("http://judge.example:8421", token_env="THINKDRAW_TOKEN")
    sent = []
    monkeypatch.setattr(
        "thinkdraw.serve.client.HttpClient",
        lambda url, token, *rest: sent.append(token) or 1 / 0,  # type: ignore[misc]
    )
    for url in ("http://127.0.0.1:9", "http://judge.example:9", "https://judge.example:9"):
        with pytest.raises(ZeroDivisionError):
            make(url)
    monkeypatch.setenv("THINKDRAW_TRUSTED_HOSTS", "judge.example")
    with pytest.raises(ZeroDivisionError):
        make("http://judge.example:9")
    assert sent == ["correct horse battery", "", "", "correct horse battery"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"max_concurrency": 0}, "max_concurrency=0"),
        ({"retries": -1}, "retries=-1"),
        ({"pictures": "jpeg"}, "one of raw, png"),
    ],
)
def test_settings_out_of_range_are_refused(server, make, settings, says):
    with pytest.raises(UserError, match=says):
        make(server.url, **settings)


def test_pictures_and_groups_that_the_server_does_not_take_stop_before_anything_is_asked(make):
    with served(Brightness(), limits={"side": 8, "rows": 4}) as server, between(server.url) as proxy:
        reward = make(proxy.url)
        with pytest.raises(UserError, match="takes 8 pixels a side"):
            reward(noise(1, side=16))
        with pytest.raises(UserError, match="group of 5 is more than the 4 rows"):
            reward(noise(5, group_size=5))
        assert not bool(reward(noise(9)).rewards.isnan().any()) and len(proxy.seen) == 3  # 4 + 4 + 1
    with pytest.raises(ValueError, match="have no pictures"):
        reward(dataclasses.replace(noise(1), pictures=None))


def test_an_absent_client_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    for module in ("thinkdraw.serve.reward", "thinkdraw.serve.client", "thinkdraw.runtime.http"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(UserError, match=r"pip install 'thinkdraw\[remote\]'"):
        load_reward("http", url="http://127.0.0.1:9")


def test_the_environments_proxy_is_not_asked_for_this_machine(server, make, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert os.environ["HTTP_PROXY"] and make(server.url).name == "brightness"
