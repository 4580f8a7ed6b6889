"""The vector of a question that was not there, from what a language model predicts in its place.

A slot is a hidden position in a walk. Walks through a question need only its concepts: from the slot they step to one
of them, as the walk would, and then go on in the old bank. The row is the mean of the question's concepts and a
correction: a linear map of the model's state at the slot, its mean over many walks. The map is fitted where rows are
known: at the old questions, in slots of their own. ``docs/decisions/0408`` has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.errors import ChainError, QCQError
from qcq.floors.markov import MarkovChain, edge_steps
from qcq.graph import KnowledgeGraph
from qcq.models.inference import by_concepts
from qcq.models.trainer import Frozen
from qcq.support.seeds import generator

if TYPE_CHECKING:
    from qcq.models.language.trainers import LanguageTrainer
    from qcq.models.language.training import Learner

WALKS = 24  # through each slot
REACH = 10  # tokens on either side of a slot
SETS = 1_000  # sets of concepts on which the map is fitted, at most
SHRINK = np.geomspace(1e-3, 1e5, 17)  # ridge penalties that are tried, relative to the mean variance of a feature


def inferred(trainer: LanguageTrainer, frozen: Frozen, weights: scipy.sparse.csr_array) -> NDArray[np.float64] | None:
    """Rows of new questions: float64 (new questions, width of the table).

    Parameters
    ----------
    trainer : of the model whose weights are in ``frozen``.
    weights : csr_array (new questions × concepts).

    None where walks don't step over concepts alone, so that none can be drawn through a new question.
    """
    graph = frozen.graph
    if frozen.weights is None or not _over_concepts(frozen):
        return None
    n, rng = graph.n_questions, generator(0, "slots")
    learner = trainer.restored(frozen.weights, frozen.walk)
    kept = len(frozen.weights.concepts) > 0
    _, first, of = np.unique(graph.concept_sets, return_index=True, return_inverse=True)
    fitted = np.flatnonzero(np.diff(graph.weights.indptr)[first] > 0)
    fitted = np.sort(rng.permutation(fitted)[:SETS])
    both = KnowledgeGraph(
        [*(f"old {q}" for q in graph.questions), *(f"new {i}" for i in range(weights.shape[0]))],
        graph.concepts,
        scipy.sparse.csr_array(scipy.sparse.vstack([graph.weights, weights])),
    )
    out, into = _steps(frozen, graph)
    wider = scipy.sparse.csr_array(_steps(frozen, both)[0][np.r_[first[fitted], n : n + weights.shape[0]]])
    asked = np.repeat(np.arange(wider.shape[0]), WALKS)
    length = 2 * frozen.walk.length - 1 if frozen.walk.keep_concepts else frozen.walk.length
    reach = min(REACH, (length - 1) // 2)
    sides = [walks(wider, out, into, asked, reach, n if kept else None, rng) for _ in range(2)]
    tokens = np.hstack([sides[0][:, ::-1], np.zeros((len(asked), 1), dtype=np.int32), sides[1]])
    # The set of a new question is nowhere else in its walks, so that of an old one is hidden in them.
    own = np.r_[fitted, np.full(weights.shape[0], -1)][asked]
    same = np.r_[of, np.full(graph.n_concepts, -2)][tokens] == own[:, None]
    states = _states(learner, tokens, reach, same).reshape(wider.shape[0], WALKS, -1).mean(axis=1)
    size = np.bincount(of).astype(np.float64)
    merge = scipy.sparse.csr_array((1 / size[of], (of, np.arange(n))))
    rows = np.asarray(merge @ frozen.vectors)  # means of exchangeable questions, without their noise
    sets = scipy.sparse.csr_array(graph.weights[first])
    left = rows[fitted] - _means(sets, size, rows, fitted)
    mean = by_concepts(graph.weights, frozen.vectors, weights)
    return mean + mapped(states[: len(fitted)], left, size[fitted], states[len(fitted) :])


def _means(
    sets: scipy.sparse.csr_array, size: NDArray[np.float64], rows: NDArray[np.float64], at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean of concepts of each set ``at``, as if no question had that set: float64 (len(at), dim).

    Parameters
    ----------
    sets : csr_array (sets × concepts).
    size, rows : questions and mean row of each set.
    """
    tested = (sets > 0).astype(np.float64)
    n, total = tested.T @ size, np.asarray(tested.T @ (size[:, None] * rows))  # (concepts,), (concepts, dim)
    out = np.empty((len(at), rows.shape[1]))
    for i, each in enumerate(at):
        its = sets.indices[sets.indptr[each] : sets.indptr[each + 1]]
        left = n[its] - size[each]
        its, left = its[left > 0], left[left > 0]
        mean = (total[its] - size[each] * rows[each]) / left[:, None]
        out[i] = mean.mean(axis=0) if len(its) else (size @ rows) / size.sum()
    return out


def _over_concepts(frozen: Frozen) -> bool:
    """Whether walks need nothing but questions and concepts."""
    try:
        return frozen.walk.prepare(frozen.graph, None) is frozen.graph
    except QCQError:
        return False


def _steps(frozen: Frozen, graph: KnowledgeGraph) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """Steps from questions to concepts and back: those of the walk's chain, else along any edge."""
    try:
        chain = frozen.walk.chain(graph)
        if isinstance(chain, MarkovChain) and chain.n_hubs == graph.n_concepts:
            return chain.out, chain.into
    except ChainError:
        pass
    return edge_steps(scipy.sparse.csr_array(graph.weights != 0, dtype=np.float64))


def walks(
    first: scipy.sparse.csr_array,
    out: scipy.sparse.csr_array,
    into: scipy.sparse.csr_array,
    at: NDArray[np.int64],
    reach: int,
    shift: int | None,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """The ``reach`` tokens after a slot: int32 (walks, reach).

    Parameters
    ----------
    first, out : steps from the slots and from old questions to concepts; ``into``, from concepts to old questions.
    at : int64 (walks,), the slot of each.
    shift : token of the first concept, where concepts are tokens.
    """
    tokens = np.empty((len(at), reach), dtype=np.int32)
    step = first
    done = 0
    while done < reach:
        hub = _drawn(step, at, rng.random(len(at)))
        if shift is not None:
            tokens[:, done] = hub + shift
            done += 1
        at, step = _drawn(into, hub, rng.random(len(at))), out
        if done < reach:
            tokens[:, done] = at
            done += 1
    return tokens


def _drawn(step: scipy.sparse.csr_array, row: NDArray[np.int64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """A column of each row in proportion to its entries: int64 (rows,)."""
    upto = np.r_[0.0, np.cumsum(step.data)]
    low, high = step.indptr[row], step.indptr[row + 1]
    point = upto[low] + chance * (upto[high] - upto[low])
    found = np.clip(np.searchsorted(upto, point, side="right") - 1, low, high - 1)
    return step.indices[found].astype(np.int64)


def _states(learner: Learner, tokens: NDArray[np.int32], slot: int, masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """States that predict the slot of each walk, ``masked`` tokens hidden: float64 (walks, width)."""
    import torch

    learner.encoder.eval()
    out = []
    with torch.no_grad():
        for i in range(0, len(tokens), 512):
            part = tokens[i : i + 512]
            asked = np.zeros(part.shape, dtype=bool)
            asked[:, slot] = True
            hidden = masked[i : i + 512].copy()
            hidden[:, slot] = learner.encoder.hides
            out.append(learner.slots(part, hidden, asked).double().cpu().numpy())
    return np.concatenate(out)


def mapped(
    states: NDArray[np.float64], rows: NDArray[np.float64], size: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``new`` states by the ridge regression of ``rows`` on ``states``, each counting ``size`` times.

    A state at the mean of all gives zeros, and so does every state where they say nothing of the rows. The penalty is
    the one of least squared error on rows left out, one at a time (Allen's PRESS, by the hat matrix).

    References
    ----------
    Allen 1974, The relationship between variable selection and data augmentation and a method for prediction.
    """
    share = (size / size.sum())[:, None]
    middle, root = (share * states).sum(axis=0), np.sqrt(share)
    x, y = root * (states - middle), root * rows
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    turned = u.T @ y
    unit = max(float((s**2).mean()), 1e-300)
    best, chosen = np.inf, SHRINK[-1]
    for penalty in SHRINK:
        kept = s**2 / (s**2 + penalty * unit)
        left = np.maximum(1 - (u**2 * kept).sum(axis=1), 1e-3)[:, None]
        error = float((np.square((y - u @ (kept[:, None] * turned)) / left)).sum())
        if error < best:
            best, chosen = error, penalty
    return np.asarray((new - middle) @ vt.T @ ((s / (s**2 + chosen * unit))[:, None] * turned))
