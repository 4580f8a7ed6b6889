"""How close language models come to the floor, how fast, and what a step costs as the vocabulary grows.

    python benchmarks/transformer.py [--quick] [--json FILE] [--only floor,race,vocabulary] [--long mlm=N,cloze=N]
    python benchmarks/transformer.py --table FILE   the rows of a --json file as Markdown

A --json file that is there already is added to: a case that was run again takes the place of its older row.

Cases
-----
floor       excess over the floor at the default step budget, with seconds and peak memory. The "peer" is the target:
            0.10 nat, 600 s, 3 GiB; the ratio is target / ours, so 1 or more is a hit. With --long, the trainers named
            there train for so many steps instead, and the target is 0.05 nat.
race        seconds to a held-out excess of 1.0 nat, against Hugging Face's BertForMaskedLM of the same width and depth
            trained from scratch on the same walks (its own objective, 15 %, 80/10/10, and its own loss over all
            positions), given ten times our time. The held-out paper is the same for both.
vocabulary  milliseconds a training step from 1,000 to 1,000,000 questions, against our own step at 1,000.

Real data is read from $QCQ_DATA/s2kt_assist09; without it, and with --quick, the simulated classroom stands in. Hugging
Face's side needs ``pip install transformers``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from record import stamped

import qcq.data as data
from qcq.corpus import Corpus
from qcq.floors.objectives import Masked
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.language.execution import Rows
from qcq.models.language.trainers import MLM, Cloze, LanguageTrainer, Monitor
from qcq.models.language.training import train
from qcq.support.seeds import generator

Row = dict[str, Any]


def load(quick: bool) -> tuple[str, TrainingData]:
    folder = Path(os.environ.get("QCQ_DATA", "")) / "s2kt_assist09"
    real = not quick and "QCQ_DATA" in os.environ and folder.is_dir()
    made = data.read(f"s2kt:{folder}") if real else data.Simulated(questions=600 if quick else 2000).read()
    source = TrainingData(KnowledgeGraph.from_dataset(made))
    _ = source.corpus, source.heldout
    return made.name, source


def floor(source: TrainingData, name: str, quick: bool, long: dict[str, int]) -> list[Row]:
    batch = Masked().held_out_batch(source.heldout, seed=0)
    best = batch.objective.floor(source.chain, batch)
    rows = []
    for trainer in long or ("mlm", "cloze"):
        settings = {"steps": 300} if quick else {"steps": long[trainer]} if long else {}
        made: Any = TRAINERS[trainer](**settings)
        clock = time.perf_counter()
        model = made.fit(source)
        seconds = time.perf_counter() - clock
        excess = float((model.losses(batch) - best).mean())
        target = 0.05 if long else 0.10
        case = f"{name}, {trainer}, {made.steps:,} steps"
        print(f"{case}: {excess:.4f} in {seconds:.0f} s", flush=True)
        rows.append(row("floor", f"{case}: excess over {best.mean():.3f}", "target", "", excess, target, "nats"))
        if not long:
            rows.append(row("floor", f"{case}: time", "target", "", seconds, 600.0, "s"))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            rows.append(row("floor", f"{case}: peak memory of the process", "target", "", peak, 3.0, "GiB"))
    return rows


def ours_to(source: TrainingData, goal: float, repeats: int) -> list[float]:
    """Seconds of the whole fit with its measurements, ended at ``goal``; one a seed."""
    out = []
    for seed in range(repeats):
        clock = time.perf_counter()
        MLM(stop_excess=goal).fit(source, seed)
        out.append(time.perf_counter() - clock)
    return out


def bert_to(source: TrainingData, goal: float, limit: float, dim: int, heads: int, layers: int, seed: int = 0) -> tuple:
    """Seconds to ``goal``, or None and the excess reached within ``limit`` seconds; and transformers' version."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    corpus = source.corpus
    v = corpus.n_questions
    config = transformers.BertConfig(
        vocab_size=v + 2, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * dim, max_position_embeddings=corpus.length, hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1, pad_token_id=v + 1,
    )  # fmt: skip
    model = transformers.BertForMaskedLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    learner, counts = MLM(dim=dim, heads=heads, layers=layers).learner(source, 0)
    monitor = Monitor(SimpleNamespace(learner=learner, objective=Masked(), losses=None), source, len(counts))  # type: ignore[arg-type]
    assert monitor.held.floor is not None
    paper, best = monitor.held.batch, float(monitor.held.floor.mean())

    def excess() -> float:
        model.eval()
        given = np.where(paper.asked, v, paper.tokens)
        given = np.where(paper.tokens < 0, v + 1, given)
        total, n = 0.0, 0
        with torch.no_grad():
            for i in range(0, len(given), 16):
                ids, asked = torch.from_numpy(given[i : i + 16]).long(), torch.from_numpy(paper.asked[i : i + 16])
                scores = model(ids, attention_mask=(ids != v + 1)).logits[asked][:, :v]
                right = torch.from_numpy(paper.tokens[i : i + 16][paper.asked[i : i + 16]]).long()
                total += float(torch.nn.functional.cross_entropy(scores, right, reduction="sum"))
                n += len(right)
        return total / n - best

    bert = MLM(mask_rate=0.15, mask_share=0.8, random_share=0.1)
    batches, rng = corpus.batches(32, generator(seed, "batches")), generator(seed, "bert")
    spent, now = 0.0, np.inf
    while spent < limit and now > goal:
        clock = time.perf_counter()
        model.train()
        for _ in range(25):
            made = bert.training_batch(next(batches), v, rng)
            ids = torch.from_numpy(np.where(made.hidden, v, np.where(made.real, made.tokens, v + 1))).long()
            labels = torch.full(ids.shape, -100)
            labels[torch.from_numpy(made.asked)] = torch.from_numpy(made.targets)
            optimiser.zero_grad()
            model(ids, attention_mask=torch.from_numpy(made.real), labels=labels).loss.backward()
            optimiser.step()
        spent += time.perf_counter() - clock
        now = excess()
    return (spent if now <= goal else None), now, transformers.__version__


def race(source: TrainingData, name: str, quick: bool) -> list[Row]:
    ours = statistics.median(ours_to(source, 1.0, 1 if quick else 3))
    settings, limit = MLM(), min(10 * ours, 20.0) if quick else 10 * ours
    try:
        theirs, reached, version = bert_to(source, 1.0, limit, settings.dim, settings.heads, settings.layers)
    except ImportError as error:
        raise SystemExit(f"race: {error}; pip install transformers") from None
    case = f"{name}, mlm: time to an excess of 1.0"
    note = "" if theirs else f"the peer was stopped there at an excess of {reached:.2f}; the ratio is at least this"
    return [row("race", case, "BertForMaskedLM", version, ours, theirs or limit, "s", note)]


def step_ms(questions: int, trainer: LanguageTrainer) -> float:
    """Median milliseconds of a training step on random walks over ``questions`` questions."""
    rng = np.random.default_rng(0)
    corpus = Corpus([rng.integers(0, questions, (8192, 40)).astype(np.int32)], questions, 1, "random")
    torch.set_num_threads(trainer.threads)
    learner, _ = trainer.learner(SimpleNamespace(corpus=corpus, start=None), 0)  # type: ignore[arg-type]
    times: list[float] = []
    last = time.perf_counter()

    def ask(walks: np.ndarray, rng: np.random.Generator) -> Any:
        nonlocal last
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
        return trainer.training_batch(walks, questions, rng)

    train(learner, trainer, corpus, ask, 0, lambda *a, **k: None, lambda history: {"loss": 0.0}, {}, Rows)
    return 1e3 * statistics.median(times[len(times) // 3 :])


def vocabulary(quick: bool) -> list[Row]:
    rows = []
    for trainer in ("mlm", "cloze"):
        first = None
        for questions in (1_000, 10_000, 100_000, 1_000_000)[: 3 if quick else 4]:
            ms = step_ms(questions, (MLM if trainer == "mlm" else Cloze)(steps=30 if quick else 90))
            first = first or ms
            case = f"{trainer}, {questions:,} questions"
            rows.append(row("vocabulary", case, "1,000 questions", "", ms, first, "ms/step"))
    return rows


def row(
    benchmark: str, case: str, peer: str, version: str, ours: float, theirs: float, unit: str, note: str = ""
) -> Row:
    return {
        "benchmark": f"transformer/{benchmark}",
        "case": case,
        "peer": peer,
        "peer_version": version,
        "ours": ours,
        "theirs": theirs,
        "unit": unit,
        "ratio": theirs / ours,
        "note": note,
    }


def table(rows: list[Row]) -> str:
    """Rows as Markdown."""
    lines = [
        "# Transformers against their floor and their peers",
        "",
        "Made by `benchmarks/transformer.py`, which says what is compared. A ratio of 1 or more is a target reached,",
        "or a peer outrun.",
        "",
        "| case | ours | target or peer | unit | ratio | |",
        "|---|---:|---:|---|---:|---|",
    ]
    for r in rows:
        peer = f"{r['peer']} {r['peer_version']}".strip()
        peer = f"{r['theirs']:.3g}" + ("" if peer == "target" else f" ({peer})")
        lines.append(f"| {r['case']} | {r['ours']:.3g} | {peer} | {r['unit']} | {r['ratio']:.2f} | {r['note']} |")
    return "\n".join(lines)


def merged(kept: list[Row], new: list[Row]) -> list[Row]:
    """``kept`` with the rows of ``new``, which take the place of older ones of the same case."""

    def case(r: Row) -> tuple[str, str]:
        return r["benchmark"], r["case"].split(": excess")[0]

    again = {case(r) for r in new}
    return [r for r in kept if case(r) not in again] + new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="floor,race,vocabulary")
    parser.add_argument("--long", default="", help="steps of the floor case by trainer, mlm=N,cloze=N")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text(encoding="utf-8"))))
        return
    wanted = args.only.split(",")
    long = {trainer: int(steps) for trainer, _, steps in (part.partition("=") for part in args.long.split(",") if part)}
    rows: list[Row] = []
    if "floor" in wanted or "race" in wanted:
        name, source = load(args.quick)
        if "floor" in wanted:
            rows += floor(source, name, args.quick, long)
        if "race" in wanted:
            rows += race(source, name, args.quick)
    if "vocabulary" in wanted:
        rows += vocabulary(args.quick)
    print(f"{'case':<70} {'ours':>9} {'theirs':>9} {'unit':>8} {'ratio':>7}")
    for r in rows:
        peer = f"{r['peer']} {r['peer_version']} {r['note']}"
        print(f"{r['case']:<70} {r['ours']:>9.3f} {r['theirs']:>9.2f} {r['unit']:>8} {r['ratio']:>7.2f}  {peer}")
    if args.json:
        kept = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else []
        args.json.write_text(json.dumps(merged(kept, stamped(rows)), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
