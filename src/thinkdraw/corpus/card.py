"""The data-set card: source, teacher and instruction, and what was left out."""

from dataclasses import dataclass

import yaml
from pydantic import BaseModel

from thinkdraw.corpus.queue import Counts
from thinkdraw.corpus.settings import CorpusSettings
from thinkdraw.corpus.teachers import instructions


@dataclass(frozen=True)
class CorpusTotals:
    """What became of the items. rows: in the corpus.

    filtered: reason → rows. rejected: kind → rows. malformed: kind → answers that were asked for again. no_verdict:
    judge → rows that it said nothing about. read: what was done to pictures so that teacher and judges saw them → rows.
    source: what became of all files and cells of the source.
    """

    rows: int
    is_complete: bool
    counts: Counts
    filtered: dict[str, int]
    rejected: dict[str, int]
    malformed: dict[str, int]
    no_verdict: dict[str, int]
    read: dict[str, int]
    source: dict[str, int]


def card(settings: CorpusSettings, teacher: str, totals: CorpusTotals) -> str:
    """Write README.md with the front matter that `datasets` and the hub read.

    It holds no date, so that the same corpus always has the same card.
    """
    head = {
        "license": settings.licence,
        "task_categories": ["text-to-image"],
        "size_categories": [_size(totals.rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
        "thinkdraw": {
            "rows": totals.rows,
            "items": totals.counts.total,
            "complete": totals.is_complete,
            "teacher": teacher,
        },
    }
    unfinished = (
        ""
        if totals.is_complete
        else f"\n**Not complete:** the budget ended with {totals.counts.waiting} items not asked about.\n"
    )
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---
# A corpus of rationales

{totals.rows} rows: a picture, prompts in five styles and a rationale in four, written by **{teacher}**. Made by `thinkdraw corpus write`.
{unfinished}
{_COLUMNS}
## Provenance

{_code(settings.source)}
Pictures are stored as they were. The teacher and the judges saw them upright, in sRGB, without transparency:

{_code(settings.pictures)}
{_teacher(settings, totals)}
{_counts(totals)}
## Filters

{_code(settings.filters)}
## Licence

{settings.licence}. Pictures keep the licence of their source; the texts are subject to the teacher's terms.
"""


_COLUMNS = """## Columns

| column | what |
|---|---|
| `image` | the picture as it was in the source, or as it was drawn; null where there is none |
| `brief_caption` | the source's caption or prompt, else the plain style |
| `detailed_caption` | the dense rationale |
| `augmented_prompts` | `short_caption`, `paraphrases`, `tags`, `object_prompts`, `varied_captions` |
| `augmented_cots` | `step_by_step`, `object_centric`, `region_descriptions`, `tags` |
| `id`, `structure` | the item in the source; clauses and questions of its prompt as JSON, where known |

The names are those of ReasonGen-R1's data set (arXiv 2505.24875).
"""


def _teacher(settings: CorpusSettings, totals: CorpusTotals) -> str:
    counts, limits = totals.counts, settings.limits
    spent = f"{counts.tokens_in} tokens in, {counts.tokens_out} out"
    if limits.price_in or limits.price_out:
        spent += f", {limits.money(counts.tokens_in, counts.tokens_out):.2f} at the given prices"
    language = getattr(settings.teacher, "language", "English")
    return f"""## Teacher

{_code(settings.teacher, exclude={"key_env", "concurrency", "timeout_s"})}
{counts.requests} answers, {sum(totals.malformed.values())} of them malformed; {spent}.

Instruction:

{_quote(instructions.system(language))}

With a picture:

{_quote(instructions.question(True, "…"))}

Without:

{_quote(instructions.question(False, "…"))}

After a malformed answer:

{_quote(instructions.retry("…"))}
"""


def _counts(totals: CorpusTotals) -> str:
    no_verdicts = "".join(
        f"\n* {name}: {count} rows without a verdict stay\n" for name, count in totals.no_verdict.items() if count
    )
    counted = {"of the source": {name: count for name, count in totals.source.items() if count}}
    counted |= {"left out because of": totals.filtered, "set aside because of": totals.rejected}
    counted |= {
        "malformed answers, asked for again": totals.malformed,
        "pictures, as teacher and judges saw them": totals.read,
    }
    tables = "\n".join(_table(title, rows) for title, rows in counted.items() if rows)
    return f"""## Counts

| | items |
|---|---|
| in the source | {totals.counts.total} |
| in the corpus | {totals.rows} |
| left out by a filter (`filtered.jsonl`) | {sum(totals.filtered.values())} |
| set aside without a usable answer (`rejected.jsonl`) | {totals.counts.rejected} |
| not asked about | {totals.counts.waiting} |

{tables}{no_verdicts}"""


def _code(section: BaseModel, exclude: set[str] | None = None) -> str:
    text = yaml.safe_dump(section.model_dump(mode="json", exclude=exclude), sort_keys=False, allow_unicode=True)
    return f"```yaml\n{text}```\n"


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _table(title: str, rows: dict[str, int]) -> str:
    lines = [
        f"| {name.replace('|', '/')} | {count} |"
        for name, count in sorted(rows.items(), key=lambda row: (-row[1], row[0]))
    ]
    return "\n".join([f"| {title} | |", "|---|---|", *lines]) + "\n"


def _size(rows: int) -> str:
    bounds = [(1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "n>1M")
