"""`thinkdraw eval`: draw or read pictures, have them judged, print scores with all that makes them comparable."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonObject

LAB = "lab-"


def evaluate(
    ckpt: Annotated[
        str | None, typer.Argument(help="Checkpoint folder, run folder (its best one), Hugging Face id, or `lab`.")
    ] = None,
    benchmark: Annotated[
        str, typer.Option(help="One or more of `thinkdraw list benchmarks`, with commas between.")
    ] = "lab-geneval",
    prompts: Annotated[
        Path | None, typer.Option(help="Official prompt file, or a folder with it; else $THINKDRAW_BENCHMARKS.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Score these pictures, in the official layout, and draw none.")
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="ROLE=NAME of a judge, or ROLE.KEY=VALUE of its settings; several times.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the benchmark's own settings; several times.")
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(help="How picture files are read: ground=black, max_megapixels=200; several times."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of lab prompts: test (in-domain), ood or validation.")] = "test",
    count: Annotated[
        int | None, typer.Option(min=1, help="Prompts, spread evenly; all if not given, 384 of the lab's.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Pictures per prompt; the official number if not given.")
    ] = None,
    thought: Annotated[str, typer.Option(help="inline, rewrite or off.")] = "inline",
    guidance_scale: Annotated[float, typer.Option(min=0.0)] = 1.0,
    temperature: Annotated[float, typer.Option(min=1e-3)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=1 << 62)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for rows, pictures and summary; a stopped evaluation goes on.")
    ] = None,
    vqa: Annotated[
        Path | None, typer.Option(help="Also ask the model the questions of this .jsonl file about pictures.")
    ] = None,
    questions_per_type: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Ask the model so many of the lab's own questions of each type; even, 16 if not given, 0 asks none.",
        ),
    ] = None,
    latency_pictures: Annotated[
        int | None,
        typer.Option(min=0, help="Pictures drawn one by one, with and without a thought, for their seconds."),
    ] = None,
    max_no_verdict_frac: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stop where more pictures than this share have no verdict; 0.1.")
    ] = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Pictures drawn at once; 64, the lab's 256.")] = None,
    export_official: Annotated[
        Path | None, typer.Option(help="Also write the layout that the original scorer reads.")
    ] = None,
    import_official: Annotated[
        Path | None, typer.Option(help="Read the original scorer's result file in place of judging.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Paired difference, A minus B, of two evaluations.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of the policy, and of judges that name none.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "bf16",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")] = False,
) -> None:
    """Draw a benchmark's prompts, judge the pictures, print scores with 95 % intervals.

    Example: thinkdraw eval lab --benchmark lab-geneval --count 96
    """
    names = [name.strip() for name in benchmark.split(",") if name.strip()]
    if compare is not None:
        return _compare(*compare, json_)
    if import_official is not None:
        return _import(names, import_official, prompts, out, set_ or [], json_)
    sampling = {"thought": thought, "guidance_scale": guidance_scale, "temperature": temperature}
    more = (
        images
        or export_official
        or judge
        or set_
        or vqa
        or pictures
        or not (latency_pictures is max_no_verdict_frac is None)
    )
    if ckpt is not None and all(name.startswith(LAB) for name in names) and not more:
        for name in names:
            folder = None if out is None else out / name if len(names) > 1 else out
            asked = {"split": split, "count": count or 384, "samples": samples or 4, "seed": seed, "folder": folder}
            asked |= {
                "questions_per_type": 16 if questions_per_type is None else questions_per_type,
                "chunk": chunk or 256,
            }
            _lab(ckpt, name, device, precision, sampling, asked, json_)
        return None
    given: JsonObject = {
        "benchmarks": names, "policy": ckpt, "images": images, "prompts": prompts, "split": split, "count": count,
        "samples": samples, "seed": seed, "out": out, "vqa": vqa, "chunk": chunk, "export_official": export_official,
        "questions_per_type": questions_per_type, "latency_pictures": latency_pictures,
        "max_no_verdict_frac": max_no_verdict_frac, "device": device, "precision": precision,
        **{f"sampling.{key}": value for key, value in sampling.items()},
    }  # fmt: skip
    _run(
        given,
        judge or [],
        [f"settings.{text}" for text in set_ or []] + [f"pictures.{text}" for text in pictures or []],
        json_,
    )


def _run(given: JsonObject, judge: Sequence[str], settings: Sequence[str], as_json: bool) -> None:
    from thinkdraw.cli.evaluate.tables import print_summary
    from thinkdraw.config import load_config
    from thinkdraw.studies import evaluate as recipe
    from thinkdraw.studies.evaluate_open import EvaluateConfig

    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in given.items() if value is not None]
    overrides += [*(_judge_override(text) for text in judge), *settings]
    found = recipe.run(load_config(EvaluateConfig, None, overrides))
    if as_json:
        print(json.dumps([dict(evaluation.summary) for evaluation in found], indent=2))
        return
    for evaluation in found:
        print_summary(evaluation.summary)
        print(f"rows and summary: {evaluation.folder}")


def _lab(
    ckpt: str, name: str, device: str, precision: str, sampling: JsonObject, asked: JsonObject, as_json: bool
) -> None:
    """The lab's own evaluation, whose folders the recipes and the report know."""
    from thinkdraw.benchmarks.lab.benchmark import evaluate_lab
    from thinkdraw.cli.evaluate.tables import print_lab
    from thinkdraw.lab.prompts import SPECS, family_of
    from thinkdraw.policies.opening import load_trained
    from thinkdraw.runtime.device import pick_device
    from thinkdraw.types import Sampling

    family = family_of(name)
    if family is None:
        raise UserError(f"--benchmark {name}: the lab has {', '.join(LAB + known for known in SPECS)}.")
    if asked["count"] < 6:
        raise UserError(f"--count {asked['count']}: the lab's sets need at least 6 prompts, one per task.")
    policy = load_trained(ckpt, precision, device=str(pick_device(device)))
    report = evaluate_lab(policy, family, sampling=Sampling(**sampling), **asked)
    if as_json:
        print(json.dumps(report.summary(), indent=2))
    else:
        print_lab(report.summary())


def _import(
    names: Sequence[str], file: Path, prompts: Path | None, out: Path | None, settings: Sequence[str], as_json: bool
) -> None:
    from thinkdraw.cli.evaluate.tables import print_summary
    from thinkdraw.config import load_config
    from thinkdraw.studies.evaluate_import import import_official
    from thinkdraw.studies.evaluate_open import EvaluateConfig

    if len(names) != 1 or names[0].startswith(LAB):
        raise UserError(
            f"--import-official reads one benchmark's file, not {', '.join(names)}'s. Give --benchmark NAME."
        )
    own = load_config(EvaluateConfig, None, [f"benchmarks={json.dumps(names)}", *(f"settings.{s}" for s in settings)])
    evaluation = import_official(names[0], file, prompts, out, own.settings)
    if as_json:
        print(json.dumps(dict(evaluation.summary), indent=2))
        return
    print_summary(evaluation.summary)
    print(f"rows and summary: {evaluation.folder}")


def _compare(a: Path, b: Path, as_json: bool) -> None:
    from thinkdraw.cli.evaluate.tables import print_comparison
    from thinkdraw.studies.evaluate_import import compare_folders

    found = compare_folders(a, b)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for row in found:
        print_comparison(row)


def _judge_override(text: str) -> str:
    """ "detector=owlv2" names a role's judge, "detector.path=…" sets what the judge takes."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--judge {text!r} is not ROLE=NAME or ROLE.KEY=VALUE. Example: --judge detector=mask2former")
    return f"judges.{key if '.' in key else key + '.name'}={value}"
