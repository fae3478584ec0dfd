"""What has settings: recipes, studies and verbs, with their configuration classes."""

from dataclasses import dataclass
from importlib import import_module

from pydantic import BaseModel

from thinkdraw.recipes.catalog import RECIPES


@dataclass(frozen=True)
class Target:
    """What a configuration configures.

    module, model: where the configuration class is. about: one sentence. command: how it is started.
    """

    module: str
    model: str
    about: str
    command: str

    def open(self) -> type[BaseModel]:
        """Import the configuration class, and with it torch, which takes seconds."""
        return getattr(import_module(self.module), self.model)


_ABOUT = {
    "sft": "Supervised fine-tuning: imitate prompt, thought and picture (ReasonGen-R1, arXiv 2505.24875).",
    "grpo": "Reinforcement learning from groups of judged rollouts (GRPO, arXiv 2402.03300).",
    "preference": "Learn from pairs of judged rollouts: DPO (arXiv 2305.18290) or REBEL (arXiv 2404.16767).",
    "rejection": "Supervised fine-tuning on the rollouts of a store that a judge found good.",
    "iterate": "RL, then SFT of the original policy on the best rollouts, and again (arXiv 2503.17352).",
    "corpus": "Write a corpus of rationales: a teacher looks at pictures, or plans prompts.",
    "verifier_data": "Make labelled pictures, finished and unfinished, to train a verifier on.",
    "verifier": "Train a judge that says whether a picture shows its prompt, or an unfinished one will.",
    "sweep": "Train several cells of settings with several seeds, and compare them at stated cost.",
    "tokenizer": "Train the lab's picture tokenizer from nothing.",
    "pretrain": "Train the lab's Janus from nothing: to draw, to write thoughts, to answer about pictures.",
    "clip": "Train the lab's CLIP from nothing: it scores how well a picture fits a text.",
}
_STARTED_BY = {
    "corpus": "thinkdraw corpus write CONFIG",
    "verifier_data": "thinkdraw corpus write CONFIG",
    "sweep": "thinkdraw sweep CONFIG",
}
# Verb → (module, class of its configuration, one sentence, how it is started).
_VERBS = {
    "quickstart": (
        "thinkdraw.studies.quickstart", "QuickstartConfig",
        "Base, SFT on rationales and GRPO on a laptop, each evaluated.", "thinkdraw quickstart",
    ),
    "evidence": (
        "thinkdraw.studies.evidence", "EvidenceConfig", "The controls behind the quickstart's claim.",
        "thinkdraw evidence",
    ),
    "generate": (
        "thinkdraw.studies.generate", "GenerateConfig", "Draw prompts: pictures, a contact sheet and the thoughts.",
        "thinkdraw generate CHECKPOINT -p TEXT",
    ),
    "eval": (
        "thinkdraw.studies.evaluate_import", "EvalConfig", "Judge a checkpoint, or finished pictures, on benchmarks.",
        "thinkdraw eval CHECKPOINT BENCHMARK…",
    ),
    "thoughts": (
        "thinkdraw.studies.thoughts", "ThoughtsConfig", "Measure whether a policy's thoughts matter for its pictures.",
        "thinkdraw thoughts CHECKPOINT",
    ),
    "check": (
        "thinkdraw.policies.check", "CheckConfig", "Check that a checkpoint's sampler agrees with its trainer.",
        "thinkdraw check CHECKPOINT",
    ),
    "report": (
        "thinkdraw.report", "ReportConfig", "Write a run's report: one self-contained HTML page.",
        "thinkdraw report RUN",
    ),
    "compare": (
        "thinkdraw.studies.compare", "CompareConfig",
        "Judge runs on the same test prompts, and say what each gained at what cost.", "thinkdraw compare RUN…",
    ),
    "sample": (
        "thinkdraw.recipes.sample", "SampleConfig", "Sample groups of thoughts and pictures into a rollout store.",
        "thinkdraw sample CHECKPOINT",
    ),
    "score": (
        "thinkdraw.recipes.score", "ScoreConfig", "Add a judge's scores to a rollout store.",
        "thinkdraw score STORE REWARD",
    ),
    "store-export": (
        "thinkdraw.rollouts.export", "ExportConfig", "Write a rollout store as one flat file.",
        "thinkdraw store export STORE",
    ),
    "export": (
        "thinkdraw.publishing.export", "ExportConfig", "Write a run's model for others, with a model card.",
        "thinkdraw export RUN",
    ),
    "serve": ("thinkdraw.serve.server", "ServeConfig", "Serve a reward over HTTP.", "thinkdraw serve REWARD"),
    "plan": (
        "thinkdraw.planning.plan", "PlanConfig", "Say what memory and time a configuration will need on a GPU.",
        "thinkdraw plan CONFIG",
    ),
    "prompts-make": (
        "thinkdraw.data.prompt_sets", "PromptSetConfig", "Write a set of prompts with clauses and questions.",
        "thinkdraw prompts make",
    ),
    "prompts-check": (
        "thinkdraw.data.leak_guard", "LeakConfig", "Look for test prompts among training prompts.",
        "thinkdraw prompts check PROMPTS against=[TESTS]",
    ),
    "corpus-show": (
        "thinkdraw.corpus.show", "ShowConfig", "Write a page of random rows of a corpus.", "thinkdraw corpus show CORPUS",
    ),
    "corpus-tokenise": (
        "thinkdraw.data.corpus_tokens", "TokeniseConfig", "Turn a corpus's pictures into image tokens once.",
        "thinkdraw corpus tokenise CORPUS",
    ),
}  # fmt: skip
TARGETS: dict[str, Target] = {
    name: Target(*RECIPES[name], about, _STARTED_BY.get(name, "thinkdraw train CONFIG"))
    for name, about in _ABOUT.items()
} | {name: Target(*entry) for name, entry in _VERBS.items()}
