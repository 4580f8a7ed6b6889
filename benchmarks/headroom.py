"""How much is left for question vectors to say? What a gradient boosting model adds to a DKT that knows the concepts.

python benchmarks/headroom.py s2kt:FOLDER
python benchmarks/headroom.py s2kt:FOLDER --published

A DKT on concept-mean vectors with difficulty and popularity beside them foresees each training student without that
student's fifth of the training part, and the validation students. What its errors on training students say of
questions and pairs of questions is then offered, group by group, to a gradient boosting model of validation answers,
which is judged on validation students whom it hasn't seen (five folds, two seeds). No test student is looked at.

``--published`` leaves people who stand in the data under two identifiers where they are (docs/decisions/0612).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace

import numpy as np
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from qcq import data
from qcq.data.dataset import Interactions
from qcq.evaluation import Partition
from qcq.evaluation.tracing.models import Sequences, Tracer
from qcq.evaluation.tracing.tasks import CROSSFIT_FOLDS, Attempts, KTSettings, principal
from qcq.models import TRAINERS, TrainingData

GROUPS = {
    "the question's own error (beyond its difficulty), and its responses": (1, 2, 3),
    "whether the student met this very question before, and how": (4, 5),
    "which question came before and how it went": (6, 7),
    "errors at other questions, by how errors at the two go together": (8, 9),
    "the student's errors so far": (10, 11, 12),
}


def errors(partition: Partition, attempts: Attempts) -> tuple[np.ndarray, np.ndarray]:
    """The DKT's probabilities for training students (each without his own fold) and for validation students."""
    vectors = principal(TRAINERS["concept-mean"](dim=64).fit(TrainingData(partition.graph), 0).embeddings().vectors)
    features, plan = attempts.question_features(("difficulty", "popularity")), KTSettings()
    seen, held = attempts.train.interactions, attempts.sequences("validation")
    fold = attempts.fold[seen.student]
    out = np.empty(len(seen))
    for f in range(CROSSFIT_FOLDS):
        inside, outside = (_part(seen, fold, kept) for kept in (fold != f, fold == f))
        out[fold == f] = Tracer(vectors, features, False, plan, 0).fit(inside, held).predict(outside)
    return out, Tracer(vectors, features, False, plan, 0).fit(attempts.sequences("train"), held).predict(held)


def _part(seen: Interactions, fold: np.ndarray, kept: np.ndarray) -> Sequences:
    return Sequences(Interactions(seen.student[kept], seen.question[kept], seen.correct[kept]), fold[kept])


class Statistics:
    """What the errors on training students say of questions and of pairs of them."""

    def __init__(self, seen: Interactions, guess: np.ndarray, n_students: int, n_questions: int) -> None:
        error, spread = seen.correct - guess, guess * (1 - guess)
        self.n = np.bincount(seen.question, minlength=n_questions)
        self.sum = np.bincount(seen.question, weights=error, minlength=n_questions)
        self.spread = np.bincount(seen.question, weights=spread, minlength=n_questions)
        at = (seen.student, seen.question)
        e = sparse.csr_array((error, at), shape=(n_students, n_questions))
        s = sparse.csr_array((np.sqrt(spread), at), shape=(n_students, n_questions))
        self.together, self.weight = (e.T @ e).tocsr(), (s.T @ s).tocsr()
        self.next: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(4))
        follows = np.flatnonzero(seen.student[1:] == seen.student[:-1]) + 1
        for i in follows.tolist():
            found = self.next[int(seen.question[i - 1]), int(seen.question[i])]
            found[seen.correct[i - 1]] += error[i]
            found[2 + seen.correct[i - 1]] += spread[i]

    def row(self, q: int, before: list[tuple[int, int, float]]) -> list[float]:
        """Features of question ``q`` after the (question, answer, error) of ``before``."""
        own = self.sum[q], self.spread[q]
        out = [own[0] / (own[1] + 1), own[0] / (own[1] + 4), float(self.n[q])]
        again = [answer for question, answer, _ in before if question == q]
        out += [2.0 * again[-1] - 1 if again else 0.0, float(len(again))]
        pair = self.next.get((before[-1][0], q)) if before else None
        answer = before[-1][1] if before else 0
        out += (
            [0.0, 0.0]
            if pair is None
            else [pair[:2].sum() / (pair[2:].sum() + 1), pair[answer] / (pair[2 + answer] + 1)]
        )
        near: dict[int, list[float]] = {}
        for matrix in (self.together, self.weight):
            span = slice(matrix.indptr[q], matrix.indptr[q + 1])
            for k, value in zip(matrix.indices[span].tolist(), matrix.data[span].tolist(), strict=True):
                near.setdefault(k, []).append(value)
        said = [(near[k], e) for k, _, e in before if k in near and len(near[k]) == 2]
        out += [sum(c / (w + k) * e for (c, w), e in said) for k in (1, 5)]
        past = [e for _, _, e in before]
        return [*out, float(len(past)), float(np.mean(past[-5:])) if past else 0.0, past[-1] if past else 0.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="format:path")
    parser.add_argument("--published", action="store_true", help="leave duplicate students where they are")
    args = parser.parse_args()
    dataset = data.load(args.data)
    if args.published:
        dataset = replace(dataset, left_out=np.empty(0, dtype=np.int32))
    partition = Partition.make(dataset, 0, hold_out_edges=False)
    attempts = Attempts(partition, "kt")
    trained, guess = errors(partition, attempts)
    held = attempts.parts["validation"].interactions
    known = Statistics(attempts.train.interactions, trained, len(dataset.students), len(dataset.questions))
    rows: list[list[float]] = []
    before: list[tuple[int, int, float]] = []
    for i, (student, q, answer) in enumerate(zip(held.student, held.question.tolist(), held.correct, strict=True)):
        if i and student != held.student[i - 1]:
            before = []
        rows.append([float(np.log(guess[i] / (1 - guess[i]))), *known.row(q, before)])
        before.append((q, int(answer), float(answer - guess[i])))
    features = np.array(rows)
    fold = np.random.default_rng(0).permutation(len(dataset.students))[held.student] % CROSSFIT_FOLDS

    def judged(columns: tuple[int, ...]) -> float:
        out = np.zeros(len(held))
        for seed in (0, 1):
            for f in range(CROSSFIT_FOLDS):
                model = HistGradientBoostingClassifier(
                    max_iter=80,
                    learning_rate=0.05,
                    max_leaf_nodes=8,
                    min_samples_leaf=100,
                    l2_regularization=10.0,
                    random_state=seed,
                ).fit(features[fold != f][:, columns], held.correct[fold != f])
                out[fold == f] += model.predict_proba(features[fold == f][:, columns])[:, 1]
        return roc_auc_score(held.correct, out)

    plain = judged((0,))
    print(
        f"{dataset.name}: the DKT {roc_auc_score(held.correct, guess):.4f} on validation, {plain:.4f} after boosting\n"
    )
    print("| what is added | AUC | gain |\n|---|---:|---:|")
    for name, columns in {**GROUPS, "all of it": tuple(range(1, 13))}.items():
        auc = judged((0, *columns))
        print(f"| {name} | {auc:.4f} | {auc - plain:+.4f} |", flush=True)


if __name__ == "__main__":
    main()
