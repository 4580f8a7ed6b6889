"""The page docs/tests_read.md, made from the register of test readings: python docs/tests_read.py"""

from __future__ import annotations

from pathlib import Path

from qcq.data import sealed
from qcq.evaluation.register import Reading, readings

PAGE = Path(__file__).with_suffix(".md")

HEAD = f"""# What was read on test sets

*Made by `python docs/tests_read.py` from `evaluation/register.toml`; a test compares the two.*

This page lists every reading of a test set behind this project's pages. Look here before you call a figure a fresh
test. Every run on a published data set names in `about.json` the test sets that it reads, and how often the register
has them. A run on your own data does not mention the register. This command checks it:

```console
$ qcq audit runs/first
```

- A test set that was read helped to decide what was tried next. A later figure on the same students is no fresh test.
- Folds over the same students are no fresh test either. They show how robust a figure is.

## The sealed test

One student in twenty of EdNet KT1 is sealed, for claims that are still to be made. A student is sealed if

```text
first four bytes of SHA-256("{sealed.SALT}" + identifier) < {sealed.SHARE} · 2^32
```

The rule reads identifiers alone. Take the sealed ones of `u1` to `u{sealed.ASKED - 1}`, whichever of them exist, in
sorted order. Their SHA-256 digest is `{sealed.DIGEST}` (`qcq.data.sealed`).

- Sealed students are in no set of any split. `--set ednet.sealed=test` makes them the test set, and nothing else does.
  It is refused where a model would be trained or validated on them.
- A run that opens the seal writes its reading into the register before it scores a table.
- [`experiments/sealed.toml`](../experiments/sealed.toml) fixes the measure, the knowledge-tracing model and the tables.
  It may be changed before the reading only, by choices made on validation.
- Nobody has read the sealed students through qcq.
- The subset `pebg_ednet` was drawn from the same 784,309 students and does not name them. All its 5,002 students were
  read. About 250 of them are among the sealed students, of whom there are about 39,000.
- Only runs record what they read. Enter other readings by hand: `qcq audit --replay`, your own code, and the benchmarks
  that read test students (`benchmarks/kt.py`, `duplicates.py`, `typed.py`, `lookup.py`, `unseen.py`).
- EdNet in another tool's format (pyKT, edmine) has lost the identifiers, so the rule does not work there.

## What is still unread

No data set behind the project's figures has students with ordered answers left for a fresh test:

| data set | students | read |
|---|---|---|
| `s2kt_assist09` | 3,852 | all, in training, validation or test; the 89 second identifiers in readings as published |
| `pebg_ednet` | 5,002 | all, split by seed 0 |
| `akt_assist2009_pid` | 4,150 | never scored, but it is ASSISTments 2009 again: by their answers 4,037 of the \
students are in `s2kt_assist09`; the other 113 have one or two answers each |
| `eedi_csc311` | 542 | never scored; it has no order, so it cannot test knowledge tracing |
| `icd_Math2015` | 8,656 | never scored; no order, twenty answers per student |

XES3G5M, ASSISTments 2012 and 2017, Junyi, KDD Cup 2010 and Eedi's NeurIPS 2020 tasks were never read for these pages.
No code guards them. Whoever reads one first enters it here.

## The readings

| test set | what it is |
|---|---|
| `students` | answers of test students |
| `edges` | held-out question–concept edges |
| `questions` | the questions on which a regression was tested; its target comes from answers of training students |

Digests are those of the test set.

"""


def page() -> str:
    """The whole page."""
    rows = ["| date, commit | data | test set | digest | what | by | where | command | why |", "|" + "---|" * 9]
    rows += ["| " + " | ".join(_cells(each)) + " |" for each in readings()]
    return HEAD + "\n".join(rows) + "\n"


def _cells(each: Reading) -> list[str]:
    where = f"`{each.where}`" if "/" in each.where else each.where
    command = each.command.replace("|", "\\|")
    said = command if " " not in command or command.startswith(("the ", "a ", "commands ")) else f"`{command}`"
    digest = f"`{each.digest[:12]}`" if each.digest else ""
    when = f"{each.date} {each.commit}".strip()
    return [when, each.data, each.unit, digest, each.rows, each.tasks, where, said, each.why]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
