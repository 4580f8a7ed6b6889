"""How close language models come to the floor, how fast, and what a step costs as the vocabulary grows.

    python benchmarks/transformer.py [--quick] [--json FILE] [--only floor,race,vocabulary] [--long STEPS]

Cases
-----
floor       excess over the floor at the default step budget, with seconds and peak memory. The "peer" is the target:
            0.10 nat (0.05 with --long), 600 s, 3 GiB; the ratio is target / ours, so 1 or more is a hit.
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

import qcq.data as data
from qcq.corpus import Corpus
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, Source
from qcq.models.language import MLM, LanguageTrainer, Monitor
from qcq.models.training import train
from qcq.objectives import Masked
from qcq.seeds import generator

Row = dict[str, Any]


def load(quick: bool) -> tuple[str, Source]:
    folder = Path(os.environ.get("QCQ_DATA", "")) / "s2kt_assist09"
    real = not quick and "QCQ_DATA" in os.environ and folder.is_dir()
    made = data.read(f"s2kt:{folder}") if real else data.Simulated(questions=600 if quick else 2000).read()
    source = Source(KnowledgeGraph.from_dataset(made))
    _ = source.corpus, source.heldout
    return made.name, source


def floor(source: Source, name: str, quick: bool, steps: int | None) -> list[Row]:
    probe = Masked().probe(source.heldout, seed=0)
    best = probe.objective.floor(source.chain, probe)
    rows = []
    for trainer in ("mlm", "cloze"):
        settings = {"steps": 300} if quick else {"steps": steps} if steps else {}
        made = TRAINERS[trainer](**settings)
        clock = time.perf_counter()
        model = made.fit(source)
        seconds = time.perf_counter() - clock
        excess = float((model.losses(probe) - best).mean())
        target = 0.05 if steps else 0.10
        case = f"{name}, {trainer}, {made.steps} steps: excess over {best.mean():.3f}"
        rows.append(row("floor", case, "target", "", excess, target, "nats", target / excess))
        rows.append(row("floor", f"{case.split(':')[0]}: time", "target", "", seconds, 600.0, "s", 600 / seconds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append(row("floor", f"{name}: peak memory of the process", "target", "", peak, 3.0, "GiB", 3.0 / peak))
    return rows


class Reached(Exception):
    """The excess asked for was reached."""


def ours_to(source: Source, goal: float, repeats: int) -> list[float]:
    """Seconds of the whole fit with its measurements, ended at ``goal``; one a seed."""
    out = []
    for seed in range(repeats):
        clock = time.perf_counter()
        MLM(stop_excess=goal).fit(source, seed)
        out.append(time.perf_counter() - clock)
    return out


def bert_to(source: Source, goal: float, limit: float, dim: int, heads: int, layers: int, seed: int = 0) -> tuple:
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
    assert monitor.paper.floor is not None
    paper, best = monitor.paper.probe, float(monitor.paper.floor.mean())

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
            made = bert.exercise(next(batches), v, rng)
            ids = torch.from_numpy(np.where(made.hidden, v, np.where(made.real, made.tokens, v + 1))).long()
            labels = torch.full(ids.shape, -100)
            labels[torch.from_numpy(made.asked)] = torch.from_numpy(made.targets)
            optimiser.zero_grad()
            model(ids, attention_mask=torch.from_numpy(made.real), labels=labels).loss.backward()
            optimiser.step()
        spent += time.perf_counter() - clock
        now = excess()
    return (spent if now <= goal else None), now, transformers.__version__


def race(source: Source, name: str, quick: bool) -> list[Row]:
    ours = statistics.median(ours_to(source, 1.0, 1 if quick else 3))
    settings, limit = MLM(), min(10 * ours, 20.0) if quick else 10 * ours
    try:
        theirs, reached, version = bert_to(source, 1.0, limit, settings.dim, settings.heads, settings.layers)
    except ImportError as error:
        return [row("race", f"{name}: peer missing ({error}); pip install transformers", "", "", ours, None, "s", None)]
    case = f"{name}: time to an excess of 1.0"
    if theirs is None:
        case += f" (peer stopped after {limit:.0f} s at {reached:.2f}; ratio is at least this)"
    theirs = limit if theirs is None else theirs
    return [row("race", case, "BertForMaskedLM", version, ours, theirs, "s", theirs / ours)]


def step_ms(questions: int, trainer: LanguageTrainer) -> float:
    """Median milliseconds of a training step on random walks over ``questions`` questions."""
    rng = np.random.default_rng(0)
    corpus = Corpus([rng.integers(0, questions, (8192, 40)).astype(np.int32)], questions, 1, "random")
    torch.set_num_threads(trainer.threads)
    learner, _ = trainer.learner(SimpleNamespace(corpus=corpus), 0)  # type: ignore[arg-type]
    times: list[float] = []
    last = time.perf_counter()

    def ask(walks: np.ndarray, rng: np.random.Generator) -> Any:
        nonlocal last
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
        return trainer.exercise(walks, questions, rng)

    train(learner, trainer, corpus, ask, 0, lambda *a, **k: None, lambda history: {"loss": 0.0}, {})
    return 1e3 * statistics.median(times[len(times) // 3 :])


def vocabulary(quick: bool) -> list[Row]:
    rows = []
    for trainer in ("mlm", "cloze"):
        first = None
        for questions in (1_000, 10_000, 100_000, 1_000_000)[: 3 if quick else 4]:
            ms = step_ms(questions, TRAINERS[trainer](steps=30 if quick else 90))
            first = first or ms
            case = f"{trainer}, {questions:,} questions"
            rows.append(row("vocabulary", case, "1,000 questions", "", ms, first, "ms/step", first / ms))
    return rows


def row(
    benchmark: str,
    case: str,
    peer: str,
    version: str,
    ours: float,
    theirs: float | None,
    unit: str,
    ratio: float | None,
) -> Row:
    return {
        "benchmark": f"transformer/{benchmark}",
        "case": case,
        "peer": peer,
        "peer_version": version,
        "ours": ours,
        "theirs": theirs,
        "unit": unit,
        "ratio": ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="floor,race,vocabulary")
    parser.add_argument("--long", type=int, help="steps of the floor case, instead of the trainers' defaults")
    args = parser.parse_args()
    wanted = args.only.split(",")
    rows: list[Row] = []
    if "floor" in wanted or "race" in wanted:
        name, source = load(args.quick)
        if "floor" in wanted:
            rows += floor(source, name, args.quick, args.long)
        if "race" in wanted:
            rows += race(source, name, args.quick)
    if "vocabulary" in wanted:
        rows += vocabulary(args.quick)
    print(f"{'case':<90} {'ours':>9} {'theirs':>9} {'unit':>8} {'ratio':>7}")
    for r in rows:
        theirs, ratio = (f"{r[k]:.2f}" if r[k] is not None else "-" for k in ("theirs", "ratio"))
        peer = f"{r['peer']} {r['peer_version']}"
        print(f"{r['case']:<90} {r['ours']:>9.3f} {theirs:>9} {r['unit']:>8} {ratio:>7}  {peer}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
