"""What stands behind a reward has one short hash, which runs keep in their checkpoints: it stays what it was."""

import torch

from thinkdraw.judges.lab import LabDetector, PolicyQuestioner
from thinkdraw.rewards import REWARDS, load_reward
from thinkdraw.rewards.revision import judges_revision
from thinkdraw.rewards.user_rewards import as_reward


class Named:
    """A judge of every kind that says which weights it has."""

    def __init__(self, revision):
        self.revision = revision

    def answer(self, pictures, questions): ...

    def score(self, pictures, texts): ...

    def detect(self, pictures, labels=None): ...

    def write(self, requests): ...

    def log_likelihood(self, pictures, texts): ...


class Weights:
    """A user's own questioner, which only holds its network."""

    def __init__(self, weight=1.0):
        self.parts = [{"model": torch.nn.Linear(2, 1)}, torch.nn.Linear(1, 1, bias=False)]
        for module in (self.parts[0]["model"], self.parts[1]):
            for tensor in module.parameters():
                torch.nn.init.constant_(tensor, weight)

    def answer(self, pictures, questions): ...


class Mine:
    """A user's own reward."""

    name = "mine"

    def __init__(self, **parts):
        self.__dict__.update(parts)

    def __call__(self, rollouts):
        return torch.zeros(len(rollouts))


class MineOfWeights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(2, 1)
        for tensor in self.parameters():
            torch.nn.init.constant_(tensor, 0.5)

    def forward(self, rollouts):
        return torch.zeros(len(rollouts))


JUDGES = {"questioner": Named("q1"), "scorer": Named("s1"), "detector": Named("d1"), "writer": Named("w1")}
ONE = {
    "caption-likelihood": {"captioner": Named("c1")}, "count": {"detector": Named("d1")}, "lab-clip": {"scorer": Named("s1")},
    "lab-detector": {}, "lab-judge": {"questioner": Named("q1")}, "lab-thought-faithful": {},
    "metric:compbench": {"asker": print, **{k: JUDGES[k] for k in ("questioner", "detector", "scorer")}, "depth": Named("e1")},
    "metric:dpg": {"questioner": Named("q1")}, "metric:geneval": {"detector": Named("d1"), "colors": Named("k1")},
    "objects": {"detector": Named("d1")}, "orm": {"questioner": Named("q1")}, "pairwise": {"writer": Named("w1")},
    "questions": {"questioner": Named("q1")}, "reasongen": {"writer": Named("w1")}, "relation": {"detector": Named("d1")},
    "score": {"scorer": Named("s1")},
    "t2i-r1": {"preference": Named("s1"), "attributes": Named("q1"), "grounding": Named("d1"), "orm": Named("o1")},
    "thought-faithful": {"questioner": Named("q1")}, "thought-format": {}, "thought-length": {},
    "unified-reward": {"writer": Named("w1")}, "vqa-yes": {"questioner": Named("q1")},
}  # fmt: skip


def combined(**rewards):
    return load_reward("combined", rewards=rewards)


def cases():
    shared = Named("q1")
    yield from ((name, load_reward(name, **settings)) for name, settings in ONE.items())
    yield "a policy asked by lab-judge", load_reward("lab-judge", questioner=PolicyQuestioner(Named("p1")))
    yield "a policy asked by orm", load_reward("orm", questioner=PolicyQuestioner(Named("p1")))
    yield "compbench by two", load_reward("metric:compbench", asker=Named("a1"), questioner=Named("q1"))
    yield "geneval by one", load_reward("metric:geneval", detector=Named("d1"))
    yield (
        "combined",
        combined(
            facts=load_reward("lab-detector"), taste=load_reward("score", scorer=Named("s1")),
            form=load_reward("thought-length"), asked=load_reward("vqa-yes", questioner=shared),
            again=load_reward("questions", questioner=shared),
        ),
    )  # fmt: skip
    yield "combined of a sum", combined(sum=load_reward("t2i-r1", **ONE["t2i-r1"]), b=load_reward("lab-detector"))
    yield "combined of rules", combined(a=load_reward("thought-length"))
    yield "a judge's weights", load_reward("orm", questioner=Weights())
    yield "a judge's weights in a sum", combined(right=load_reward("orm", questioner=Weights()))
    yield "other weights", load_reward("orm", questioner=Weights(1.001))
    yield "mine", as_reward(Mine(judge=Named("m1"), more={"b": Weights(), "a": Named("m2")}))
    yield "mine with a revision", as_reward(Mine(revision="r1", judge=Named("m1")))
    yield "mine of rules", as_reward(Mine(number=3))
    yield "mine of weights", as_reward(MineOfWeights())
    yield (
        "a sum of mine",
        combined(x=Mine(revision="r1", judge=Named("m1")), y=Mine(judge=Named("m1")), z=MineOfWeights(), f=print),
    )


# As the code before `judges` was declared gave them: runs that began with these go on.
FORMER = {
    "caption-likelihood": "421cdc007910",
    "count": "a3c7ead76250",
    "lab-clip": "228f4018bbec",
    "lab-detector": "862a773fbd30",
    "lab-judge": "ad70af0f075a",
    "lab-thought-faithful": "862a773fbd30",
    "metric:compbench": "7cf1d50a61fa",
    "metric:dpg": "e78c91b3ec40",
    "metric:geneval": "67aaf23d09af",
    "objects": "a3c7ead76250",
    "orm": "e78c91b3ec40",
    "pairwise": "f11921c5b887",
    "questions": "e78c91b3ec40",
    "reasongen": "f11921c5b887",
    "relation": "a3c7ead76250",
    "score": "228f4018bbec",
    "t2i-r1": "c3c6b21e8a50",
    "thought-faithful": "e78c91b3ec40",
    "thought-format": None,
    "thought-length": None,
    "unified-reward": "f11921c5b887",
    "vqa-yes": "e78c91b3ec40",
    "a policy asked by lab-judge": "d242b32fcd01",
    "a policy asked by orm": "97435056e3f8",
    "compbench by two": "b17d9219b8f8",
    "geneval by one": "a3c7ead76250",
    "combined": "5a0744fb5540",
    "combined of a sum": "e4f704a12a6d",
    "combined of rules": None,
    "a judge's weights": "ab31e3dc386e",
    "a judge's weights in a sum": "212d231eaf0a",
    "other weights": "e47cc69c166c",
    "mine": "5f5a90e057af",
    "mine with a revision": "r1",
    "mine of rules": None,
    "mine of weights": "8463e8dba2e6",
    "a sum of mine": "d134e4a2f09b",
}


def test_every_registered_reward_but_http_is_in_the_table():
    assert ONE.keys() | {"combined", "http"} == REWARDS.keys()


def test_revisions_are_those_that_former_checkpoints_hold(monkeypatch):
    monkeypatch.setattr(LabDetector, "revision", "thinkdraw 0")
    assert {name: judges_revision(reward) for name, reward in cases()} == FORMER
