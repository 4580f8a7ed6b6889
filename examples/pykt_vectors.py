"""qcq vectors in an unmodified pyKT model: trains qDKT on a folder that pyKT's own preprocessing made.

    python examples/pykt_vectors.py assist2009 rows.pt            # begins with the rows, and trains them on
    python examples/pykt_vectors.py assist2009 rows.pt --frozen   # keeps them as they are
    python examples/pykt_vectors.py assist2009                    # pyKT's own initial values, to compare

pyKT (pykt-toolkit 0.0.38) reads question vectors in SAINT alone, so they are put in after ``init_model``. Training and
evaluation are pyKT's own; docs/tutorials/pykt.md goes through it.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Container
from pathlib import Path

import torch


def put(model: torch.nn.Module, table: str, rows: torch.Tensor, trained: bool) -> None:
    """Make a model's embedding begin with given rows, and keep them or train on.

    Parameters
    ----------
    table : the embedding's name in the model, ``model.interaction_emb`` in qDKT, ``model.que_emb.que_emb`` in IEKT,
        ``encoder.0.embd_ex`` in SAINT.
    rows : float32 (questions, dim), row i is question i.
    trained : False keeps the rows as they are.

    Raises
    ------
    ValueError : the embedding has neither a row a question, nor two rows of twice the width.
    """
    weight = model.get_parameter(f"{table}.weight")
    n, dim = rows.shape
    none = torch.zeros_like(rows)
    if weight.shape == (2 * n, 2 * dim):
        # Row q is a wrong answer to question q, row n + q a right one. Each has a half of its own, as in KCQRL.
        rows = torch.cat([torch.cat([none, rows], dim=1), torch.cat([rows, none], dim=1)])
    if weight.shape != rows.shape:
        raise ValueError(
            f"{table} is {tuple(weight.shape)}, the rows {(n, dim)}; set emb_size to {dim} "
            f"(or {2 * dim} where a table has two rows a question)"
        )
    with torch.no_grad():
        weight.copy_(rows)
    weight.requires_grad_(trained)


class Answers(torch.utils.data.Dataset):
    """Windows of a ``*_quelevel.csv`` as pyKT's models take them; its own loader for them wants a GPU.

    Parameters
    ----------
    file : ``train_valid_sequences_quelevel.csv`` or ``test_sequences_quelevel.csv``.
    folds : the folds to read; -1 is that of test students.
    """

    def __init__(self, file: Path, folds: Container[int]) -> None:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if int(row["fold"]) in folds]
        read = {name: [list(map(int, row[name].split(","))) for row in rows] for name in ("questions", "responses")}
        self.q, self.r = (torch.tensor(read[name]) for name in ("questions", "responses"))  # (windows, length)

    def __len__(self) -> int:
        return len(self.q)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        q, r = self.q[i], self.r[i]
        seen = q != -1  # the rest of a window is padding
        cut = {"qseqs": q.clamp(min=0), "rseqs": r.clamp(min=0).float()}
        cut |= {"cseqs": torch.zeros_like(q), "tseqs": torch.zeros_like(q)}  # qDKT looks at neither
        both = seen[:-1] & seen[1:]
        return {
            **{name: each[:-1] for name, each in cut.items()},
            **{f"shft_{name}": each[1:] for name, each in cut.items()},
            "masks": both,
            "smasks": both,
        }


def train(
    folder: Path, rows: torch.Tensor | None, trained: bool = True, epochs: int = 20, seed: int = 0
) -> dict[str, float]:
    """AUCs of qDKT on the folder: fold 0 for validation, the other folds to learn from, and the test students.

    Parameters
    ----------
    rows : float32 (questions, dim) in the order of ``keyid2idx.json``; None for pyKT's own initial values of dim 64.
    trained : whether the rows are trained on.
    seed : of the other initial values and the order of the batches.

    Both AUCs are of the epoch that is best on validation.
    """
    from pykt.models import init_model

    n = len(json.loads((folder / "keyid2idx.json").read_text(encoding="utf-8"))["questions"])
    dim = 64 if rows is None else rows.shape[1]
    torch.manual_seed(seed)
    about = {"num_q": n, "num_c": 1, "max_concepts": 1, "emb_path": ""}
    model = init_model("qdkt", {"emb_size": 2 * dim}, about, "qid")
    if rows is not None:
        put(model, "model.interaction_emb", rows, trained)
    model.compile(optimizer="adam", lr=0.001)
    known = folder / "train_valid_sequences_quelevel.csv"
    with tempfile.TemporaryDirectory() as best:
        *_, auc, _, _ = model.train(
            Answers(known, {1, 2, 3, 4}), Answers(known, {0}), num_epochs=epochs, save_dir=best, save_model=True
        )
        model.load_model(best)  # after training the model is that of the last epoch
    test = model.evaluate(Answers(folder / "test_sequences_quelevel.csv", {-1}), batch_size=16)
    return {"validation": float(auc), "test": float(test["auc"])}


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("folder", type=Path, help="with keyid2idx.json and the *_quelevel.csv files")
    about.add_argument("rows", type=Path, nargs="?", help="of qcq export --order keyid2idx.json --out rows.pt")
    about.add_argument("--frozen", action="store_true", help="keep the rows as they are")
    about.add_argument("--epochs", type=int, default=20)
    about.add_argument("--seed", type=int, default=0, help="of the initial values and the order of the batches")
    given = about.parse_args()
    if given.rows is not None and not given.rows.is_file():
        about.error(f"{given.rows}: no such file; write it with qcq export --order keyid2idx.json --out {given.rows}")
    rows = None if given.rows is None else torch.load(given.rows, weights_only=True)["vectors"]
    found = train(given.folder, rows, not given.frozen, given.epochs, given.seed)
    said = "pyKT's own initial values" if rows is None else f"qcq's rows, {'frozen' if given.frozen else 'trained on'}"
    print(f"qDKT with {said}: AUC {found['validation']:.3f} on validation, {found['test']:.3f} on test students")


if __name__ == "__main__":
    main()
