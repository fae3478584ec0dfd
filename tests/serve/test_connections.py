"""A server that stays up answers: silent and dripping clients, broken and hung judges, more clients than places."""

import asyncio
import json
import socket
import threading

import httpx
import pytest
import torch
from tests.serve.serving import Brightness, noise, served
from tests.serve.test_server import JSON, Gated, post, rewards_of, submitted, waited

from thinkdraw.errors import UserError
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.serve.intake import MemoryBudget, Refusal
from thinkdraw.serve.queue import FullError, JudgeQueue, JudgingError
from thinkdraw.serve.reward import HttpReward
from thinkdraw.serve.server import ServeConfig, bind_socket
from thinkdraw.serve.wire import ABOUT, JUDGE, Limits, write_request
from thinkdraw.types import Rollouts

HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % JUDGE.encode()


def connected(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def said_before_the_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    try:
        while part := connection.recv(65536):
            said += part
    except ConnectionResetError:
        pass
    return said


# Clients that keep it waiting


@pytest.mark.parametrize("begins", [b"", b"GET /hea", HEAD])
def test_a_connection_that_sends_no_whole_request_is_closed(begins):
    with served(Brightness(), silent_s=0.1) as server, connected(server) as connection:
        connection.sendall(begins)
        assert said_before_the_end(connection) == b""


def test_a_head_that_drips_in_is_no_sign_of_life():
    with served(Brightness(), silent_s=0.2) as server, connected(server) as connection:
        for byte in HEAD * 1000:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
            threading.Event().wait(0.01)
        else:
            raise AssertionError("it was never closed")


@pytest.mark.parametrize("length", [b"content-length: 5000", b"transfer-encoding: chunked"])
def test_a_body_that_does_not_come_is_refused_with_the_reason(length):
    with served(Brightness(), silent_s=0.1) as server, connected(server) as connection:
        connection.sendall(HEAD + length + b"\r\n\r\n")
        said = said_before_the_end(connection)
        assert said.startswith(b"HTTP/1.1 408") and b"The request does not come: 0 bytes" in said
        assert server.service.requests[408] == 1


def test_a_kept_connection_is_used_again_and_closed_when_it_is_silent():
    with served(Brightness(), silent_s=1.0) as server, connected(server) as connection:
        for _ in range(3):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            said = b""
            while not said.endswith(b"ok\n"):
                part = connection.recv(65536)
                assert part, said
                said += part
        assert said_before_the_end(connection) == b""


def test_idle_connections_give_way_to_a_new_client():
    with served(Brightness(), max_connections=4, silent_s=60.0) as server:
        silent = [connected(server) for _ in range(12)]
        assert httpx.get(server.url + ABOUT).status_code == 200
        rollouts, reward = noise(2), HttpReward(server.url)
        assert torch.equal(reward(rollouts).rewards, Brightness()(rollouts))
        reward.close()
        for connection in silent:
            connection.close()


def test_a_client_that_finds_no_place_is_told_so_and_when_to_come_back():
    judge = Gated()
    with served(judge, max_connections=1, max_wait_s=0.0) as server:
        held = threading.Thread(target=post, args=(server, write_request(noise(1), "r")))
        held.start()
        assert judge.begun.wait(20)
        response = post(server, write_request(noise(1), "s"))
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.text == "The server is busy with 1 requests. Ask again later.\n"
        assert httpx.get(server.url + "/health").text == "ok\n"  # and watching it always works
        judge.gate.set()
        held.join(20)


def test_a_busy_server_is_not_said_to_be_missing(monkeypatch):
    with served(Brightness()) as server:
        monkeypatch.setattr(
            "thinkdraw.serve.server.Service.about", property(lambda self: (_ for _ in ()).throw(Refusal(503, "full")))
        )
        monkeypatch.setattr("thinkdraw.serve.client._ABOUT_RETRIES", 0)
        with pytest.raises(UserError, match=r"the server at .* is busy \(HTTP 503: full\)\. Try again later"):
            HttpReward(server.url)


def test_a_hundred_clients_at_once_are_all_served():
    with served(Brightness()) as server, httpx.Client(timeout=30, limits=httpx.Limits(max_connections=None)) as client:
        body, answers = write_request(noise(2), "r"), []

        def ask():
            answers.append(client.post(server.url + JUDGE, content=body, headers=JSON).status_code)

        threads = [threading.Thread(target=ask) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 100


def test_answers_do_not_wait_for_more_to_send():
    with bind_socket(ServeConfig(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # what asyncio sets TCP_NODELAY by


def test_room_is_given_in_turn_and_comes_back():
    async def main():
        memory, order = MemoryBudget(10, patience_s=0.05), []

        async def take(name, size, until=None):
            async with memory.hold(size):
                order.append(name)
                if until:
                    await until.wait()

        end = asyncio.Event()
        first = asyncio.create_task(take("first", 8, end))
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="1 requests wait to be read"):
            await take("second", 5)
        waiting = [asyncio.create_task(take(f"{size}", size)) for size in (9, 1, 500)]
        await asyncio.sleep(0)
        assert order == ["first"]  # the small one does not overtake, so that the large one has its turn
        end.set()
        await asyncio.gather(first, *waiting)
        assert order == ["first", "9", "1", "500"] and memory._left == 10

    asyncio.run(main())


# A judge in trouble


def test_an_error_outside_the_judge_ends_its_request_and_no_other(monkeypatch):
    queue = JudgeQueue(as_reward(Brightness()), max_batch=8, max_wait_s=0.0, max_rows=100)
    monkeypatch.setattr("thinkdraw.serve.queue.Rollouts.join", lambda parts: 1 // 0)
    with pytest.raises(JudgingError, match="ZeroDivisionError: integer division"):
        rewards_of(submitted(queue, noise(2)))
    monkeypatch.undo()
    assert rewards_of(submitted(queue, noise(2))) == Brightness()(noise(2)).tolist() and queue.is_open
    assert queue.counts["failed_requests"] == 1
    queue.close()


def test_requests_that_cannot_be_joined_are_judged_one_by_one(monkeypatch):
    judge = Gated()
    queue = JudgeQueue(as_reward(judge), max_batch=8, max_wait_s=0.0, max_rows=100)
    join = Rollouts.join

    def no_memory_for_two(parts):
        if len(parts) > 1:
            raise MemoryError
        return join(parts)

    monkeypatch.setattr("thinkdraw.serve.queue.Rollouts.join", no_memory_for_two)
    held = submitted(queue, noise(1))
    assert judge.begun.wait(20)
    others = [submitted(queue, noise(2, seed=seed)) for seed in (1, 2)]
    judge.gate.set()
    assert [rewards_of(f) for f in others] == [Brightness()(noise(2, seed=s)).tolist() for s in (1, 2)]
    rewards_of(held)
    assert queue.counts["batches"] == 3
    queue.close()


def test_an_error_while_a_batch_is_collected_is_told_to_those_who_wait(monkeypatch):
    queue = JudgeQueue(as_reward(Brightness()), max_batch=8, max_wait_s=0.0, max_rows=100)
    monkeypatch.setattr(JudgeQueue, "_batch_of_first", lambda self: 1 // 0)
    with pytest.raises(JudgingError, match="ZeroDivisionError"):
        rewards_of(submitted(queue, noise(2)))
    monkeypatch.undo()
    assert rewards_of(submitted(queue, noise(2))) == Brightness()(noise(2)).tolist()
    queue.close()


def test_a_judge_that_ends_the_program_has_no_verdict():
    class Quits(Brightness):
        def __call__(self, rollouts):
            raise SystemExit("enough")

    with served(Quits()) as server:
        rows = post(server, write_request(noise(2), "r")).json()["rows"]
        assert [row["reward"] for row in rows] == [None, None]
        assert all("reward brightness raised SystemExit: enough" in row["reason"] for row in rows)
        assert httpx.get(server.url + "/health").status_code == 200


def test_a_server_error_says_what_it_was(monkeypatch):
    with served(Brightness()) as server:
        monkeypatch.setattr("thinkdraw.serve.server.Service._read", lambda self, body: [][0])
        response = post(server, write_request(noise(1), "r"))
        assert (
            response.status_code == 500 and response.text == "The server failed: IndexError: list index out of range\n"
        )
        assert server.service.requests[500] == 1
        monkeypatch.undo()
        assert post(server, write_request(noise(1), "r")).status_code == 200


def test_a_hung_judge_shows_and_nobody_waits_for_it():
    judge = Gated()
    with served(judge, hung_s=0.1, max_wait_s=0.0, shutdown_s=1) as server:
        response = post(server, write_request(noise(1), "r"))
        assert response.status_code == 503 and "has been at one batch for" in response.text
        health = httpx.get(server.url + "/health")
        assert health.status_code == 503 and "the judge has been at one batch for" in health.text
        metrics = httpx.get(server.url + "/metrics").text
        assert "\nthinkdraw_healthy 0\n" in metrics and float(metrics.split("judging_seconds ")[1].split()[0]) > 0.1
        with pytest.raises(FullError, match=r"hung_s is 0\.1"):
            submitted(server.service.queue, noise(1))
        judge.gate.set()
        assert waited(lambda: server.service.queue.is_open)
        assert httpx.get(server.url + "/health").text == "ok\n"


# Small requests, large work


def small(**changes):
    """A request of 2×2 pictures."""
    request = json.loads(write_request(noise(4, side=2), "r"))
    return json.dumps(request | changes).encode()


def with_first_row(**changes):
    request = json.loads(small())
    request["rows"][0] |= changes
    return json.dumps(request).encode()


def long_row(count):
    return {"tokens": [1] * count, "segment": [0] * count, "is_image": [False] * count, "mask": [True] * count}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (with_first_row(**long_row(1001)), "4 rows of up to 1001 tokens: with padding, this server takes 4000"),
        (with_first_row(**long_row(300_000)), "the request has more values than"),
        (
            write_request(noise(8, side=16), "r", "png"),
            "pictures of 2048 pixels in one request: this server takes 1024",
        ),
        (
            write_request(noise(8, side=16), "r", "raw"),
            "pictures of 2048 pixels in one request: this server takes 1024",
        ),
        (small(prompts=[{"text": "a"}] * 9), "9 prompts in one request: this server takes 8"),
        (small(prompts=[{"text": "a"}] * 5000), "the request has more values than"),
        (small(**{f"key{number}": 1 for number in range(5000)}), "the request has more values than"),
    ],
)
def test_a_small_request_for_large_work_is_refused_before_anything_is_unpacked(monkeypatch, body, says):
    monkeypatch.setattr("thinkdraw.serve.wire._OTHER_VALUES", 1000)
    monkeypatch.setattr("thinkdraw.serve.wire.read_picture", lambda content: 1 // 0)
    monkeypatch.setattr("thinkdraw.serve.wire.pad_sequence", lambda *_: 1 // 0)
    with served(Brightness(), limits={"rows": 8, "tokens": 4000, "pixels": 1024}) as server:
        response = post(server, body)
        assert response.status_code == 422 and says in response.text


def test_of_many_wrong_values_only_the_first_is_described(monkeypatch):
    with served(Brightness()) as server:
        assert post(server, with_first_row(**long_row(5) | {"tokens": ["a"] * 5})).text.count("tokens.0: ") == 1
        monkeypatch.setattr("thinkdraw.serve.wire._MAX_ERRORS", 4)
        response = post(server, small(**{f"key{number}": 1 for number in range(5)}))
        assert (response.status_code, response.text) == (400, "no JudgeRequest: 5 values are wrong\n")


def test_a_client_asks_for_no_more_at_once_than_its_server_takes():
    with served(Brightness(), limits={"pixels": 3 * 64}) as server:
        rollouts, reward = noise(8), HttpReward(server.url)
        assert torch.equal(reward(rollouts).rewards, Brightness()(rollouts))
        assert server.service.requests[200] == 3  # of three pictures of 8×8 at most
        reward.close()


def test_a_long_row_is_not_judged_with_short_ones_and_large_pictures_not_all_together():
    judge = Gated()
    limits = Limits(tokens=4 * noise(1).tokens.shape[1], pixels=64 * 3)
    queue = JudgeQueue(
        as_reward(judge), max_batch=64, max_wait_s=0.0, max_rows=100, limits=limits, max_bytes=64 * 3 * 7
    )
    held = submitted(queue, noise(1))
    assert judge.begun.wait(20)
    futures = [submitted(queue, noise(1, seed=seed)) for seed in range(7)]
    with pytest.raises(FullError, match="pictures of 1344 bytes wait already, and at most 1344 may"):
        submitted(queue, noise(1))
    judge.gate.set()
    for seed, future in enumerate(futures):
        assert rewards_of(future) == Brightness()(noise(1, seed=seed)).tolist()
    rewards_of(held)
    queue.close()
    assert judge.batches[2::2] == [3, 3, 1]
