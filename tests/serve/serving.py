"""A served reward to test against: the real application on loopback, in a thread."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import uvicorn
from tests.benchmarks.stub import rollouts

from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.serve.connections import uvicorn_config
from thinkdraw.serve.server import ServeConfig, Service, bind_socket, build_app
from thinkdraw.types import Prompt, Question, Reward, Rollouts

PROMPT = Prompt(
    "a red ring left of a cup", id="p", tag="position",
    include=({"class": "ring", "count": 1, "color": "red"}, {"class": "cup", "count": 1, "position": ["left of", 0]}),
    questions=(Question(0, "is there a ring?", fact={"kind": "exists", "thing": {"shape": "ring"}}),),
)  # fmt: skip


@dataclasses.dataclass
class Served:
    url: str
    service: Service


@contextmanager
def served(reward: Reward | Callable[[Rollouts], torch.Tensor], token: str = "", **config) -> Iterator[Served]:
    settings = ServeConfig.model_validate({"port": 0, "max_wait_s": 0.002, **config})
    service, listening = Service(as_reward(reward), settings), bind_socket(settings)
    service.components = list(getattr(reward, "component_names", ()))
    listening.listen()
    app = build_app(service, token)
    server = uvicorn.Server(uvicorn_config(app, settings.max_connections, settings.silent_s, shutdown_s=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Brightness:
    """The mean of a picture, so that every row has a number of its own. revision: stands for weights."""

    name = "brightness"
    component_names = ("dark",)

    def __init__(self, revision: str = "one", plus: float = 0.0, seconds: float = 0.0) -> None:
        self.revision, self.plus, self.seconds, self.batches = revision, plus, seconds, []

    def __call__(self, rollouts: Rollouts) -> torch.Tensor:
        assert rollouts.pictures is not None
        self.batches.append(len(rollouts))
        time.sleep(self.seconds)
        return rollouts.pictures.float().mean((1, 2, 3)) + self.plus

    def components(self, rollouts: Rollouts) -> dict[str, torch.Tensor]:
        return {"dark": 255 - self(rollouts)}


def noise(count: int, group_size: int = 1, seed: int = 0, side: int = 8) -> Rollouts:
    """Rollouts of random pictures, each with a brightness of its own."""
    rng = np.random.default_rng(seed)
    pictures = torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    made = rollouts([PROMPT] * count, pictures, [f"thought {i}" for i in range(count)])
    return dataclasses.replace(made, group_size=group_size)
