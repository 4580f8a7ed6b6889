"""qcq vectors in an unmodified pyKT model.

    qcq run --data assist2009 --out runs/first
    qcq export runs/first --order assist2009/keyid2idx.json --out rows.pt
    python examples/pykt_vectors.py rows.pt

pyKT (pykt-toolkit 0.0.38) reads question vectors in SAINT alone, so they are put in after ``init_model``. This script
trains qDKT for a few steps on made-up answers, with the rows frozen and with the rows trained on, and shows how far
they moved.
"""

from __future__ import annotations

import sys

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
    weight = model.get_submodule(table).weight
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


def batch(n_questions: int, students: int = 8, length: int = 20) -> dict[str, torch.Tensor]:
    """Made-up answers in the form of pyKT's loader."""
    made = torch.Generator().manual_seed(0)
    q = torch.randint(n_questions, (students, length), generator=made)
    r = torch.randint(2, (students, length), generator=made).float()
    seen = torch.ones(students, length - 1, dtype=torch.bool)
    cut = {"qseqs": q, "cseqs": torch.zeros_like(q), "rseqs": r, "tseqs": torch.zeros_like(q)}
    return {
        **{name: each[:, :-1] for name, each in cut.items()},
        **{f"shft_{name}": each[:, 1:] for name, each in cut.items()},
        "masks": seen,
        "smasks": seen,
    }


def main(path: str) -> None:
    from pykt.models import init_model

    held = torch.load(path, weights_only=True)
    rows = held["vectors"]
    n, dim = rows.shape
    for trained in (False, True):
        data = {"num_q": n, "num_c": 1, "max_concepts": 1, "emb_path": ""}
        model = init_model("qdkt", {"emb_size": 2 * dim}, data, "qid")
        put(model, "model.interaction_emb", rows, trained)
        model.compile(optimizer="adam", lr=0.01)
        for _ in range(5):
            loss = model.train_one_step(batch(n))[1]
            model.opt.zero_grad()
            loss.backward()
            model.opt.step()
        moved = (model.model.interaction_emb.weight[:n, dim:] - rows).abs().max().item()
        print(f"{'trained on' if trained else 'frozen'}: loss {loss.item():.3f}, rows moved by {moved:.4f} at most")


if __name__ == "__main__":
    main(sys.argv[1])
