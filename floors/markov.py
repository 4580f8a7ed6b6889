"""The walk as an exact Markov chain: the probability of every question, given any visible part of the walk.

A first-order walk goes from a question to a hub (a concept, say) by U and from the hub to a question by V, so on
questions P = U V and P^a = U M^(a-1) V with the small matrix M = V U. Everything below is computed at the size of the
hubs and of the *distinct* questions: questions with the same row of U, column of V and start probability have the same
distribution and are computed once.

The start and the end of a walk are hubs too. A source hub is before the first question. After the last question is the
hub "free" (the walk was cut at its full length: every question can be there) or "dead" (the walk ended early: only
questions without edges can be there). So one formula serves every case,

    p(x | left, right) = (left · into[x]) (out[x] · right) / (left · M · right),

where ``left`` is a distribution over the hub before x and ``right`` the likelihood of what follows, over the hub after
it. For a visible question l, a steps to the left, left = U[l] M^(a-1); for a visible r, b steps to the right,
right = M^(b-1) V[:, r]; so the formula reads P^a[l,x] P^b[x,r] / P^(a+b)[l,r].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import ArrayLike, NDArray

from qcq.corpus import HIDDEN, PAD
from qcq.errors import ChainError
from qcq.floors.blocks import BLOCK, Matrix, rowdot
from qcq.floors.chain import Chain, Corruption
from qcq.floors.pairs import PairLaw
from qcq.graph import KnowledgeGraph

_DENSE_HUBS = 2_000  # with more hubs, messages between positions are sparse


def edge_steps(weights: scipy.sparse.csr_array) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array]:
    """U = D_q^-1 W and V = D_c^-1 W^T of a weighted question–hub matrix.

    Parameters
    ----------
    weights : csr_array (questions × hubs), non-negative. Pass ``weights != 0`` for a walk that ignores the weights.

    Returns
    -------
    U : csr_array float64 (questions × hubs), rows sum to 1, or to 0 for a question without an edge.
    V : csr_array float64 (hubs × questions), likewise.

    Examples
    --------
    >>> u, v = edge_steps(scipy.sparse.csr_array([[1.0, 1.0], [0.0, 2.0]]))
    >>> (u @ v).toarray().round(3).tolist()
    [[0.667, 0.333], [0.333, 0.667]]
    """
    w = scipy.sparse.csr_array(weights, dtype=np.float64)

    def stochastic(m: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
        m.sort_indices()
        total = np.asarray(m.sum(axis=1)).ravel()
        m.data = m.data / np.repeat(np.where(total > 0, total, 1), np.diff(m.indptr))
        return m

    return stochastic(w.copy()), stochastic(scipy.sparse.csr_array(w.T.tocsr()))


@dataclass(frozen=True, eq=False)
class MarkovChain(Chain):
    """A first-order question–hub–question walk, defined by two matrices, a start and a length.

    Parameters
    ----------
    out : U, csr_array (questions × hubs): steps from a question. A row sums to 1, or to 0 where the walk ends.
    into : V, csr_array (hubs × questions): steps from a hub. A row that is used sums to 1.
    start : mu_0, float64 (questions,): the start of walks. Scaled to sum to 1.
    length : questions in a full walk.
    keep_concepts : whether the hubs are tokens.
    graph_digest : the digest of the graph; walks of another graph are refused.

    Raises
    ------
    ChainError : shapes that don't fit, rows that aren't probabilities, or a dead end that a walk can reach after its
        start (the start itself may be one, as in every undirected graph).

    Examples
    --------
    >>> u, v = edge_steps(scipy.sparse.csr_array([[1.0, 1.0], [0.0, 1.0]]))
    >>> chain = MarkovChain(u, v, np.ones(2), length=3)
    >>> chain.posterior([0, HIDDEN, 0], 1).round(3).tolist()  # between two visits to question 0
    [0.818, 0.182]
    >>> chain.power(1, 0, [0, 1]).tolist()
    [0.75, 0.25]
    """

    out: scipy.sparse.csr_array
    into: scipy.sparse.csr_array
    start: NDArray[np.float64]
    length: int
    keep_concepts: bool = False
    graph_digest: str = ""

    def __post_init__(self) -> None:
        u, v = (scipy.sparse.csr_array(m, dtype=np.float64).sorted_indices() for m in (self.out, self.into))
        mu = np.asarray(self.start, dtype=np.float64)
        if u.shape != v.shape[::-1] or mu.shape != (u.shape[0],):
            raise ChainError(f"U of shape {u.shape}, V of shape {v.shape} and {mu.shape[0]} start values don't fit")
        if self.length < 1:
            raise ChainError(f"a walk has at least 1 question, given length {self.length}")
        with np.errstate(over="ignore"):
            mass = mu.sum()
        if not (np.isfinite(mass) and (mu >= 0).all() and mass > 0):
            raise ChainError("start probabilities must be finite, with a finite sum, not negative, and not all 0")
        for name, m in (("U", u), ("V", v)):
            total = m.sum(axis=1)
            if (m.data < 0).any() or not np.all((np.abs(total - 1) < 1e-9) | (total == 0)):
                raise ChainError(f"the rows of {name} must be probabilities that sum to 1 (or an empty row)")
        used = np.asarray((u > 0).sum(axis=0)).ravel() > 0
        if (used & (v.sum(axis=1) == 0)).any() or (np.diff(u.indptr)[v.indices] == 0).any():
            raise ChainError("a walk can get stuck after its start; only walks on undirected edges have this chain")
        for key, value in (("out", u), ("into", v), ("start", mu / mass)):
            object.__setattr__(self, key, value)

    @classmethod
    def of_graph(
        cls,
        graph: KnowledgeGraph,
        *,
        length: int,
        start: str = "question",
        keep_concepts: bool = False,
        weights: scipy.sparse.csr_array | None = None,
    ) -> MarkovChain:
        """The chain of a walk that leaves every node along an edge chosen in proportion to its weight.

        Parameters
        ----------
        graph : has the edges.
        length, keep_concepts : as in the walk.
        start : "question" (uniform) or "degree" (in proportion to a question's total weight).
        weights : csr_array (questions × concepts), the weights that the walk uses; default: 1 on every edge.
        """
        w = scipy.sparse.csr_array(graph.weights != 0, dtype=np.float64) if weights is None else weights
        u, v = edge_steps(w)
        mu = np.ones(graph.n_questions) if start == "question" else np.asarray(w.sum(axis=1)).ravel()
        return cls(u, v, mu, length, keep_concepts, graph.digest)

    @property
    def n_questions(self) -> int:  # type: ignore[override]
        return int(self.out.shape[0])

    @property
    def n_hubs(self) -> int:  # type: ignore[override]
        return int(self.out.shape[1])

    # --- the quotient: one row for all questions of the same distribution ---------------------------------------------

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """Class of each question, int64 (questions,): equal exactly for questions of the same U, V and start."""
        u, vt = self.out, scipy.sparse.csr_array(self.into.T.tocsr()).sorted_indices()
        degree = np.stack([np.diff(u.indptr), np.diff(vt.indptr)])  # (2, questions)
        found = np.zeros(self.n_questions, dtype=np.int64)
        n = 0
        for du, dv in np.unique(degree, axis=1).T:
            rows = np.flatnonzero((degree[0] == du) & (degree[1] == dv))
            at_u, at_v = u.indptr[rows, None] + np.arange(du), vt.indptr[rows, None] + np.arange(dv)
            key = np.concatenate(
                [
                    u.indices[at_u].astype(np.int64),
                    u.data[at_u].view(np.int64),
                    vt.indices[at_v].astype(np.int64),
                    vt.data[at_v].view(np.int64),
                    self.start[rows, None].view(np.int64),
                ],
                axis=1,
            )  # (rows, 2 du + 2 dv + 1), bit patterns: equal exactly when the numbers are
            order = np.lexsort(key.T)
            new = np.r_[True, (key[order][1:] != key[order][:-1]).any(axis=1)]
            found[rows[order]] = n + np.cumsum(new) - 1
            n += int(new.sum())
        return found

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Questions in each class: int64 (classes,)."""
        return np.bincount(self.classes)

    @property
    def n_classes(self) -> int:
        return len(self.sizes)

    @cached_property
    def _members(self) -> NDArray[np.int64]:
        """One question of each class: int64 (classes,)."""
        one = np.zeros(self.n_classes, dtype=np.int64)
        one[self.classes] = np.arange(self.n_questions)
        return one

    # Kinds of things a position can have, one row each in the tables below: the classes of questions, then the hubs
    # (as tokens), then START, FREE and DEAD. Columns are the hubs, then the source, "free" and "dead".

    @property
    def _START(self) -> int:
        return self.n_classes + self.n_hubs

    @property
    def _FREE(self) -> int:
        return self._START + 1

    @property
    def _DEAD(self) -> int:
        return self._START + 2

    @property
    def dense(self) -> bool:
        """Whether messages are dense rows."""
        return self.n_hubs <= _DENSE_HUBS and (self.n_classes + self.n_hubs) * self.n_hubs <= 2**25

    def _held(self, m: scipy.sparse.sparray) -> Matrix:
        return m.toarray() if self.dense else scipy.sparse.csr_array(m)

    @cached_property
    def _out(self) -> Matrix:
        """Distribution over the hub after each kind: (kinds, hubs + 3)."""
        u = self.out[self._members]  # (classes, hubs)
        dead = np.round(1.0 - u.sum(axis=1))
        ends = np.stack([np.zeros_like(dead), np.ones_like(dead), dead], axis=1)  # (classes, 3)
        return self._held(_stack(u, ends, [1.0, 0.0, 0.0]))

    @cached_property
    def _into(self) -> Matrix:
        """Probability of each kind given the hub before it, for one member of a class: (kinds, hubs + 3)."""
        v = scipy.sparse.csr_array(self.into.T.tocsr())[self._members]  # (classes, hubs)
        ends = np.zeros((self.n_classes, 3))
        ends[:, 0] = self.start[self._members]
        return self._held(_stack(v, ends, [0.0, 1.0, 1.0]))

    @cached_property
    def _step(self) -> Matrix:
        """M: from the hub before a question to the hub after it, over all questions: (hubs + 3, hubs + 3)."""
        k = self.n_classes
        into = scipy.sparse.csr_array(self._into[:k])
        into.data = into.data * np.repeat(self.sizes, np.diff(into.indptr))
        return self._held(scipy.sparse.csr_array(into.T.tocsr()) @ scipy.sparse.csr_array(self._out[:k]))

    @property
    def hub_steps(self) -> int:
        """Nonzero entries of M: the cost of one step of one message."""
        return int(self._step.size if self.dense else self._step.nnz)

    @cached_property
    def _step_back(self) -> Matrix:
        return self._held(scipy.sparse.csr_array(scipy.sparse.csr_array(self._step).T.tocsr()))

    def _kind(self, tokens: NDArray) -> NDArray[np.int64]:
        """Row of each token in the tables; hidden and pad tokens get an arbitrary row."""
        of = np.concatenate([self.classes, self.n_classes + np.arange(self.n_hubs)])
        return of[np.maximum(tokens, 0)]

    # --- the distribution ---------------------------------------------------------------------------------------------

    def power(self, steps: int, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """P^a[x, y] = (U M^(a-1) V)[x, y], elementwise over the arrays ``x`` and ``y`` (broadcast against each other).

        Parameters
        ----------
        steps : a, at least 1.
        x, y : question indices.
        """
        x, y = np.broadcast_arrays(np.asarray(x), np.asarray(y))
        kinds, at = np.unique(self.classes[x.ravel()], return_inverse=True)
        row = self._out[kinds]
        for _ in range(steps - 1):
            row = row @ self._step
        return rowdot(row, self._into, at, self.classes[y.ravel()]).reshape(x.shape)

    @cached_property
    def hub_law(self) -> NDArray[np.float64]:
        """Distribution over the hub before the t-th question: float64 (length, hubs + 3); row 0 is the source."""
        rows = [np.zeros(self.n_hubs + 3)]
        rows[0][self.n_hubs] = 1.0
        for _ in range(1, self.length):
            rows.append(self._step_back @ rows[-1])
        law = np.array(rows)
        law[:, self.n_hubs + 1 :] = 0.0
        return law

    def class_marginal(self, t: int) -> NDArray[np.float64]:
        """mu_t of one member of each class: float64 (classes,), for the t-th question."""
        return self._into[: self.n_classes] @ self.hub_law[t]

    def marginal(self, position: int) -> NDArray[np.float64]:
        out = np.zeros(self.n_tokens)
        if self.keep_concepts and position % 2:
            out[self.n_questions :] = self.hub_law[(position + 1) // 2][: self.n_hubs]
        else:
            t = position // 2 if self.keep_concepts else position
            out[: self.n_questions] = self.class_marginal(t)[self.classes]
        return out

    # --- hidden tokens, given visible ones ----------------------------------------------------------------------------

    def _slots(self, position: NDArray) -> tuple[NDArray, NDArray]:
        """The hub slots before and after a position; slot s is between the questions s and s + 1."""
        if self.keep_concepts:
            return (position - 1) // 2, position // 2
        return position - 1, position

    def _neighbours(self, tokens: NDArray, asked: NDArray, left: NDArray | None, right: NDArray | None) -> _Items:
        """For each asked position: the nearest visible kind on either side, and its distance in steps of M."""
        walk, at = np.nonzero(asked)
        n, width = tokens.shape
        place = np.arange(width)
        end = (tokens != PAD).sum(axis=1)  # (walks,)
        before, behind = self._slots(at)
        l_kind, l_gap = np.full(len(at), self._START), before + 1
        if left is not None:
            seen = np.where(left >= 0, place, -1)
            last = np.maximum.accumulate(np.c_[np.full(n, -1), seen[:, :-1]], axis=1)[walk, at]
            l_kind = np.where(last >= 0, self._kind(left[walk, last]), l_kind)
            l_gap = np.where(last >= 0, before - self._slots(last)[1], l_gap)
        is_hub = tokens[walk, at] >= self.n_questions
        r_kind, r_gap = np.full(len(at), self._FREE), is_hub.astype(np.int64)  # after a hub some question follows
        if right is not None:
            seen = np.where(right >= 0, place, width)
            after = np.minimum.accumulate(np.c_[seen[:, 1:], np.full(n, width)][:, ::-1], axis=1)[:, ::-1][walk, at]
            last_kind = np.where(end[walk] == width, self._FREE, self._DEAD)
            r_kind = np.where(after < width, self._kind(right[walk, np.minimum(after, width - 1)]), last_kind)
            r_gap = self._slots(np.where(after < width, after, end[walk]))[0] - behind
        return _Items(walk, l_kind, l_gap, r_kind, r_gap, is_hub)

    def _messages(self, kind: NDArray, gap: NDArray, first: Matrix, step: Matrix) -> tuple[Matrix, NDArray]:
        """``first[kind] @ step^gap`` for each pair, computed once for equal pairs: rows, and the row of each pair."""
        n_kinds = self._DEAD + 1
        wanted, whose = np.unique(gap * n_kinds + kind, return_inverse=True)
        gaps, kinds = wanted // n_kinds, wanted % n_kinds
        made: list[Matrix] = []
        alive = np.unique(kinds)  # kinds still needed at this gap or a larger one, and their rows
        row = first[alive]
        for g in range(int(gaps.max(initial=-1)) + 1):
            made.append(row[np.searchsorted(alive, kinds[gaps == g])])
            still = np.isin(alive, kinds[gaps > g])
            alive, row = alive[still], row[still]
            if len(alive):
                row = row @ step
        if self.dense:
            return np.concatenate(made), whose
        return scipy.sparse.csr_array(scipy.sparse.vstack(made, format="csr")), whose

    def log_posterior(
        self, tokens: NDArray, asked: NDArray[np.bool_], left: NDArray | None, right: NDArray | None
    ) -> NDArray[np.float64]:
        items = self._neighbours(tokens, asked, left, right)
        if not len(items.walk):
            return np.zeros(0)
        before, b_at = self._messages(items.l_kind, items.l_gap, self._out, self._step)
        behind, a_at = self._messages(items.r_kind, items.r_gap, self._into, self._step_back)
        through = before @ self._step
        kind = self._kind(tokens[asked])
        top = rowdot(before, self._into, b_at, kind) * rowdot(self._out, behind, kind, a_at)
        below = np.empty_like(top)
        for is_hub, rows in ((False, through), (True, before)):
            chosen = items.is_hub == is_hub
            below[chosen] = rowdot(rows, behind, b_at[chosen], a_at[chosen])
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.possible(np.log(top) - np.log(below), items.walk)

    def posterior(self, seen: ArrayLike, position: int) -> NDArray[np.float64]:
        view = np.array(seen, dtype=np.int64)[None]
        self.check(view)
        view[0, position] = HIDDEN
        asked = np.zeros(view.shape, dtype=bool)
        asked[0, position] = True
        items = self._neighbours(view, asked, view, view)
        before = self._messages(items.l_kind, items.l_gap, self._out, self._step)[0]
        behind = self._messages(items.r_kind, items.r_gap, self._into, self._step_back)[0]
        left, right = (m[0] if self.dense else m.toarray()[0] for m in (before, behind))
        out = np.zeros(self.n_tokens)
        if self.keep_concepts and position % 2:
            out[self.n_questions :] = (left * right)[: self.n_hubs]
        else:
            k = self.n_classes
            out[: self.n_questions] = ((self._into[:k] @ left) * (self._out[:k] @ right))[self.classes]
        if not out.sum() > 0:
            raise ChainError("the visible tokens of this walk have probability 0 under this chain")
        return out / out.sum()

    def log_posterior_corrupted(
        self, tokens: NDArray, asked: NDArray[np.bool_], seen: NDArray, noise: Corruption
    ) -> NDArray[np.float64]:
        """Forward–backward over the hubs.

        A visible token y that may be a replacement has the likelihood e(y|x) = ε + w [y = x] with ε = rate · random / Q
        and w = 1 - rate + rate · keep, so the message through it is ε (h M) + w (h · into[y]) out[y]. At the scored
        position itself, which is known to be selected, ε = random / Q and w = keep.
        """
        block = max(1, BLOCK // (tokens.shape[1] * (self.n_hubs + 3)))
        parts = [
            self._corrupted(tokens[i : i + block], asked[i : i + block], seen[i : i + block], noise)
            for i in range(0, len(tokens), block)
        ]
        return self.possible(np.concatenate([np.zeros(0), *parts]), np.nonzero(asked)[0])

    def _corrupted(self, tokens: NDArray, asked: NDArray, seen: NDArray, noise: Corruption) -> NDArray[np.float64]:
        n, width = tokens.shape
        kind, true = self._kind(seen), self._kind(tokens)
        masked = seen == HIDDEN
        hub_place = (np.arange(width) % 2 == 1) & self.keep_concepts
        may_be = ~masked & ((seen >= self.n_questions) == hub_place)  # a question at a hub's position is false
        stranger = np.where(seen < self.n_questions, noise.random / self.n_questions, 0.0)  # replacements are questions
        eps = np.where(masked, 1.0, noise.rate * stranger)  # (n, width)
        sure = np.where(may_be, 1.0 - noise.rate + noise.rate * noise.keep, 0.0)

        def rows(m: Matrix, at: NDArray) -> NDArray:
            return m[at] if self.dense else m[at].toarray()

        def over(h: NDArray, m: Matrix, p: int) -> NDArray:  # each row of h through all kinds that may be at p
            return h if hub_place[p] else h @ m

        def through(h: NDArray, p: int, who: NDArray, first: Matrix, step: Matrix, last: Matrix) -> NDArray:
            y = kind[who, p]
            known = sure[who, p] * (h * rows(first, y)).sum(axis=1)
            out = eps[who, p, None] * over(h, step, p) + known[:, None] * rows(last, y)
            return out / out.sum(axis=1, keepdims=True)

        end = (tokens >= 0).sum(axis=1)
        forward = np.zeros((n, width, self.n_hubs + 3))  # message over the hub before each position
        forward[:, 0, self.n_hubs] = 1.0
        for p in range(1, width):
            who = np.flatnonzero(end > p)
            forward[who, p] = through(forward[who, p - 1], p - 1, who, self._into, self._step, self._out)
        result = np.zeros((n, width))
        back = rows(self._into, np.where(end == width, self._FREE, self._DEAD))  # (n, hubs + 3)
        for p in range(width - 1, -1, -1):
            who = np.flatnonzero(end > p + 1)
            if len(who):
                back[who] = through(back[who], p + 1, who, self._out, self._step_back, self._into)
            who = np.flatnonzero(asked[:, p])
            h, b = forward[who, p], back[who]
            spread = np.where(masked[who, p], 1.0, stranger[who, p])
            keep = np.where(may_be[who, p], noise.keep, 0.0)

            def at(x: NDArray, h: NDArray = h, b: NDArray = b) -> NDArray:
                return (h * rows(self._into, x)).sum(axis=1) * (rows(self._out, x) * b).sum(axis=1)

            top = at(true[who, p]) * (spread + keep * (tokens[who, p] == seen[who, p]))
            below = spread * (over(h, self._step, p) * b).sum(axis=1) + keep * at(kind[who, p])
            with np.errstate(divide="ignore", invalid="ignore"):
                result[who, p] = np.log(top) - np.log(below)
        return result[asked]

    def pair_law(self, window: int) -> PairLaw:
        return PairLaw(self, window)


@dataclass(frozen=True)
class _Items:
    walk: NDArray[np.int64]
    l_kind: NDArray[np.int64]
    l_gap: NDArray[np.int64]
    r_kind: NDArray[np.int64]
    r_gap: NDArray[np.int64]
    is_hub: NDArray[np.bool_]


def _stack(questions: scipy.sparse.sparray, ends: NDArray, last: list[float]) -> scipy.sparse.csr_array:
    """Rows of questions, then the hubs themselves, then START, FREE, DEAD: csr (kinds, hubs + 3)."""
    hubs = questions.shape[1]
    return scipy.sparse.csr_array(
        scipy.sparse.vstack(
            [
                scipy.sparse.hstack([questions, scipy.sparse.csr_array(ends)]),
                scipy.sparse.hstack([scipy.sparse.eye_array(hubs), scipy.sparse.csr_array((hubs, 3))]),
                scipy.sparse.hstack([scipy.sparse.csr_array((3, hubs)), scipy.sparse.csr_array(np.diag(last))]),
            ],
            format="csr",
        )
    )
