"""What a walk can tell about its questions, computed before anything is trained.

Two questions with the same hubs and the same weights are exchangeable: swapping them doesn't change the distribution of
such a walk. So no structure tells them apart, only identity, and no model can predict the entropy inside their class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.corpus import HIDDEN
from qcq.errors import ChainError, ConfigError, CorpusError
from qcq.floors.chain import Chain
from qcq.floors.expected import MOST_CLASSES, Expected, entropy
from qcq.floors.hidden import ReturnChain
from qcq.floors.losses import clustered
from qcq.floors.markov import MarkovChain
from qcq.floors.objectives import Cloze, Masked, MaskedBert, NextQuestion, Objective, SkipGram
from qcq.graph import KnowledgeGraph
from qcq.graph.typed import TypedGraph
from qcq.support.seeds import derive, generator

if TYPE_CHECKING:
    from qcq.data import TrainPart
    from qcq.walks import WalkStrategy

OBJECTIVES: tuple[Objective, ...] = (
    NextQuestion(),
    NextQuestion("backward"),
    Masked(),
    MaskedBert(),
    Cloze(),
    SkipGram(),
)
ENOUGH = 0.95  # share of the log-ratio's energy, for the recommended dimension
RANK = 64  # dimension of the vectors for the achieved losses: the trainers' default
_FAR = 10  # number of lags if they have to be sampled
_SAMPLE = 64  # questions whose distribution at large lags is computed if there are too many for all of them


def inspect(graph: KnowledgeGraph, walk: WalkStrategy, train: TrainPart | None = None, seed: int = 0) -> dict[str, Any]:
    """The facts about a graph and a walk before training. Plain values, ready for JSON; entropies in nats.

    Parameters
    ----------
    graph, walk : the graph, and the walk on it.
    train : the training responses, if there are any: the gain from edges made from them is computed too.
    seed : of everything sampled (large graphs; objectives without a closed form).

    Returns
    -------
    dict with
        ``questions``, ``distinct_sets`` : number of questions, and how many of them differ for the walk.
        ``indistinguishable_share`` : share of questions that are exchangeable with another.
        ``ln_q`` : ln Q, the entropy without any knowledge.
        ``unigram`` : entropy of a question of the stationary walk (start in proportion to degree).
        ``within_class`` : the part of it inside the classes of exchangeable questions, which no model can predict.
        ``components``, ``component_entropy`` : of the graph; entropy of the component of a question.
        ``mutual_information`` : list, of two questions 1, 2, … steps apart in the stationary walk.
        ``mutual_information_above_components`` : the same minus the component entropy, its limit.
        ``mutual_information_given_neighbours`` : information from a question two steps back, given the last one.
        ``log_ratio`` : share of the energy of the log-ratio matrix by rank, and ``recommended_dim``.
        ``floors.stationary`` : ``next_question``, ``masked_both_neighbours``.
        ``floors.walk`` : by objective, for the walk with its actual start and length.
        ``achieved`` : the least skip-gram loss found with vectors of RANK dimensions; reachable, but not a floor.
        ``standard_errors`` : of the sampled figures, by their path; figures missing here are exact.
        ``would_add`` : edges that would tell exchangeable questions apart.
        ``notes`` : what could not be computed, and why; one line each.
    """
    if isinstance(graph, TypedGraph):
        train = graph.train  # the same students; in a walk over answers the questions are others
    notes: list[str] = []
    errors: dict[str, float] = {}
    chain: Chain | None = None
    try:
        chain = walk.chain(graph)
    except ChainError as error:
        notes.append(str(error))
    rest = _at_rest(graph, walk, notes)
    pi = rest.start[rest._members]  # (classes,), of one member
    small = rest.n_classes <= MOST_CLASSES
    unigram = float(entropy(pi, rest.sizes))
    component = _component_of(rest)
    mass = np.bincount(component, weights=rest.start)
    spread = max(float(entropy(mass)), 0.0)

    expected: Expected | None = None
    if small:
        expected = Expected(rest)
        ahead = [float(pi * rest.sizes @ expected.row_entropies(lag)) for lag in range(max(walk.length, 2))]
        after_next, both = ahead[0], 2 * ahead[0] - ahead[1]
    else:
        notes.append(f"more than {MOST_CLASSES:,} distinct questions: figures with a standard error are sampled")
        (after_next, e1), (both, e2), sampled = _sampled_at_rest(rest, min(_FAR, walk.length), seed)
        ahead = [value for value, _ in sampled]
        errors |= {"floors.stationary.next_question": e1, "floors.stationary.masked_both_neighbours": e2}
        errors |= {f"mutual_information.{lag}": error for lag, (_, error) in enumerate(sampled)}
    information = [max(unigram - h, 0.0) for h in ahead]
    walked: Expected | None = None
    if isinstance(chain, MarkovChain) and chain.n_classes <= MOST_CLASSES:
        walked = Expected(chain, expected)

    out: dict[str, Any] = {
        "questions": graph.n_questions,
        "distinct_sets": rest.n_classes,
        "indistinguishable_share": float(rest.sizes[rest.sizes > 1].sum() / graph.n_questions),
        "ln_q": float(np.log(graph.n_questions)),
        "unigram": unigram,
        "within_class": float((pi * rest.sizes) @ np.log(rest.sizes)),
        "components": int(component.max()) + 1,
        "component_entropy": spread,
        "mutual_information": information,
        "mutual_information_above_components": [max(i - spread, 0.0) for i in information],
        "mutual_information_given_neighbours": _beyond(graph, walk, chain, seed, errors),
        "log_ratio": _log_ratio(rest, notes),
        "floors": {
            "stationary": {"next_question": after_next, "masked_both_neighbours": both},
            "walk": _walk_floors(graph, walk, chain, walked, seed, errors, notes),
        },
        "achieved": {} if walked is None else _achieved(walked),
        "standard_errors": errors,
        "would_add": would_add(graph, rest, train),
        "notes": notes,
    }
    return out


def _at_rest(graph: KnowledgeGraph, walk: WalkStrategy, notes: list[str]) -> MarkovChain:
    """The stationary chain of the walk's questions; of the plain walk if it has none."""
    try:
        found = replace(walk, start="degree", keep_concepts=False).chain(graph)
        if isinstance(found, MarkovChain):
            return _settled(found)
    except (ChainError, ConfigError, TypeError):
        pass
    notes.append("the stationary figures are those of the plain walk (qcq) on the same graph")
    return MarkovChain.of_graph(graph, length=walk.length, start="degree")


def _settled(chain: MarkovChain) -> MarkovChain:
    """The chain started from its stationary distribution: its own start on undirected edges, otherwise by iteration."""
    mu = chain.start
    for _ in range(2_000):
        onwards = (mu @ chain.out) @ chain.into
        if np.abs(onwards - mu).sum() < 1e-10:
            break
        mu = onwards
    else:
        raise ChainError("the walk doesn't converge to a stationary distribution")
    return chain if mu is chain.start else replace(chain, start=mu)


def _component_of(chain: MarkovChain) -> NDArray[np.int64]:
    """Component of each question: int64 (questions,)."""
    both = scipy.sparse.block_array([[None, chain.out], [chain.out.T, None]], format="csr")
    _, label = scipy.sparse.csgraph.connected_components(both, directed=False)
    return np.unique(label[: chain.n_questions], return_inverse=True)[1]


def _sampled_at_rest(
    chain: MarkovChain, lags: int, seed: int
) -> tuple[tuple[float, float], tuple[float, float], list[tuple[float, float]]]:
    """Next question; masked between two neighbours; H(X_a | X_0) for a = 1 … lags: each with its standard error."""
    rng = generator(seed, "inspect")
    corpus = _walks(chain, rng, 20_000, 3)
    asked = np.zeros(corpus.shape, dtype=bool)
    asked[:, 1] = True
    ahead = -chain.log_posterior(corpus, asked, corpus, None)
    between = -chain.log_posterior(corpus, asked, corpus, corpus)
    who = np.arange(len(corpus))
    first = rng.choice(chain.n_questions, size=_SAMPLE, p=chain.start)
    later = []
    row = chain.out[first].toarray()  # (sample, hubs)
    v = chain.into
    for _ in range(lags):
        h, onwards = [], []
        for i in range(0, _SAMPLE, 8):
            law = row[i : i + 8] @ v  # (8, questions)
            h.append(entropy(law))
            onwards.append(law @ chain.out)
        each, row = np.concatenate(h), np.concatenate(onwards)
        later.append((float(each.mean()), float(each.std(ddof=1) / np.sqrt(_SAMPLE))))
    return clustered(ahead, who), clustered(between, who), later


def _walks(chain: MarkovChain, rng: np.random.Generator, n: int, length: int) -> NDArray[np.int32]:
    """Walks sampled from the chain itself: int32 (n, length)."""

    def step(m: scipy.sparse.csr_array, at: NDArray) -> NDArray:
        total = np.r_[0.0, np.cumsum(m.data)]
        low, high = total[m.indptr[at]], total[m.indptr[at + 1]]
        chosen = np.searchsorted(total, low + rng.random(len(at)) * (high - low), side="right") - 1
        return m.indices[np.clip(chosen, m.indptr[at], m.indptr[at + 1] - 1)]

    moving = np.where(np.diff(chain.out.indptr) > 0, chain.start, 0.0)
    walks = [rng.choice(chain.n_questions, size=n, p=moving / moving.sum())]
    for _ in range(1, length):
        walks.append(step(chain.into, step(chain.out, walks[-1])))
    return np.stack(walks, axis=1).astype(np.int32)


def _walk_floors(
    graph: KnowledgeGraph,
    walk: WalkStrategy,
    chain: Chain | None,
    expected: Expected | None,
    seed: int,
    errors: dict[str, float],
    notes: list[str],
) -> dict[str, float]:
    """By objective: in closed form if there is one, otherwise over sampled walks."""
    out: dict[str, float] = {}
    if chain is None:
        return out
    for objective in OBJECTIVES:
        try:
            value = objective.expected(expected) if expected is not None else None
            if value is None:
                n = _walks_worth(chain, objective)
                batch = objective.held_out_batch(walk.sample(graph, derive(seed, "inspect", "walks"), limit=n), seed)
                value, error = clustered(objective.floor(chain, batch), batch.walk)
                if np.isfinite(error):  # a single walk has no standard error
                    errors[f"floors.walk.{objective.name}"] = error
            out[objective.name] = value
        except (ChainError, CorpusError) as none:
            notes.append(str(none))
    return out


def _achieved(expected: Expected) -> dict[str, float]:
    """Losses that some vectors are known to reach. Whether a loss between them and the floor is possible is unknown."""
    try:
        return {f"skipgram_rank_{RANK}": expected.skipgram_of_rank(RANK)}
    except ChainError:  # no pairs; the floors' notes say so
        return {}


def _beyond(
    graph: KnowledgeGraph, walk: WalkStrategy, chain: Chain | None, seed: int, errors: dict[str, float]
) -> float | None:
    """I(X_t; all before X_(t-1) | X_(t-1)) at the end of a walk: what earlier context adds to the last question."""
    if chain is None:
        return None
    if chain.first_order or chain.length < 3:
        return 0.0
    corpus = walk.sample(graph, derive(seed, "inspect", "beyond"), limit=_walks_worth(chain, Cloze()))
    tokens = corpus.tokens[(corpus.tokens >= 0).all(axis=1)]
    if len(tokens) < 2:
        return 0.0
    asked = np.zeros(tokens.shape, dtype=bool)
    asked[:, -1] = True
    known = np.where(np.arange(tokens.shape[1]) == tokens.shape[1] - 2, tokens, HIDDEN)
    gain = chain.log_posterior(tokens, asked, tokens, None) - chain.log_posterior(tokens, asked, known, None)
    mean, errors["mutual_information_given_neighbours"] = clustered(gain, np.arange(len(gain)))
    return mean


def _walks_worth(chain: Chain, objective: Objective) -> int:
    """How many walks to sample for a floor, so that it takes seconds on any graph."""
    if isinstance(chain, ReturnChain):
        return int(np.clip(4e7 / (chain.n_edges * chain.length), 20, 500))
    if not isinstance(chain, MarkovChain) or chain.dense or not isinstance(objective, MaskedBert | SkipGram):
        return 500
    if isinstance(objective, SkipGram):
        return 20
    n = int(1e10 / (2 * chain.width * chain.hub_steps))
    if n < 10:
        raise ChainError(f"no floor for {objective.name} here: forward–backward over {chain.n_hubs:,} hubs is too slow")
    return min(n, 500)


def _log_ratio(chain: MarkovChain, notes: list[str], window: int = 5) -> dict[str, Any] | None:
    """Energy by rank of max(0, ln p(x,y) / (p(x) p(y))), the matrix that a look-up table has to represent.

    In the full matrix over questions, equal questions have equal rows. So its singular values are those of the small
    matrix with each row and column weighted by the square root of the class's size.
    """
    if chain.n_classes > MOST_CLASSES:
        notes.append(f"log_ratio is left out beyond {MOST_CLASSES:,} distinct questions")
        return None
    if chain.length < 2:
        return None
    n = np.sqrt(chain.sizes)
    energy = np.sort(np.linalg.eigvalsh(chain.pair_law(window).log_ratio() * n * n[:, None]) ** 2)[::-1]
    share = np.cumsum(energy) / max(energy.sum(), 1e-300)
    ranks = [r for r in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if r < len(share)] + [len(share)]
    return {
        "window": window,
        "energy_by_rank": {str(r): float(min(share[r - 1], 1.0)) for r in ranks},
        "recommended_dim": int(np.searchsorted(share, ENOUGH) + 1),
    }


def would_add(graph: KnowledgeGraph, chain: MarkovChain, train: TrainPart | None) -> dict[str, dict[str, Any]]:
    """The effect of further edges on questions that are exchangeable now.

    Returns
    -------
    source → ``separates`` (in words) and, where training responses are given, ``distinct_sets``,
    ``indistinguishable_share`` and ``within_class`` with these edges.
    """
    words = {
        "students": "questions that different students answered",
        "answers": "questions that different students answered right, or wrong",
        "order": "questions with different neighbours in the students' sequences",
        "difficulty": "questions in different difficulty bins",
        "prerequisites": "no questions of one set: edges between concepts are the same for all of them",
    }
    label = {"prerequisites": chain.classes}
    if train is not None:
        r = train.interactions
        bits = generator(0, "inspect", "labels").integers(2**63, size=max(len(train.dataset.students), 1))
        label["students"] = _by_set(chain.classes, r.question, r.student, bits)
        bits = generator(0, "inspect", "answers").integers(2**63, size=2 * max(len(train.dataset.students), 1))
        label["answers"] = _by_set(chain.classes, r.question, 2 * r.student.astype(np.int64) + r.correct, bits)
        if r.ordered:
            follows = np.flatnonzero(r.student[1:] == r.student[:-1])
            one, other = r.question[follows], r.question[follows + 1]
            bits = generator(0, "inspect", "order").integers(2**63, size=graph.n_questions)
            label["order"] = _by_set(chain.classes, np.r_[one, other], np.r_[other, one], bits)
        answered = train.counts > 0
        wrong = np.where(answered, train.difficulty, 0.0)
        edges = np.quantile(wrong[answered], [0.2, 0.4, 0.6, 0.8]) if answered.any() else np.zeros(0)
        level = np.where(answered, 1 + np.searchsorted(edges, wrong, side="right"), 0)  # 5 bins, and "not answered"
        label["difficulty"] = chain.classes * 6 + level
    out: dict[str, dict[str, Any]] = {name: {"separates": text} for name, text in words.items()}
    for name, of in label.items():
        size = np.unique(of, return_counts=True)[1]
        out[name] |= {
            "distinct_sets": len(size),
            "indistinguishable_share": float(size[size > 1].sum() / graph.n_questions),
            "within_class": _within(chain, of),
        }
    return out


def _by_set(classes: NDArray, question: NDArray, other: NDArray, bits: NDArray) -> NDArray[np.int64]:
    """Classes split by the set of ``other`` seen with each question: int64 (questions,).

    A set is identified by the sum of random 63-bit numbers of its members; two sets collide with a chance of 2^-63.
    """
    pairs = np.unique(question.astype(np.int64) * len(bits) + other)
    total = np.zeros(len(classes), dtype=np.int64)
    with np.errstate(over="ignore"):
        np.add.at(total, pairs // len(bits), bits[pairs % len(bits)])
    return np.unique(np.stack([classes, total], axis=1), axis=0, return_inverse=True)[1].ravel()


def _within(chain: MarkovChain, label: NDArray) -> float:
    """H(question | its label) of the stationary walk."""
    _, which = np.unique(label, return_inverse=True)
    mass = np.bincount(which, weights=chain.start)
    return max(float(entropy(chain.start)) - float(entropy(mass)), 0.0)
