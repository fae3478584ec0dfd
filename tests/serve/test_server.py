import dataclasses
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
import torch
from tests.benchmarks.stub import rollouts as of_pictures
from tests.serve.fault_proxy import between
from tests.serve.serving import Brightness, noise, served
from tests.training.helpers import ROOT, LowCodes, grpo_config, rows_without_times

from thinkdraw.config import load_config
from thinkdraw.errors import UserError
from thinkdraw.judges.scorers.clip import LabClipScorer
from thinkdraw.lab import checkpoint_path, clip_path
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.lab.scenes import draw
from thinkdraw.recipes import grpo
from thinkdraw.rewards.clip_score import ClipScoreReward
from thinkdraw.rewards.combined import CombinedReward
from thinkdraw.rewards.opening import open_reward
from thinkdraw.rewards.revision import revision_of
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.runtime.checkpoint import latest_checkpoint
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.serve.queue import FullError, JudgeQueue
from thinkdraw.serve.reward import HttpReward
from thinkdraw.serve.server import ServeConfig, bind_socket, require_token
from thinkdraw.serve.warm_up import warm_up
from thinkdraw.serve.wire import ABOUT, JUDGE, JudgeReply, Limits, parse, read_request, row_hashes, write_request

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server():
    with served(Brightness(), limits={"rows": 8, "bytes": 40_000, "side": 16}) as there:
        yield there


class Gated(Brightness):
    """Judges when told; `begun` is set when it has something to judge."""

    def __init__(self):
        super().__init__()
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, rollouts):
        self.begun.set()
        assert self.gate.wait(20)
        return super().__call__(rollouts)


def waited(until, seconds=20.0):
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not until() and time.monotonic() < end:
        time.sleep(0.01)
    return until()


def submitted(queue, rollouts):
    return queue.submit(rollouts, row_hashes(rollouts))


def rewards_of(futures):
    return [verdict.reward for future in futures for verdict in future.result(20)]


# The queue


def test_what_waits_is_judged_as_one_batch_and_each_gets_its_own():
    judge, asked = Gated(), [noise(2, seed=seed) for seed in range(5)]
    queue = JudgeQueue(as_reward(judge), max_batch=6, max_wait_s=0.0, max_rows=100)
    first = submitted(queue, asked[0])
    assert judge.begun.wait(20)
    others = [submitted(queue, rollouts) for rollouts in asked[1:]]
    judge.gate.set()
    for futures, rollouts in zip([first, *others], asked):
        assert rewards_of(futures) == Brightness()(rollouts).tolist()
    queue.close()
    assert judge.batches == [2, 2, 6, 6, 2, 2]  # each batch twice: reward and component
    assert queue.counts == {"batches": 3, "rows": 10, "no_verdict_rows": 0}


def test_groups_pictures_and_settings_of_different_kinds_are_not_mixed():
    judge = Gated()
    queue = JudgeQueue(as_reward(judge), max_batch=100, max_wait_s=0.0, max_rows=100)
    asked = [noise(2), noise(2, side=16), noise(2, group_size=2), noise(4)]
    asked.append(dataclasses.replace(noise(2), sampling=noise(2).sampling.model_copy(update={"temperature": 0.5})))
    held = submitted(queue, noise(1))
    assert judge.begun.wait(20)
    futures = [submitted(queue, rollouts) for rollouts in asked]
    judge.gate.set()
    for found, rollouts in zip(futures, asked):
        assert rewards_of(found) == Brightness()(rollouts).tolist()
    rewards_of(held)
    queue.close()
    assert judge.batches[2::2] == [6, 2, 2, 2]  # the first and the fourth together


def test_a_large_request_is_judged_in_batches_of_whole_groups():
    judge = Brightness()
    queue = JudgeQueue(as_reward(judge), max_batch=8, max_wait_s=0.0, max_rows=100)
    rollouts = noise(15, group_size=3)
    assert rewards_of(submitted(queue, rollouts)) == Brightness()(rollouts).tolist()
    assert rewards_of(submitted(queue, noise(10, group_size=10))) == Brightness()(noise(10)).tolist()
    queue.close()
    assert judge.batches[::2] == [6, 6, 3, 10]


def test_a_full_queue_refuses_and_a_closed_one_ends_what_it_has():
    judge = Gated()
    queue = JudgeQueue(as_reward(judge), max_batch=2, max_wait_s=0.0, max_rows=4)
    running = submitted(queue, noise(2))
    assert judge.begun.wait(20)
    waiting = submitted(queue, noise(3))
    with pytest.raises(FullError, match="3 rows wait already, and at most 4 may"):
        submitted(queue, noise(2))
    closing = threading.Thread(target=queue.close)
    closing.start()
    while queue.is_open:
        time.sleep(0.01)
    with pytest.raises(FullError, match="shutting down"):
        submitted(queue, noise(1))
    judge.gate.set()
    closing.join(20)
    assert len(rewards_of(running)) == 2 and len(rewards_of(waiting)) == 3


def test_what_nobody_waits_for_any_more_is_not_judged():
    judge = Gated()
    queue = JudgeQueue(as_reward(judge), max_batch=2, max_wait_s=0.0, max_rows=10)
    running = submitted(queue, noise(2))
    assert judge.begun.wait(20)
    for future in submitted(queue, noise(4, seed=1)):
        assert future.cancel()
    judge.gate.set()
    rewards_of(running)
    queue.close()
    assert queue.counts["rows"] == 2


class Failing(Brightness):
    """Breaks on pictures with a first pixel of 0, and cannot judge those with one of 1 at all."""

    def __call__(self, rollouts):
        if bool((rollouts.pictures[:, 0, 0, 0] == 0).any()):
            raise RuntimeError("out of\nmemory")
        if bool((rollouts.pictures[:, 0, 0, 0] == 1).any()):
            raise UserError("such a picture cannot be judged.")
        return super().__call__(rollouts)


def marked(rollouts, **first_pixels):
    pictures = rollouts.pictures.clone()
    pictures[:, 0, 0, 0] = 9
    for row, value in first_pixels.items():
        pictures[int(row[1:]), 0, 0, 0] = value
    return dataclasses.replace(rollouts, pictures=pictures)


def test_a_row_that_breaks_the_judge_has_no_verdict_and_a_reason_and_costs_no_other_group_its_verdict():
    queue = JudgeQueue(as_reward(Failing()), max_batch=8, max_wait_s=0.0, max_rows=10)
    rollouts = marked(noise(6, group_size=2), r2=0)
    (future,) = submitted(queue, rollouts)
    verdicts = future.result(20)
    queue.close()
    truth = Brightness()(rollouts).tolist()
    assert [v.reward for v in verdicts] == [truth[0], truth[1], None, None, truth[4], truth[5]]
    assert [bool(v.reason and "raised RuntimeError: out of memory" in v.reason) for v in verdicts] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert [v.hash for v in verdicts] == row_hashes(rollouts) and queue.counts["no_verdict_rows"] == 2


def test_only_the_request_that_cannot_be_judged_hears_of_it():
    judge = Failing()
    queue = JudgeQueue(as_reward(judge), max_batch=8, max_wait_s=0.2, max_rows=10)
    asked = [marked(noise(2, seed=1)), marked(noise(2, seed=2), r1=1)]
    good, bad = (submitted(queue, rollouts) for rollouts in asked)
    assert rewards_of(good) == Brightness()(asked[0]).tolist()
    with pytest.raises(UserError, match="cannot be judged"):
        rewards_of(bad)
    queue.close()


def test_a_reward_of_the_wrong_length_gives_no_verdict():
    class Short(Brightness):
        def components(self, rollouts):
            return {"dark": self(rollouts)[1:]}

    queue = JudgeQueue(as_reward(Short()), max_batch=8, max_wait_s=0.0, max_rows=10)
    (future,) = submitted(queue, noise(2, group_size=2))
    (reason,) = {v.reason for v in future.result(20)}
    assert (
        reason is not None and "components[dark] has shape (1,). Return one number for each of the 2 rollouts" in reason
    )
    queue.close()


def test_a_number_that_is_not_finite_is_no_verdict():
    class Odd(Brightness):
        def __call__(self, rollouts):
            return torch.tensor([1.0, torch.nan, torch.inf, -torch.inf])

    queue = JudgeQueue(as_reward(Odd()), max_batch=8, max_wait_s=0.0, max_rows=10)
    (future,) = submitted(queue, noise(4))
    assert [v.reward for v in future.result(20)] == [1.0, None, None, None]
    queue.close()


# The application


def post(server, body, **headers):
    return httpx.post(server.url + JUDGE, content=body, headers={**JSON, **headers})


def test_it_says_who_it_is_and_how_it_does(server):
    about = httpx.get(server.url + ABOUT).json()
    assert (about["reward"], about["components"], about["api"]) == ("brightness", ["dark"], 1)
    assert (
        about["revision"] == server.service.revision
        and about["limits"] == Limits(rows=8, bytes=40_000, side=16).model_dump()
    )
    assert httpx.get(server.url + "/health").status_code == 200
    reply = post(server, write_request(noise(3), "r7")).json()
    assert (reply["id"], reply["revision"], len(reply["rows"])) == ("r7", server.service.revision, 3)
    metrics = httpx.get(server.url + "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines())
    assert lines['thinkdraw_requests_total{code="200"}'] == "1" and lines["thinkdraw_rows_total"] == "3"
    assert lines[f'thinkdraw_served{{reward="brightness",revision="{server.service.revision}"}}'] == "1"
    assert float(lines["thinkdraw_judge_seconds_total"]) > 0 == int(lines["thinkdraw_waiting_rows"])


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"{}", {}, 400, "no JudgeRequest"),
        (write_request(noise(2), "r")[:-20], {}, 400, "no JudgeRequest"),
        (write_request(noise(2), "r"), {"content-type": "text/plain"}, 415, "application/json"),
        (write_request(noise(9), "r"), {}, 422, "this server takes 8"),
        (write_request(noise(1, side=32), "r"), {}, 422, "16 pixels a side"),
        (b" " * 40_001, {}, 413, "requests of 40000 bytes"),
    ],
)
def test_a_request_that_is_wrong_is_refused_in_one_line(server, body, headers, status, says):
    response = post(server, body, **headers)
    assert response.status_code == status and says in response.text and response.text.count("\n") == 1


def test_a_body_without_a_length_is_measured_as_it_comes(server):
    response = post(server, (b" " * 1000 for _ in range(1000)))
    assert response.status_code == 413


def test_all_but_health_needs_the_token():
    with served(Brightness(), token="correct horse battery") as server:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer correct horse batter"}, 401),
            ({"authorization": "correct horse battery"}, 401),
            ({"authorization": "Bearer correct horse battery"}, 200),
        ):
            assert httpx.get(server.url + ABOUT, headers=headers).status_code == status
            assert httpx.get(server.url + "/metrics", headers=headers).status_code == status
            assert post(server, write_request(noise(1), "r"), **headers).status_code == status
        assert httpx.get(server.url + "/health").status_code == 200


@pytest.mark.parametrize(
    ("host", "token", "says"),
    [
        ("0.0.0.0", "", "host=0.0.0.0 is open to other machines, which needs a token. Set A_TOKEN"),
        ("::", "", "needs a token"),
        ("192.168.0.7", "", "needs a token"),
        ("judge.example", "", "needs a token"),
        ("0.0.0.0", "short", "has 5 characters"),
        ("127.0.0.1", "sixteen – or more", "no HTTP header carries"),
        ("0.0.0.0", "sixteen or more!", None),
        ("127.0.0.1", "", None),
        ("localhost", "", None),
        ("::1", "", None),
    ],
)
def test_beyond_this_machine_it_does_not_start_without_a_token(monkeypatch, host, token, says):
    monkeypatch.setenv("A_TOKEN", token)
    config = ServeConfig(host=host, token_env="A_TOKEN")
    if says is None:
        assert require_token(config) == token
    else:
        with pytest.raises(UserError, match=says):
            require_token(config)


def test_a_port_that_is_taken_is_one_line():
    with bind_socket(ServeConfig(port=0)) as taken:
        taken.listen()
        with pytest.raises(UserError, match=r"cannot listen at .*Choose another port="):
            bind_socket(ServeConfig(port=taken.getsockname()[1]))


def test_a_full_queue_says_when_to_come_back_and_the_client_does():
    judge = Gated()
    with served(judge, max_waiting=2, max_batch=2, max_wait_s=0.0) as server:
        reward = HttpReward(server.url, rows_per_request=2, max_concurrency=4, backoff_s=0.05, timeout_s=20)
        refused = server.service.requests
        opened = threading.Thread(target=lambda: waited(lambda: refused[429] > 0) and judge.gate.set())
        opened.start()
        rollouts = noise(8)
        assert torch.equal(reward(rollouts).rewards, Brightness()(rollouts))
        reward.close()
        opened.join()
        assert refused[429] > 0 and refused[200] == 4


def test_a_client_that_has_gone_is_not_judged_for():
    judge = Gated()
    with served(judge, max_batch=2, max_wait_s=0.0) as server:
        held = threading.Thread(target=post, args=(server, write_request(noise(2), "r")))
        held.start()
        assert judge.begun.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + JUDGE, content=write_request(noise(2, seed=1), "gone"), headers=JSON, timeout=0.2)
        while not server.service.requests[499]:
            time.sleep(0.01)
        judge.gate.set()
        held.join(20)
    assert server.service.queue.counts["rows"] == 2


def test_an_absent_server_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "thinkdraw.serve.server")
    with pytest.raises(UserError, match=r"serving needs the package uvicorn, .*pip install 'thinkdraw\[serve\]'"):
        importlib.import_module("thinkdraw.serve.server")


# Who judges


def test_the_revision_changes_with_settings_and_weights_and_with_nothing_else():
    def reward(scale=1.0):
        made = Brightness(revision="")
        made.judge = {"inside": [torch.nn.Linear(3, 2)]}
        torch.nn.init.constant_(made.judge["inside"][0].weight, scale)
        torch.nn.init.zeros_(made.judge["inside"][0].bias)
        return made

    first = revision_of(as_reward(reward()), {"a": 1})
    assert first == revision_of(as_reward(reward()), {"a": 1}) and len(first) == 12
    others = {
        revision_of(as_reward(reward()), {"a": 2}),
        revision_of(as_reward(reward(1.001)), {"a": 1}),
        revision_of(as_reward(Brightness("two")), {"a": 1}),
    }
    assert len({first, *others}) == 4


def test_the_first_look_finds_components_and_warns_of_a_judge_that_fails():
    assert warm_up(open_reward("lab-detector")) == ["facts", "correct"]
    broken = Brightness()
    broken.components = lambda rollouts: 1 / 0
    with pytest.warns(UserWarning, match="brightness has not judged a picture of the lab: .* division by zero"):
        assert warm_up(as_reward(broken)) is None


def lab_rollouts(count=24, group_size=4):
    examples = [e for e in prompt_set("compbench", "train", count // group_size) for _ in range(group_size)]
    rng = np.random.default_rng(0)
    mixed = [examples[i if i % 3 else -1 - i] for i in range(count)]  # every third picture is of another prompt
    pictures = torch.from_numpy(np.stack([draw(example.scene(rng)) for example in mixed]))
    made = of_pictures([example.prompt for example in examples], pictures, [""] * count)
    return dataclasses.replace(made, group_size=group_size)


@pytest.mark.parametrize("name", ["lab-detector", pytest.param("lab-clip", marks=pytest.mark.skipif(
    not (clip_path() / "config.json").is_file(), reason="the lab's CLIP is not in this tree"))])  # fmt: skip
def test_a_lab_reward_gives_the_same_numbers_over_http_as_here(name):
    rollouts, local = lab_rollouts(), open_reward(name)
    with served(open_reward(name), max_batch=8) as server:
        remote = open_reward("http", url=server.url, rows_per_request=5)
        here, there = local(rollouts), remote(rollouts)
        torch.testing.assert_close(there.rewards, here.rewards, rtol=0, atol=1e-6 if name == "lab-clip" else 0)
        assert float(here.rewards.std()) > 0
        assert all(torch.equal(there.parts[n], values) for n, values in here.parts.items())
        remote.close()


def test_a_combined_reward_is_weighed_and_applies_as_it_does_here():
    class Faint(Brightness):
        def applies(self, rollouts):
            return Brightness()(rollouts) < 127.5

        def __call__(self, rollouts):
            return super().__call__(rollouts).masked_fill(~self.applies(rollouts), torch.nan)

    def local():
        return CombinedReward({"bright": Brightness(), "faint": Faint()}, {"faint": -2.0})

    rollouts = noise(8, group_size=4)
    with served(local()) as server:
        remote = HttpReward(server.url)
        here, there = local()(rollouts), remote(rollouts)
        torch.testing.assert_close(there.rewards, here.rewards, rtol=0, atol=0)
        assert remote.weights == local().weights == {"bright": 1.0, "faint": -2.0}
        for ours, theirs in ((here.parts, there.parts), (here.part_applies, there.part_applies)):
            assert ours.keys() == theirs.keys()
            for name, values in ours.items():
                torch.testing.assert_close(theirs[name], values, rtol=0, atol=0, equal_nan=True)
        assert 0 < int(there.parts["faint"].isnan().sum()) < 8 and not there.notes
        remote.close()


@pytest.mark.skipif(not (clip_path() / "config.json").is_file(), reason="the lab's CLIP is not in this tree")
def test_a_clip_of_other_weights_is_another_revision():
    scorer = LabClipScorer()
    with torch.no_grad():
        scorer.model.visual_projection.weight.mul_(1.001)
    first = revision_of(ClipScoreReward(LabClipScorer()), {})
    assert revision_of(ClipScoreReward(LabClipScorer()), {}) == first != revision_of(ClipScoreReward(scorer), {})


# A run that is judged over HTTP


def test_a_run_whose_judge_goes_away_stops_with_its_name_and_resumes_to_the_same_numbers(tmp_path, policy):
    changes = {"max_steps": 2, "save_every": 1, "minibatches": 1}
    with served(LowCodes()) as server, between(server.url) as proxy:
        settings = {"url": proxy.url, "retries": 1, "backoff_s": 0.01, "timeout_s": 20}
        over_http = {"reward": {"name": "http", "settings": settings}}
        config = grpo_config(tmp_path / "remote", policy, **changes, **over_http)
        proxy.plan = lambda number: "" if number < 1 else "reset"  # the first phase is judged
        with pytest.warns(UserWarning, match="no verdict on 12 of 12"):
            with pytest.raises(UserError, match=r"reward low-codes gave no verdict .NaN. for 100%"):
                grpo.run(config)
        assert len(MetricsLog.read(config.out / "metrics.jsonl")) == 1 and latest_checkpoint(config.out) is not None
        proxy.plan = lambda number: ""
        grpo.run(config)
    local = grpo_config(tmp_path / "local", policy, **changes)
    grpo.run(local)
    assert rows_without_times(config.out) == rows_without_times(local.out)


# The command


def test_the_command_serves_until_it_is_told_to_stop_and_then_gives_what_is_due():
    code = "from thinkdraw.cli import main; import sys; sys.argv = ['thinkdraw', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", code, "serve", "tests.serve.serving:Brightness", "port=0"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command += ["max_batch=1", "reward.settings={revision: nine, seconds: 0.2}"]
    job = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = job.stdout.readline()
        assert line.startswith("serving brightness, revision "), line + job.stderr.read()
        url = line.split()[-1]
        rollouts, answers = noise(2), []
        body = write_request(rollouts, "r")
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(url + JUDGE, content=body, headers=JSON, timeout=20).json())
        )
        asking.start()
        while "thinkdraw_waiting_rows 1" not in httpx.get(url + "/metrics").text:  # the other row is being judged
            time.sleep(0.02)
        job.send_signal(signal.SIGINT)
        asking.join(20)
        assert [row["reward"] for row in answers[0]["rows"]] == Brightness()(rollouts).tolist()
        assert job.wait(20) == 0
    finally:
        job.kill()
        job.communicate()


# The page


def page_blocks(language):
    page = (ROOT / "docs/serving.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_the_messages_of_the_page_are_messages():
    asked, answered = (block.encode() for block in page_blocks("json"))
    request_id, rollouts = read_request(asked, Limits())
    assert request_id == "3f2a" and rollouts.prompts[0].include[0]["color"] == "red"
    assert parse(JudgeReply, answered).rows[0].reason == "RuntimeError: out of memory"


def test_the_configuration_of_the_page_is_one(tmp_path):
    (block,) = page_blocks("yaml")
    (tmp_path / "c.yaml").write_text(block)
    settings = load_config(grpo.GrpoConfig, tmp_path / "c.yaml").reward.settings
    inspect.signature(HttpReward).bind(**settings)


def test_the_defaults_of_the_page_are_those_of_the_client():
    page = (ROOT / "docs/serving.md").read_text()
    stated = dict(re.findall(r"^\| `(\w+)` \| `?(\w[\w.]*)`? \|", page, flags=re.MULTILINE))
    for name, parameter in inspect.signature(HttpReward).parameters.items():
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        assert stated[name] == ("none" if default is None else str(default).removesuffix(".0")), name


@pytest.mark.skipif(not (checkpoint_path() / "config.json").is_file(), reason="the lab checkpoint is not in this tree")
def test_the_python_of_the_page_runs(capsys):
    (block,) = page_blocks("python")
    with served(Brightness()) as server:
        exec(compile(block.replace("http://127.0.0.1:8421", server.url), "serving.md", "exec"), {})
    assert capsys.readouterr().out.startswith(f"brightness {server.service.revision} tensor([")
