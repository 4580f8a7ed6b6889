"""The page docs/tests_read.md, made from the register of test readings: python docs/tests_read.py"""

from __future__ import annotations

from pathlib import Path

from qcq.data import sealed
from qcq.evaluation.register import Reading, readings

PAGE = Path(__file__).with_suffix(".md")

HEAD = f"""# What was read on test parts

*Made by `python docs/tests_read.py` from `evaluation/register.toml`; a test holds the two together.*

A test part that was read helped to decide what was tried next. A later figure on the same students is no fresh test,
and neither are folds over them: those show how robust a figure is. So every reading behind this project's pages is
listed below, and every run on real data says which test parts it reads and how often the register knows them
(`about.json`, `qcq audit`).

## The sealed test

For claims that are still to be made, one student in twenty of EdNet KT1 is sealed: a student is sealed if the first
four bytes of SHA-256("{sealed.SALT}" + identifier) are below {sealed.SHARE} · 2^32. The rule looks at identifiers
alone. Over `u1` to `u{sealed.ASKED - 1}`, whichever of them exist, the sealed ones in sorted order have the digest
`{sealed.DIGEST}` (SHA-256; `qcq.data.sealed`).

- Sealed students are in no part of any split. `--set ednet.sealed=test` makes them the test part. Nothing else does,
  and it is refused where they would be trained or validated on.
- A run that opens the seal writes its reading into the register before any table is scored.
- [`experiments/sealed.toml`](../experiments/sealed.toml) fixes measure, tracer and tables. It is changed before the
  reading, by choices made on validation, or not at all.
- Nobody has read them through qcq. But the subset `pebg_ednet`, all of whose students have been read, was drawn from
  the same 784,309 students and doesn't name them: about 250 of the some 39,000 sealed students are among those 5,002.
- Only runs notice what they read. Benchmarks that look at test students (`benchmarks/kt.py`, `duplicates.py`,
  `typed.py`, `lookup.py`), `qcq audit --replay` and own code don't: enter those by hand.
- EdNet in another tool's format (pyKT, edmine) has lost these identifiers, so the rule can't hold there.

## What is still unread

Of the data sets that the project's figures come from, none has an ordered student who was in no part:

| data set | students | read |
|---|---|---|
| `s2kt_assist09` | 3,852 | all: trained, validated or tested on; the 89 second identifiers in readings as published |
| `pebg_ednet` | 5,002 | all, divided by seed 0 |
| `akt_assist2009_pid` | 4,150 | never scored, but it is ASSISTments 2009 again: 4,037 of the students stand in \
`s2kt_assist09` by their answers; the other 113 have one or two answers each |
| `eedi_csc311` | 542 | never scored; it has no order, so it can't test a tracer |
| `icd_Math2015` | 8,656 | never scored; no order, twenty answers a student |

XES3G5M, ASSISTments 2012 and 2017, Junyi, KDD Cup 2010 and Eedi's NeurIPS 2020 tasks were never read for these pages.
No code guards them. Whoever reads one first enters it here.

## The readings

`students` are answers of test students; `edges` are held-out question–concept edges; `questions` are those that a
regression was judged on, with a target made of training students' answers. Digests are of the test part.

"""


def page() -> str:
    """The whole page."""
    rows = ["| date, commit | data | unit | digest | what | by | where | command | why |", "|" + "---|" * 9]
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
