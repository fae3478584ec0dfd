"""Each flag of version 0.1 still gives the configuration that its new form gives, and prints that form."""

import pytest
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.cli.grammar.old_flags import OLD_FLAGS, translate
from thinkdraw.errors import UserError

SAME = [
    ("quickstart", "--seed 3", "seed=3"),
    ("generate lab -p star", "--samples 2", "samples=2"),
    ("generate lab -p star", "--thought off", "thought=off"),
    ("generate lab -p star", "--guidance-scale 5", "guidance_scale=5"),
    ("generate lab -p star", "--temperature 0.5", "temperature=0.5"),
    ("generate lab -p star", "--seed 3", "seed=3"),
    ("generate lab -p star", "--device cpu", "device=cpu"),
    ("eval lab", "--benchmark geneval,dpg", "geneval dpg"),
    ("eval", "--images drawn --benchmark geneval", "geneval images=drawn"),
    ("eval", "--import-official results.jsonl --benchmark geneval", "geneval import_official=results.jsonl"),
    ("eval", "--compare one two", "compare=[one,two]"),
    ("eval lab geneval", "--prompts files", "prompts=files"),
    ("eval lab geneval", "--judge detector=owlv2 --judge detector.path=here", "judges.detector=owlv2 judges.detector.path=here"),
    ("eval lab geneval", "--set mode=fixed", "settings.mode=fixed"),
    ("eval lab geneval", "--pictures ground=black", "pictures.ground=black"),
    ("eval lab", "--split ood", "split=ood"),
    ("eval lab", "--samples 2", "samples=2"),
    ("eval lab", "--thought rewrite", "sampling.thought=rewrite"),
    ("eval lab", "--guidance-scale 5", "sampling.guidance_scale=5"),
    ("eval lab", "--temperature 0.5", "sampling.temperature=0.5"),
    ("eval lab", "--seed 3", "seed=3"),
    ("eval lab", "--vqa questions.jsonl", "vqa=questions.jsonl"),
    ("eval lab", "--questions-per-type 2", "questions_per_type=2"),
    ("eval lab", "--latency-pictures 0", "latency_pictures=0"),
    ("eval lab", "--max-no-verdict-frac 0.2", "max_no_verdict_frac=0.2"),
    ("eval lab", "--chunk 8", "chunk=8"),
    ("eval lab geneval", "--export-official layout", "export_official=layout"),
    ("eval lab", "--device cpu", "device=cpu"),
    ("eval lab", "--precision fp32", "precision=fp32"),
    ("thoughts lab", "--samples 3", "samples=3"),
    ("thoughts lab", "--guidance-scale 5", "guidance_scale=5"),
    ("thoughts lab", "--seed 3", "seed=3"),
    ("check lab", "--device cpu", "device=cpu"),
    ("check lab", "--precision bf16", "precision=bf16"),
    ("compare a b", "--best-of 2", "best_of=2"),
    ("compare a b", "--best-of 0", "best_of=null"),
    ("compare a b", "--reward lab-judge", "reward=lab-judge"),
    ("compare a b", "--axis seconds --axis pictures_sampled", "axes=[seconds,pictures_sampled]"),
    ("compare a b", "--allow prompts --allow base", "allow=[prompts,base]"),
    ("compare a b", "--set evaluation.prompts=96", "evaluation.prompts=96"),
    ("sample lab", "--prompts lab-compbench", "prompts=lab-compbench"),
    ("sample lab", "--prompts prompts.txt", "prompts=prompts.txt"),
    ("sample lab", "--group-size 4", "group_size=4"),
    ("sample lab", "--reward lab-detector --reward my.own:Reward", "rewards=[lab-detector,'my.own:Reward']"),
    ("sample lab", "--thought off", "sampling.thought=off"),
    ("sample lab", "--guidance-scale 5", "sampling.guidance_scale=5"),
    ("sample lab", "--seed 3", "seed=3"),
    ("sample lab", "--device cpu", "device=cpu"),
    ("sample lab", "--precision fp32", "precision=fp32"),
    ("score runs/store", "--reward lab-judge", "lab-judge"),
    ("score runs/store", "--name mine", "name=mine"),
    ("score runs/store", "--policy lab", "policy=lab"),
    ("score runs/store", "--device cpu", "device=cpu"),
    ("store export runs/store -o flat", "--png", "png=true"),
    ("store export runs/store -o flat", "--jsonl", "jsonl=true"),
    ("store export runs/store -o flat", "--policy lab", "policy=lab"),
    ("store export runs/store -o flat", "--skip-damaged", "skip_damaged=true"),
    ("plan lab_grpo", "--gpu l4", "gpu=l4"),
    ("plan lab_grpo", "--gpus 8", "gpus=8"),
    ("plan lab_grpo", "--prompt-tokens 60", "prompt_tokens=60"),
    ("serve lab-clip", "--host localhost", "host=localhost"),
    ("serve lab-clip", "--port 0", "port=0"),
    ("serve lab-clip", "--token-env TOKEN", "token_env=TOKEN"),
    ("serve lab-clip", "--max-batch 8", "max_batch=8"),
    ("prompts make -o set", "--style compbench", "style=compbench"),
    ("prompts make -o set", "--scales 0.5,1,2", "scales=[0.5,1,2]"),
    ("prompts make -o set", "--against a.txt --against b.txt", "against=[a.txt,b.txt]"),
    ("prompts make -o set", "--seed 3", "seed=3"),
    (
        "prompts make -o set",
        "--endpoint http://localhost:8000/v1 --model words --key-env KEY",
        "paraphrase.base_url=http://localhost:8000/v1 paraphrase.model=words paraphrase.key_env=KEY",
    ),
    ("prompts check set", "--against a.txt --against b.txt", "against=[a.txt,b.txt]"),
    ("corpus show corpus", "--seed 3", "seed=3"),
    ("corpus tokenise corpus", "--policy runs/mine", "policy=runs/mine"),
    ("corpus tokenise corpus", "--device cpu", "device=cpu"),
    ("corpus tokenise corpus", "--ground #102030", "pictures.ground='#102030'"),
    ("corpus tokenise corpus", "--max-megapixels 10", "pictures.max_megapixels=10"),
]  # fmt: skip


def dry_run(*words: str) -> tuple[str, str]:
    """What a command line configures, and what it prints on standard error."""
    result = CliRunner().invoke(app, [*words, "--dry-run"])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.stdout, result.stderr


@pytest.mark.parametrize(("verb", "old", "new"), SAME)
def test_an_old_flag_gives_the_configuration_of_its_new_form(verb: str, old: str, new: str):
    new_config, silence = dry_run(*verb.split(), *new.split(" "))
    old_config, warning = dry_run(*verb.split(), *old.split(" "))
    assert old_config == new_config
    assert not silence and len(warning.splitlines()) == 1
    assert warning.startswith(f"thinkdraw: {old.split()[0]} ") and warning.endswith("goes with the next release.\n")
    usual, _ = dry_run(*verb.split()) if verb not in ("eval", "prompts check set") else ("", "")
    assert old_config != usual


def test_every_old_flag_is_tried():
    tried = {(verb, word) for verb, old, _ in SAME for word in old.split() if word.startswith("--")}
    for verb, flags in OLD_FLAGS.items():
        for flag in flags:
            assert any(begin.startswith(verb) and word == flag for begin, word in tried), f"{verb} {flag}"


def test_the_warning_says_how_it_is_written_now(capsys):
    words = translate("generate", ["lab", "--thought", "off", "-p", "a star", "--seed=3"])
    assert words == ["lab", "-p", "a star", "thought=off", "seed=3"]
    said = capsys.readouterr().err
    assert said == (
        "thinkdraw: --thought off --seed 3 is written thought=off seed=3 now; the old form goes with the next release.\n"
    )


def test_a_value_that_yaml_would_read_as_something_else_is_quoted(capsys):
    assert translate("score", ["--name", "12"]) == ['name="12"']
    assert translate("sample", ["--reward", "a:b, c"]) == ['rewards=["a:b, c"]']
    capsys.readouterr()


def test_an_old_flag_without_its_value_is_one_line():
    with pytest.raises(UserError, match=r"--thought needs a value. It is written thought=VALUE now."):
        translate("generate", ["lab", "--thought"])
