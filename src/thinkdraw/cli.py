"""The command line: one function per verb. Heavy imports happen inside the verbs, so that `--help` answers at once."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.commands.corpus import corpus_app
from thinkdraw.commands.evaluate import evaluate
from thinkdraw.commands.plan import plan
from thinkdraw.commands.serve import serve
from thinkdraw.errors import UserError, printable, refuse_several_processes
from thinkdraw.runtime.endpoints import without_secrets
from thinkdraw.runtime.json_types import JsonObject

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train image generators that think before they draw. Start with [bold]thinkdraw quickstart[/bold].",
)


@app.callback()
def before_any_verb(context: typer.Context) -> None:
    if context.invoked_subcommand != "train":
        refuse_several_processes(f"thinkdraw {context.invoked_subcommand}")


Checkpoint = Annotated[
    str, typer.Argument(help="Checkpoint folder, run folder (its best one), Hugging Face id, or `lab`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")]


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the run; a stopped one goes on.")] = Path("runs/quickstart"),
    seed: Annotated[
        int, typer.Option(min=0, max=1 << 62, help="Of training; the test prompts and picture seeds stay.")
    ] = 0,
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value of the quickstart's own configuration.")
    ] = None,
) -> None:
    """The main job on a laptop: base, SFT on rationales, GRPO, an evaluation of each, a report.

    Example: thinkdraw quickstart --seed 1 --out runs/second
    """
    from thinkdraw.config import load_config
    from thinkdraw.report import write_report
    from thinkdraw.runtime.formats.sealed import read_sealed
    from thinkdraw.studies import quickstart as recipe

    config = load_config(recipe.QuickstartConfig, None, [f"out={out}", f"seed={seed}", *(override or [])])
    folder = recipe.run(config)
    _print_stages(read_sealed(folder / "summary.json", "Run it again."))
    print(f"report: {write_report(folder)}")


@app.command()
def evidence(
    out: Annotated[Path, typer.Option(help="Folder of the runs; finished ones are kept.")] = Path("runs/evidence"),
) -> None:
    """The controls behind the quickstart's claim: a second seed, SFT for RL's seconds, RL from lab-judge alone, RL without thoughts.

    Takes one to two hours on two cores. Example: thinkdraw evidence
    """
    from thinkdraw.studies import evidence as recipe

    folder = recipe.run(recipe.EvidenceConfig(out=out))
    print((folder / "table.md").read_text(encoding="utf-8"))


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="Name of a shipped configuration (`thinkdraw list configs`) or a YAML file.")
    ],
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance optimiser.learning_rate=2e-5.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Run a recipe: sft, grpo, preference, rejection, iterate, pretrain ….

    Example: thinkdraw train lab_grpo out=runs/mine group_size=16
    """
    from thinkdraw.config import dump_config
    from thinkdraw.recipes.catalog import read_config, run_config

    resolved = read_config(config, override or [])
    print(dump_config(resolved) if dry_run else f"run folder: {run_config(resolved)}")


@app.command()
def generate(
    ckpt: Checkpoint,
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="What to draw; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
    samples: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 4,
    thought: Annotated[str, typer.Option(help="inline, rewrite or off.")] = "inline",
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    temperature: Annotated[float, typer.Option(min=1e-3)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    device: Annotated[str, typer.Option()] = "auto",
    json_: AsJson = False,
) -> None:
    """Draw prompts: PNG files, a contact sheet, and the thoughts.

    Example: thinkdraw generate lab -p "a photo of a red circle left of a blue star"
    """
    from thinkdraw.api import load_policy, rollout
    from thinkdraw.images import contact_sheet, to_png
    from thinkdraw.runtime.device import pick_device
    from thinkdraw.runtime.files import atomic_write_bytes, only_writer

    prompt = [_argument_text(text) for text in prompt]
    policy = load_policy(ckpt, device=str(pick_device(device)))
    rollouts = rollout(
        policy, prompt, group_size=samples, seed=seed, thought=thought, guidance_scale=guidance_scale, temperature=temperature
    )  # fmt: skip
    assert rollouts.pictures is not None
    pictures = rollouts.pictures.cpu().numpy()
    rows = []
    with only_writer(out):
        for index, picture in enumerate(pictures):
            path = out / f"{index // samples:05d}_{index % samples}.png"
            atomic_write_bytes(path, to_png(picture))
            rows.append(
                {"prompt": rollouts.prompts[index].text, "thought": rollouts.thoughts[index], "file": str(path)}
            )
        atomic_write_bytes(out / "sheet.png", to_png(contact_sheet(pictures, samples)))
    _print_rows(rows, json_)


app.command(name="eval")(evaluate)


@app.command()
def thoughts(
    ckpt: Checkpoint,
    count: Annotated[int, typer.Option(min=2, help="Prompts of the lab's GenEval test set.")] = 192,
    samples: Annotated[int, typer.Option(min=1, help="Pictures per prompt and condition.")] = 2,
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    json_: AsJson = False,
) -> None:
    """Do thoughts matter? The same prompts and seeds drawn from the own, another prompt's, an empty and no thought.

    Example: thinkdraw thoughts runs/quickstart/grpo
    """
    from thinkdraw import api
    from thinkdraw.benchmarks.lab.thoughts import swap_study
    from thinkdraw.types import Sampling

    policy = api.load_policy(ckpt, precision="bf16")
    prompts = api.load_prompts("lab-geneval", "test", count)
    found = swap_study(policy, prompts, Sampling(guidance_scale=guidance_scale), samples=samples, seed=seed).summary()
    if json_:
        print(json.dumps(found, indent=2))
        return
    for part, what in (
        ("correct", "correct pictures"),
        ("differences", "paired difference"),
        ("followed", "claims of the thought that hold"),
    ):
        _print_rows([{what: name, "": _interval(row, "value")} for name, row in found[part].items()], False)


@app.command()
def check(
    ckpt: Checkpoint,
    device: Annotated[str, typer.Option()] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    json_: AsJson = False,
) -> None:
    """Does this checkpoint's sampler agree with its trainer? The first thing to run on a new model.

    Example: thinkdraw check lab
    """
    from thinkdraw.api import load_policy
    from thinkdraw.policies.check import check_policy
    from thinkdraw.runtime.device import pick_device

    result = check_policy(load_policy(ckpt, device=str(pick_device(device)), precision=precision))
    if json_:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print_rows(
            [
                {"check": r.name, "found": r.found, "wanted": r.wanted, "": "ok" if r.ok else "FAILED"}
                for r in result.rows
            ],
            False,
        )
    if not result.ok:
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder or the quickstart's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; report.html in the run folder if not given.")
    ] = None,
) -> None:
    """Write a run's report: one self-contained HTML page.

    Example: thinkdraw report runs/quickstart
    """
    from thinkdraw.report import write_report

    print(write_report(run, out))


@app.command()
def sweep(
    config: Annotated[str, typer.Argument(help="Name of a shipped sweep, or a YAML file.")] = "lab_objectives",
    override: Annotated[list[str] | None, typer.Argument(help="key.sub=value, for instance seeds=[0].")] = None,
) -> None:
    """Train cells of recipes and settings over several seeds, judge all on the same prompts, and print one table with costs.

    Example: thinkdraw sweep lab_objectives policy=runs/quickstart/sft
    """
    from thinkdraw.config import load_config
    from thinkdraw.recipes.catalog import find_config
    from thinkdraw.studies import sweep as recipe

    folder = recipe.run(load_config(recipe.SweepConfig, find_config(config), override or []))
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"plot: {folder / 'comparison.svg'}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; those that differ only in the seed are one row.")],
    out: Annotated[Path, typer.Option(help="Folder of table, plot and summary.")] = Path("runs/compare"),
    best_of: Annotated[int, typer.Option(min=0, help="Also judge best-of-N of the untrained policy; 0 leaves it out.")] = 4,
    reward: Annotated[str, typer.Option(help="What best-of-N chooses by.")] = "lab-detector",
    axis: Annotated[
        list[str] | None, typer.Option(help="Cost on an axis of the plot, for instance seconds; may be given several times.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Compare although the runs differ in this: base, prompts, sampling or validation.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="key.sub=value, for instance evaluation.prompts=96.")
    ] = None,
) -> None:  # fmt: skip
    """Judge runs on the same test prompts; print and draw what each gained over the policy it began with, and at what cost.

    Example: thinkdraw compare runs/quickstart/grpo runs/lab_dpo --axis pictures_sampled --axis seconds
    """
    from thinkdraw.config import load_config
    from thinkdraw.studies import compare as recipe

    given = {"out": str(out), "runs": [str(run) for run in runs], "best_of": best_of or None, "reward.name": reward}
    given |= {"allow": allow or []} | ({"axes": axis} if axis else {})
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    folder = recipe.run(load_config(recipe.CompareConfig, None, [*settings, *(override or [])]))
    print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"plot: {folder / 'comparison.svg'}")


@app.command()
def sample(
    ckpt: Checkpoint,
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance sampling.top_p=0.9 or prompts_per_shard=8.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the store; a stopped one goes on.")] = Path("runs/store"),
    prompts: Annotated[
        str, typer.Option(help="lab-geneval, lab-compbench or lab-dense (training prompts), or a .txt or .jsonl file.")
    ] = "lab-geneval",
    count: Annotated[int, typer.Option(min=1, help="Groups: prompts in order, and around again.")] = 64,
    group_size: Annotated[int, typer.Option(min=1, help="Rollouts per prompt.")] = 8,
    reward: Annotated[
        list[str] | None, typer.Option(help="Score with this reward; may be given several times.")
    ] = None,
    thought: Annotated[str, typer.Option(help="inline, rewrite or off.")] = "inline",
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    device: Annotated[str, typer.Option()] = "auto",
    precision: Annotated[
        str, typer.Option(help="bf16, or fp32 for log-probs that a trainer repeats exactly.")
    ] = "bf16",
    json_: AsJson = False,
) -> None:
    """Sample groups of thoughts and pictures into a rollout store, once; `score` judges them as often as you like.

    Example: thinkdraw sample lab --out runs/store --count 64 --group-size 8 --reward lab-detector
    """
    from thinkdraw.config import load_config
    from thinkdraw.recipes import sample as recipe

    family = prompts.removeprefix("lab-")
    # The lab's first prompts are the same in a longer list, so that a larger --count goes on with the same store.
    source = f"{{source: {json.dumps(prompts)}}}" if family == prompts else (
        f"{{families: {{{family}: 1.0}}, count: {max(2048 if family == 'compbench' else 4096, count)}}}"
    )  # fmt: skip
    values = {
        "policy": ckpt, "out": str(out), "count": count, "group_size": group_size, "rewards": reward or [],
        "sampling.thought": thought, "sampling.guidance_scale": guidance_scale, "seed": seed, "device": device,
        "precision": precision,
    }  # fmt: skip
    given = [f"prompts={source}", *(f"{key}={json.dumps(value)}" for key, value in values.items())]
    _print_store(recipe.run(load_config(recipe.SampleConfig, None, [*given, *(override or [])])), json_)


@app.command()
def score(
    store: Annotated[Path, typer.Argument(help="The folder of a rollout store.")],
    override: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value, for instance reward.settings.strict_weight=1.")
    ] = None,
    reward: Annotated[str, typer.Option(help="A name of `thinkdraw list rewards`, or my_pkg.mine:MyReward.")] = "lab-detector",
    name: Annotated[str | None, typer.Option(help="Of the scores in the store, if not the reward's own.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Checkpoint that decodes the pictures, if not the one that drew them.")
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
    json_: AsJson = False,
) -> None:  # fmt: skip
    """Add a judge's scores to a rollout store; rows that have them are left alone.

    Example: thinkdraw score runs/store --reward lab-judge
    """
    from thinkdraw.config import load_config
    from thinkdraw.recipes import score as recipe

    values = {"store": str(store), "reward.name": reward, "name": name, "policy": policy, "device": device}
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    _print_store(recipe.run(load_config(recipe.ScoreConfig, None, [*given, *(override or [])])), json_)


@app.command()
def store(
    action: Annotated[str, typer.Argument(help="info or export.")],
    path: Annotated[Path, typer.Argument(help="The folder of a rollout store.")],
    out: Annotated[Path | None, typer.Option(help="export: folder of rollouts.parquet and the pictures.")] = None,
    png: Annotated[bool, typer.Option("--png", help="export: decode the pictures, one PNG per row.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="export: rollouts.jsonl in place of parquet.")] = False,
    policy: Annotated[
        str | None, typer.Option(help="Checkpoint that decodes the pictures, if not the one that drew them.")
    ] = None,
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="export: leave damaged shards out.")] = False,
    json_: AsJson = False,
) -> None:
    """What a rollout store holds (info), or all of it as one flat file (export).

    Example: thinkdraw store export runs/store --out runs/flat --png
    """
    if action == "info":
        return _print_store(path, json_)
    if action != "export":
        raise UserError(f"store {action!r}: one of info, export.")
    if out is None:
        raise UserError("store export needs --out FOLDER.")
    from thinkdraw.recipes.score import Decoder
    from thinkdraw.rollouts import RolloutStore
    from thinkdraw.rollouts.export import export

    opened = RolloutStore.open(path)
    pictures = Decoder(opened, policy).pictures if png else None
    print(export(opened, out, as_jsonl=jsonl, pictures=pictures, skip_damaged=skip_damaged))


app.command()(plan)
app.command()(serve)

prompts_app = typer.Typer(no_args_is_help=True, help="Make prompt sets, and keep test prompts out of training.")
app.add_typer(prompts_app, name="prompts")
app.add_typer(corpus_app, name="corpus")


@prompts_app.command(name="make")
def make_prompts(
    out: Annotated[Path, typer.Option(help="Folder for the set; an older set there is replaced.")],
    style: Annotated[
        str, typer.Option(help="geneval, compbench, lab-geneval, lab-compbench or lab-dense.")
    ] = "geneval",
    count: Annotated[int, typer.Option(min=1, help="Prompts of the set at scale 1.")] = 2000,
    scales: Annotated[str, typer.Option(help="Nested sets in units of count, as 0.25,0.5,1,2,4.")] = "1",
    against: Annotated[
        list[Path] | None, typer.Option(help="A test set to keep out; may be given several times.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible URL of a model that finds other words; with --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Its name there.")] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable with its key; OPENAI_API_KEY goes to OpenAI alone.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Write prompts with clauses and questions from templates, nested in size, and a card of what is in them.

    Example: thinkdraw prompts make --out prompts/mine --style compbench --count 500 --scales 0.5,1,2
    """
    from thinkdraw.config import load_config
    from thinkdraw.data import prompt_sets

    if (endpoint is None) != (model is None):
        raise UserError("--endpoint and --model belong together: give both, or neither.")
    given = {"out": str(out), "style": style, "count": count, "against": [str(path) for path in against or []]}
    given |= {"seed": seed} | (
        {"paraphrase": {"base_url": endpoint, "model": model, "key_env": key_env}} if endpoint else {}
    )
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    config = load_config(prompt_sets.PromptSetConfig, None, [*overrides, f"scales=[{scales}]"])
    report = prompt_sets.make(config)
    if json_:
        print((report.folder / prompt_sets.CARD).read_text(encoding="utf-8"), end="")
        return
    _print_rows(
        [
            {"file": f.file, "prompts": f.count, "nouns": f.diversity.nouns, "attributes": f.diversity.attributes,
             "distinct 2-grams": f"{f.diversity.distinct_2:.3f}", "distance": f"{f.diversity.jaccard_distance:.3f}"}
            for f in report.files
        ],
        False,
    )  # fmt: skip
    for path, dropped in report.dropped.items():
        print(f"{dropped} prompts left out that are in {path}")
    if report.paraphrases:
        print(f"paraphrases: {json.dumps(report.paraphrases)}")
    print(f"prompt set: {report.folder}")


@prompts_app.command(name="check")
def check_leaks(
    train: Annotated[Path, typer.Argument(help="A prompt file, or a folder with one.")],
    against: Annotated[list[Path], typer.Option(help="A test set; may be given several times.")],
    json_: AsJson = False,
) -> None:
    """Which training prompts are test prompts? Exit code 1 if any is.

    Example: thinkdraw prompts check prompts/mine --against geneval/evaluation_metadata.jsonl
    """
    from thinkdraw.data.leak_guard import leaks
    from thinkdraw.data.prompt_files import read_prompts

    prompts, rows, leaking = read_prompts(train), [], set()
    for path in against:
        test = read_prompts(path)
        for leak in leaks(prompts, test):
            ours, theirs = prompts[leak.train], test[leak.test]
            leaking.add(leak.train)
            rows.append(
                {"train": ours.id, "prompt": ours.text, "test": theirs.id, "test prompt": theirs.text,
                 "file": str(path), "reason": leak.reason}
            )  # fmt: skip
    if json_:
        print(json.dumps(rows, indent=2))
    else:
        if rows:
            _print_rows(rows, False)
        print(f"{len(leaking)} of {len(prompts)} prompts of {train} are test prompts")
    if rows:
        raise typer.Exit(1)


@app.command(name="list")
def list_(
    what: Annotated[
        str, typer.Argument(help="configs, rewards, judges, benchmarks, objectives, policies or recipes.")
    ] = "configs",
    json_: AsJson = False,
) -> None:
    """What there is to choose from.

    Example: thinkdraw list rewards
    """
    names = _registry(what)
    print(json.dumps(names, indent=2) if json_ else "\n".join(names))


def _registry(what: str) -> list[str]:
    match what:
        case "configs":
            from thinkdraw.recipes.catalog import shipped

            return list(shipped())
        case "recipes":
            from thinkdraw.recipes.catalog import RECIPES

            return list(RECIPES)
        case "rewards":
            from thinkdraw.rewards import REWARDS

            return list(REWARDS)
        case "judges":
            from thinkdraw.judges import JUDGES

            return list(JUDGES)
        case "benchmarks":
            from thinkdraw.benchmarks import BENCHMARKS
            from thinkdraw.lab.prompts import SPECS

            return [*BENCHMARKS, *("lab-" + family for family in SPECS)]
        case "objectives":
            from thinkdraw.objectives import POLICY_LOSSES

            return ["sft", *POLICY_LOSSES]
        case "policies":
            from thinkdraw.policies import POLICIES

            return list(POLICIES)
    raise UserError(f"list {what!r}: one of configs, rewards, judges, benchmarks, objectives, policies, recipes.")


def _argument_text(text: str) -> str:
    """What was typed, which is UTF-8, also under a locale in which Python did not read it as such."""
    from thinkdraw.data.text_files import sound

    return sound(os.fsencode(text).decode("utf-8", "surrogateescape"), f"prompt {printable(text)[:80]!r}")


def _interval(row: JsonObject, key: str) -> str:
    return "no verdict" if row[key] is None else f"{row[key]:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _print_store(path: Path, as_json: bool) -> None:
    from thinkdraw.rollouts import RolloutStore

    info = RolloutStore.open(path).info()
    if as_json:
        print(json.dumps(info, indent=2))
        return
    rows = [{"": name, "value": info[name]} for name in ("rows", "groups", "shards", "thought", "precision", "bytes")]
    rows += [{"": f"rows of revision {name}", "value": count} for name, count in info["revisions"].items()]
    for name, judge in info["judges"].items():
        mean = "" if judge["mean"] is None else f", mean {judge['mean']:.4f}"
        rows.append({"": name, "value": f"{judge['scored']} scored, {judge['no_verdict']} without verdict{mean}"})
        rows += [{"": name, "value": f"damaged scores {file}"} for file in judge["damaged"]]
    rows += [{"": "damaged shard", "value": name} for name in info["damaged"]]
    _print_rows([{"": "store", "value": path}, *rows, {"": "content", "value": info["content_hash"]}], False)


def _print_stages(summary: JsonObject) -> None:
    stages = summary["stages"]
    tasks = list(next(iter(stages.values()))["per_task"])
    rows = [
        {"": task, **{name: _interval(s["per_task"][task], "value") for name, s in stages.items()}} for task in tasks
    ]
    rows.append({"": "overall", **{name: _interval(s, "score") for name, s in stages.items()}})
    _print_rows(rows, False)
    for name, found in summary["difference"].items():
        print(f"{name}: {100 * found['value']:+.1f} points [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]")
    print(f"{summary['seconds']:.0f} s, peak memory {summary['peak_memory_gb']:.1f} GB, seed {summary['seed']}")


def _print_rows(rows: list[JsonObject], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from thinkdraw.console import print_rows

    print_rows(rows)


def main() -> None:
    """Entry point: what a user can fix is one line on standard error and exit code 2."""
    from thinkdraw.console import print_what_the_console_can

    print_what_the_console_can()
    try:
        app()
    except UserError as error:
        print(f"thinkdraw: {printable(without_secrets(str(error)))}", file=sys.stderr)
        sys.exit(2)
