"""Every command and every block in the documents is taken by the program, and the cheap ones run on the lab's checkpoint."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.documents import OWN_FILES, PAGES, ROOT, Command, blocks, commands_of, invoke, problem_with, yaml_recipe

from thinkdraw.lab import checkpoint_path
from thinkdraw.recipes.catalog import read_config

RECIPE_OF = {"prompts": "grpo", "reward": "grpo", "data": "sft", "draw": "corpus"}
DOCS = [page for page in PAGES if page.parent == ROOT / "docs"]
INDEX = ROOT / "docs" / "README.md"
COMMANDS = [command for page in PAGES for command in commands_of(page)]

needs_checkpoint = pytest.mark.skipif(
    not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree"
)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files that documents call your own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, text in OWN_FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for _, _, text in blocks(ROOT / "docs" / "corpus.md", "yaml"):
        if "recipe: corpus" in text:
            (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    for _, _, text in blocks(ROOT / "docs" / "your_pictures.md", "yaml"):
        (tmp_path / "corpus.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


# Commands


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_command_line_takes_every_command_of_a_page(page: Path, own_folder: Path):
    wrong = [f"{c}: {c.text}\n    {problem}" for c in commands_of(page) if (problem := problem_with(c))]
    assert not wrong, "\n".join(wrong)


def test_the_documents_have_commands_of_every_kind():
    assert len(COMMANDS) > 120
    assert {command.words[0] for command in COMMANDS} == {"thinkdraw", "python", "make"}


@pytest.mark.parametrize(
    "text",
    [
        "thinkdraw train lab_grpo clip_hgh=0.2",
        "thinkdraw train lab_grp",
        "thinkdraw sample lab -o runs/store grup_size=8",
        "thinkdraw sample lab --group-size 8",  # the form of the release before
        "thinkdraw eval lab lab-geneval sampels=2",
        "thinkdraw plan janus_pro_1b_grpo gpuz=h100",
        "thinkdraw serve lab-judge prot=8421",
        "thinkdraw store export runs/store -o runs/flat pgn=true",
        "thinkdraw prompts make -o prompts/mine stile=geneval",
        "thinkdraw corpus tokenise runs/mine polcy=lab",
        "thinkdraw generate lab -p star thougt=off",
        "thinkdraw list confgs",
        "thinkdraw explain grpo.clip_hgh",
        "thinkdraw reprot runs/mine",
        "python bench/rollouts.py --treads 2",
        "python bench/rollout.py",
        "make quikstart",
    ],
)
def test_a_wrong_word_in_a_document_is_found(text: str, own_folder: Path):
    page = own_folder / "page.md"
    page.write_text(f"# A page\n\n```text\n{text}\n```\n", encoding="utf-8")
    (command,) = commands_of(page)
    assert problem_with(command) is not None


ONE_STEP = ["max_steps=1", "prompts_per_phase=1", "group_size=2", "sampling.max_thought_tokens=8"]
# A page's cheap commands, run in order in one folder. In front: how a command begins; behind it: what makes it cheap.
CHEAP = {
    "rollout_store.md": {
        "thinkdraw sample lab -o runs/store": ["count=4", "group_size=4"],
        "thinkdraw score runs/store": [],
        "thinkdraw store info": [],
        "thinkdraw store export": [],
        "thinkdraw train lab_dpo": ["max_steps=1", "pairs_per_step=2"],
    },
    "prompt_sets.md": {
        "thinkdraw prompts make -o prompts/mine": [],
        "thinkdraw prompts make -o prompts/lab": [],
        "thinkdraw prompts make -o prompts/other": [],
        "thinkdraw train lab_grpo": [*ONE_STEP, "validation.every=0"],
        "thinkdraw prompts check": [],
    },
    "corpus.md": {
        "thinkdraw corpus write lab_corpus\n": ["source.count=40"],
        "thinkdraw corpus stats": [],
        "thinkdraw corpus show runs/lab_corpus": [],
        "thinkdraw corpus tokenise runs/lab_corpus": [],
        "thinkdraw train lab_sft data.source=runs/lab_corpus": ["max_steps=1", "batch_rows=8"],
    },
    "plan.md": {"thinkdraw plan janus": []},
    "janus_pro.md": {"thinkdraw plan janus": []},
    "judges.md": {
        "thinkdraw train lab_grpo policy=lab reward.name=orm": [*ONE_STEP, "validation.prompts.count=6"],
    },
    "objectives.md": {
        "thinkdraw train lab_grpo": [*ONE_STEP, "group_size=3", "validation.every=0"],
        "thinkdraw list objectives": [],
    },
    "glossary.md": {"python bench/lab_words.py": []},
}  # fmt: skip


@pytest.mark.slow
@needs_checkpoint
@pytest.mark.parametrize("name", CHEAP)
def test_cheap_commands_of_a_page_run(name: str, own_folder: Path):
    page = ROOT / "docs" / name
    for begin, cheaper in CHEAP[name].items():
        matching = [c for c in commands_of(page) if f"{c.text}\n".startswith(begin) and not c.is_form]
        assert matching, f"{name} has no command that begins with {begin!r}"
        for command in {c.text: c for c in matching}.values():
            run(command, cheaper, own_folder)


def run(command: Command, cheaper: list[str], folder: Path) -> None:
    """Run a command with cheaper settings in place of its own; of two cheaper ones of one key the later counts."""
    words = command.words
    if words[0] == "python":
        (folder / "docs").mkdir(exist_ok=True)
        subprocess.run([sys.executable, str(ROOT / words[1]), *words[2:]], check=True, timeout=120)
        return
    if cheaper and words[1] == "train" and not any(word.startswith("out=") for word in words):
        cheaper = [*cheaper, f"out=runs/{len(list(folder.glob('runs/*')))}"]
    settings = {word.partition("=")[0]: word for word in cheaper}
    own = [word for word in words[1:] if word.partition("=")[0] not in settings]
    if "count" in settings and "-n" in own:
        del own[own.index("-n") : own.index("-n") + 2]
    code, output = invoke([*own, *settings.values()])
    assert code == 0, f"{command}: {command.text}\n{output}"


# Blocks


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_blocks_import_what_there_is(page: Path):
    for number, _, code in blocks(page, "python"):
        tree = ast.parse(code, filename=f"{page.name}:{number}")
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, type_ignores=[]), page.name, "exec"), {})


@pytest.mark.parametrize("name", ["benchmarks.md", "judges.md", "objectives.md"])
def test_python_blocks_that_need_no_checkpoint_run(name: str, capsys: pytest.CaptureFixture[str]):
    for _, _, code in blocks(ROOT / "docs" / name, "python"):
        exec(compile(code, name, "exec"), {})
        assert "print(" not in code or capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_json_blocks_are_json(page: Path):
    for _, _, text in blocks(page, "json"):
        try:
            json.loads(text)
        except json.JSONDecodeError:
            assert all(isinstance(json.loads(line), dict) for line in text.splitlines()), text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_yaml_blocks_are_configurations(page: Path, tmp_path: Path):
    for number, _, text in blocks(page, "yaml"):
        section = next(iter(yaml.safe_load(text)))
        recipe = yaml_recipe(text) or RECIPE_OF.get(section)
        assert recipe, f"{page.name}:{number}: of which recipe is {section}? Say it in a comment."
        file = tmp_path / "block.yaml"
        file.write_text(text if "recipe:" in text else f"recipe: {recipe}\n{text}", encoding="utf-8")
        read_config(str(file), [])


@pytest.mark.slow
@needs_checkpoint
def test_the_fifteen_lines_of_the_readme_run(tmp_path: Path):
    ((_, _, code),) = blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs/short/report.html").is_file()


# Links


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can lead to, as GitHub names them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", head).lower()).strip().replace(" ", "-") for head in heads
    }


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_inside_the_project_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(file), f"{page.name} links to {target}, which has no such heading"


def test_the_index_names_every_page_and_every_page_leads_back():
    linked = set(re.findall(r"\]\(([\w.]+\.md)", INDEX.read_text(encoding="utf-8")))
    others = {page.name for page in DOCS} - {INDEX.name}
    assert linked >= others, f"docs/README.md does not name {sorted(others - linked)}"
    by_hand = [page for page in DOCS if page.name not in (INDEX.name, "architecture.md", "config.md")]
    assert [page.name for page in by_hand if "](README.md)" not in page.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ("history.md", "CHANGELOG.md")], ids=named)
def test_only_the_history_speaks_of_dates_and_commits(page: Path):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"\b20\d\d-\d\d-\d\d\b|\bcommit [0-9a-f]{7}\b", text) == []
