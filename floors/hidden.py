"""Walks that remember their last step: exact distributions over (question, hub) edges.

A return-biased walk goes back to the question just left with weight α and leaves through the hub just used with weight
β, against 1 for every other. The next step depends on the edge of the last one. So the questions alone are no Markov
chain, but the edges are, and the questions are functions of them: a hidden Markov chain. Two operators move a message
over edges e = (x, c). Both are symmetric, so the messages from what follows use the same two:

    at a hub      f[x', c] = (Σ_x g[x, c] + (α - 1) g[x', c]) / (n_c - 1 + α)      n_c questions at hub c
    at a question g[x, c'] = (Σ_c f[x, c] + (β - 1) f[x, c']) / (d_x - 1 + β)      d_x hubs of question x

(only existing edges; if there is only one way, it is taken). Equal questions have equal entries unless one of them is
visible, so a message has one number per edge of each *class* of questions, and also those of the last visible question.
That is exact: a return to a hidden question leads to some member of its class, no matter which one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import ArrayLike, NDArray

from qcq.corpus import HIDDEN, PAD
from qcq.errors import ChainError
from qcq.floors.blocks import BLOCK
from qcq.floors.chain import Chain, Corruption
from qcq.floors.markov import MarkovChain
from qcq.graph import KnowledgeGraph

_MOST_EDGES = 20_000  # distinct edges up to which a message is a dense row


@dataclass(frozen=True)
class _Message:
    """One message per walk: a number for each edge of each class, and those of one visible question (-1: none)."""

    each: NDArray[np.float64]  # (walks, class edges), of one member
    seen: NDArray[np.int64]  # (walks,)
    own: NDArray[np.float64]  # (walks, most hubs of a question)

    def __getitem__(self, rows: NDArray) -> _Message:
        return _Message(self.each[rows], self.seen[rows], self.own[rows])

    def scaled(self) -> _Message:
        top = np.maximum(self.each.max(axis=1), self.own.max(axis=1))[:, None]
        top = np.where(top > 0, top, 1.0)
        return _Message(self.each / top, self.seen, self.own / top)


@dataclass(frozen=True, eq=False)
class ReturnChain(Chain):
    """The exact distribution of a return-biased question–hub–question walk.

    Parameters
    ----------
    graph : the graph of the walk; weights aren't used.
    alpha : weight of the question just left, against 1 for each other question of the hub.
    beta : weight of the hub just used, against 1 for each other hub of the question.
    length, keep_concepts : as in the walk.
    by_degree : start in proportion to the number of hubs; otherwise uniformly over questions.
    name : the walk's name, for messages.

    Raises
    ------
    ChainError : too many distinct edges.

    Examples
    --------
    >>> graph = KnowledgeGraph.from_edges([("a", "x"), ("b", "x"), ("b", "y"), ("c", "y")])
    >>> chain = ReturnChain(graph, alpha=1.0, beta=0.0, length=3)  # never leave by the concept of arrival
    >>> chain.posterior([0, 1, HIDDEN], 2).tolist()  # a, then b, so by x, so leave by y
    [0.0, 0.5, 0.5]
    """

    graph: KnowledgeGraph
    alpha: float
    beta: float
    length: int
    keep_concepts: bool = False
    by_degree: bool = False
    name: str = "return-biased"
    first_order = False

    def __post_init__(self) -> None:
        if len(self._hub) > _MOST_EDGES:
            raise ChainError(
                f"no exact chain for {self.name} here: {len(self._hub):,} distinct edges are too many for messages "
                f"over edges (at most {_MOST_EDGES:,}); qcq and weighted have one on any graph"
            )

    @property
    def n_questions(self) -> int:  # type: ignore[override]
        return self.graph.n_questions

    @property
    def n_hubs(self) -> int:  # type: ignore[override]
        return self.graph.n_concepts

    @property
    def graph_digest(self) -> str:  # type: ignore[override]
        return self.graph.digest

    @property
    def n_edges(self) -> int:
        """Distinct edges: the size of a message."""
        return len(self._hub)

    # --- classes of questions, and their edges -----------------------------------------------------------------------

    @cached_property
    def plain(self) -> MarkovChain:
        """The walk without its biases: it has the same classes and the same first step."""
        start = "degree" if self.by_degree else "question"
        return MarkovChain.of_graph(self.graph, length=self.length, start=start)

    @cached_property
    def _u(self) -> scipy.sparse.csr_array:
        return self.plain.out[self.plain._members]  # (classes, hubs)

    @property
    def _hub(self) -> NDArray[np.int64]:
        """Hub of each class edge."""
        return self._u.indices.astype(np.int64)

    @cached_property
    def _class(self) -> NDArray[np.int64]:
        """Class of each class edge."""
        return np.repeat(np.arange(self.plain.n_classes), np.diff(self._u.indptr))

    @cached_property
    def _times(self) -> NDArray[np.float64]:
        """Questions that share each class edge."""
        return self.plain.sizes[self._class].astype(np.float64)

    @cached_property
    def _at(self) -> NDArray[np.int64]:
        """Edges of each class: int64 (classes, most hubs), -1 where there are fewer."""
        degree = np.diff(self._u.indptr)
        out = np.full((len(degree), max(int(degree.max()), 1)), -1, dtype=np.int64)
        out[self._class, np.arange(len(self._class)) - self._u.indptr[self._class]] = np.arange(len(self._class))
        return out

    @cached_property
    def _by_hub(self) -> scipy.sparse.csr_array:
        n = len(self._hub)
        return scipy.sparse.csr_array((self._times, (np.arange(n), self._hub)), shape=(n, self.n_hubs))

    @cached_property
    def _by_class(self) -> scipy.sparse.csr_array:
        n = len(self._class)
        return scipy.sparse.csr_array((np.ones(n), (np.arange(n), self._class)), shape=(n, self.plain.n_classes))

    @staticmethod
    def _weights(bias: float, ways: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(A, B): a step is A · sum + B · self; if there is only one way, it is taken."""
        total = np.where(ways > 1, ways - 1 + bias, 1.0)
        return 1.0 / total, np.where(ways > 1, (bias - 1.0) / total, 0.0)

    @cached_property
    def _hub_weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        ways = np.asarray((self.plain.out > 0).sum(axis=0)).ravel()
        return self._weights(self.alpha, ways)

    @cached_property
    def _question_weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._weights(self.beta, np.diff(self._u.indptr))

    # --- the two operators -------------------------------------------------------------------------------------------

    def _own_edges(self, question: NDArray) -> tuple[NDArray, NDArray]:
        """Class edges of questions (any edge where there are fewer), and which of them exist: (n, most hubs)."""
        at = self._at[self.plain.classes[np.maximum(question, 0)]]
        return np.maximum(at, 0), (at >= 0) & (question >= 0)[:, None]

    def _through_hub(self, m: _Message) -> _Message:
        a, b = self._hub_weights
        at, real = self._own_edges(m.seen)
        hub, row = self._hub[at], np.arange(len(m.seen))[:, None]
        sums = m.each @ self._by_hub  # (n, hubs)
        np.add.at(sums, (row, hub), np.where(real, m.own - m.each[row, at], 0.0))
        each = a[self._hub] * sums[:, self._hub] + b[self._hub] * m.each
        return _Message(each, m.seen, np.where(real, a[hub] * sums[row, hub] + b[hub] * m.own, 0.0))

    def _through_question(self, m: _Message) -> _Message:
        a, b = self._question_weights
        each = a[self._class] * (m.each @ self._by_class)[:, self._class] + b[self._class] * m.each
        k = self.plain.classes[np.maximum(m.seen, 0)][:, None]
        real = self._own_edges(m.seen)[1]
        own = np.where(real, a[k] * m.own.sum(axis=1, keepdims=True) + b[k] * m.own, 0.0)
        return _Message(each, m.seen, own)

    def _of(self, m: _Message, question: NDArray) -> NDArray[np.float64]:
        """The numbers of one question per walk: float64 (n, most hubs)."""
        at, real = self._own_edges(question)
        plain = np.where(real, m.each[np.arange(len(question))[:, None], at], 0.0)
        return np.where((question == m.seen)[:, None], m.own, plain)

    def _look(self, m: _Message, question: NDArray) -> _Message:
        """The message after the question is observed."""
        return _Message(np.zeros_like(m.each), question.astype(np.int64), self._of(m, question))

    def _pass(self, m: _Message, token: NDArray) -> _Message:
        """The message after the hub's token is observed."""
        hub = token - self.n_questions
        at, _ = self._own_edges(m.seen)
        own = np.where(self._hub[at] == hub[:, None], m.own, 0.0)
        return _Message(np.where(self._hub[None] == hub[:, None], m.each, 0.0), m.seen, own)

    def _total(self, a: _Message, b: _Message, hub: NDArray | None = None) -> NDArray[np.float64]:
        """Σ over all edges (those of one hub's token) of a · b: float64 (n,)."""
        if hub is not None:
            a = self._pass(a, hub)
        total = np.einsum("ij,ij,j->i", a.each, b.each, self._times)
        for seen in (a.seen, np.where(b.seen == a.seen, -1, b.seen)):
            at, real = self._own_edges(seen)
            row = np.arange(len(seen))[:, None]
            right = (self._of(a, seen) * self._of(b, seen)).sum(axis=1)
            total += np.where(seen >= 0, right, 0.0) - np.where(real, a.each[row, at] * b.each[row, at], 0.0).sum(
                axis=1
            )
        return total

    # --- messages along a walk ---------------------------------------------------------------------------------------

    def _first(self, n: int) -> _Message:
        """Leaving the first question, before it is observed."""
        start = self.plain.start[self.plain._members][self._class] / np.diff(self._u.indptr)[self._class]
        most = self._at.shape[1]
        return _Message(np.tile(start, (n, 1)), np.full(n, -1), np.zeros((n, most)))

    def _ones(self, n: int) -> _Message:
        return _Message(np.ones((n, len(self._hub))), np.full(n, -1), np.zeros((n, self._at.shape[1])))

    def _tokens(self, view: NDArray, t: int) -> tuple[NDArray, NDArray]:
        """The visible tokens of question t and of the hub after it."""
        none = np.full(len(view), HIDDEN)
        if not self.keep_concepts:
            return view[:, t], none
        return view[:, 2 * t], view[:, 2 * t + 1] if 2 * t + 1 < view.shape[1] else none

    def _seen(self, m: _Message, question: NDArray, hub: NDArray) -> _Message:
        for token, apply in ((question, self._look), (hub, self._pass)):
            rows = np.flatnonzero(token >= 0)
            if len(rows):
                some = apply(m[rows], token[rows])
                each, seen, own = m.each.copy(), m.seen.copy(), m.own.copy()
                each[rows], seen[rows], own[rows] = some.each, some.seen, some.own
                m = _Message(each, seen, own)
        return m

    @cached_property
    def _prior(self) -> list[_Message]:
        """Leaving each question of a walk without visible tokens: one message per question."""
        out = [self._first(1)]
        for _ in range(1, self.length):
            out.append(self._through_question(self._through_hub(out[-1])))
        return out

    def log_posterior(
        self, tokens: NDArray, asked: NDArray[np.bool_], left: NDArray | None, right: NDArray | None
    ) -> NDArray[np.float64]:
        result = np.zeros(asked.shape)
        whole = (tokens >= 0).all(axis=1)
        short = np.flatnonzero(~whole)  # such walks are one question without edges
        mu = self.plain.start
        stuck = np.diff(self.plain.out.indptr) == 0
        with np.errstate(divide="ignore"):
            result[short, 0] = np.log(mu[tokens[short, 0]]) - np.log(mu[stuck].sum())
            if self.length == 1:
                result[whole, 0] = np.log(mu[tokens[whole, 0]])
        rows = np.flatnonzero(whole & asked.any(axis=1) & (self.length > 1))
        size = max(1, BLOCK // (len(self._hub) * self.length))
        for i in range(0, len(rows), size):
            some = rows[i : i + size]
            views = [None if v is None else v[some] for v in (left, right)]
            result[some] = self._block(tokens[some], asked[some], views[0], views[1])
        return self.possible(result[asked], np.nonzero(asked)[0])

    def _block(self, tokens: NDArray, asked: NDArray, left: NDArray | None, right: NDArray | None) -> NDArray:
        result = np.zeros(tokens.shape)
        for place, who, before, after in self._meetings(asked, left, right):
            x, below = tokens[who, place], self._total(before, after)
            if self.keep_concepts and place % 2:
                top = self._total(before, after, x)
            else:
                top = (self._of(before, x) * self._of(after, x)).sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                result[who, place] = np.log(top) - np.log(below)
        return result

    def _meetings(
        self, asked: NDArray, left: NDArray | None, right: NDArray | None
    ) -> Iterator[tuple[int, NDArray, _Message, _Message]]:
        """For each asked position: where, in which walks, and the messages from the left and from the right.

        Both are over the edges by which the walk leaves the question there (or the one before the hub there).
        """
        n = len(asked)
        leaving: list[_Message] = []  # of each question, before it and what follows is observed
        for t in range(self.length):
            if left is None:
                leaving.append(self._prior[t][np.zeros(n, dtype=np.int64)])
            elif t == 0:
                leaving.append(self._first(n))
            else:
                m = self._seen(leaving[-1], *self._tokens(left, t - 1))
                leaving.append(self._through_question(self._through_hub(m)).scaled())
        back = self._ones(n)  # likelihood of the visible tokens after the hub
        for t in range(self.length - 1, -1, -1):
            place = 2 * t if self.keep_concepts else t
            if t < self.length - 1 and right is not None:
                ahead = self._look_at(self._through_question(back), self._tokens(right, t + 1)[0])
                back = self._through_hub(ahead).scaled()
            if self.keep_concepts and t < self.length - 1:
                who = np.flatnonzero(asked[:, place + 1])
                if len(who):
                    before = leaving[t][who]
                    if left is not None:
                        before = self._look_at(before, self._tokens(left[who], t)[0])
                    yield place + 1, who, before, back[who]
                if right is not None:
                    back = self._seen(back, np.full(n, HIDDEN), self._tokens(right, t)[1])
            who = np.flatnonzero(asked[:, place])
            if len(who):
                yield place, who, leaving[t][who], back[who]

    def _look_at(self, m: _Message, question: NDArray) -> _Message:
        return self._seen(m, question, np.full(len(question), HIDDEN))

    def log_posterior_corrupted(
        self, tokens: NDArray, asked: NDArray[np.bool_], seen: NDArray, noise: Corruption
    ) -> NDArray[np.float64]:
        raise ChainError(
            f"no exact floor for masked_bert on {self.name} walks, which remember a step: any token may be replaced, "
            "so every question of the walk would matter; pure masks have a floor"
        )

    def posterior(self, seen: ArrayLike, position: int) -> NDArray[np.float64]:
        view = np.array(seen, dtype=np.int64)[None]
        self.check(view)
        view[0, position] = HIDDEN
        out = np.zeros(self.n_tokens)
        if (view == PAD).any() or self.length == 1:
            stuck = np.diff(self.plain.out.indptr) == 0
            out[: self.n_questions] = self.plain.start * (stuck if self.length > 1 else 1.0)
        else:
            asked = np.zeros(view.shape, dtype=bool)
            asked[0, position] = True
            _, _, before, after = next(self._meetings(asked, view, view))
            if self.keep_concepts and position % 2:
                every = np.zeros(self.n_hubs, dtype=np.int64)
                out[self.n_questions :] = self._total(
                    before[every], after[every], self.n_questions + np.arange(self.n_hubs)
                )
            else:
                out[: self.n_questions] = ((before.each * after.each) @ self._by_class)[0, self.plain.classes]
                for one in (before.seen, after.seen):
                    if one[0] >= 0:
                        out[one[0]] = (self._of(before, one) * self._of(after, one)).sum()
        if not out.sum() > 0:
            raise ChainError("the visible tokens of this walk have probability 0 under this chain")
        return out / out.sum()

    def marginal(self, position: int) -> NDArray[np.float64]:
        out = np.zeros(self.n_tokens)
        t = position // 2 if self.keep_concepts else position
        if self.keep_concepts and position % 2:
            out[self.n_questions :] = (self._prior[t].each @ self._by_hub)[0]
        elif t == 0:
            out[: self.n_questions] = self.plain.start
        else:
            out[: self.n_questions] = (self._prior[t].each @ self._by_class)[0, self.plain.classes]
        return out

    def pair_law(self, window: int) -> PairTable:
        if self.keep_concepts:
            raise ChainError(f"no exact floor for skipgram on {self.name} walks that keep their concepts")
        k = self.plain.n_classes
        half, same, each = np.zeros((k, k)), np.zeros(k), np.zeros(k)
        going = [(m.each @ self._by_class)[0] for m in self._prior]  # of one member, if the walk goes on
        at, real = np.maximum(self._at, 0), self._at >= 0
        for d in range(1, min(window, self.length - 1) + 1):
            weight = (window - d + 1) / window
            start = sum(self._prior[t].each[0] for t in range(self.length - d))
            # One row per class: from one of its members, and where the walk is d steps later.
            m = _Message(np.zeros((k, len(self._hub))), self.plain._members, np.where(real, start[at], 0.0))
            for _ in range(d - 1):
                m = self._through_question(self._through_hub(m))
            m = self._through_hub(m)
            half += weight * (m.each @ self._by_class)
            same += weight * m.own.sum(axis=1)
            each += weight * (sum(going[: self.length - d]) + sum(going[d:]))
        return PairTable(self.plain, half + half.T, 2 * same, each)


class PairTable:
    """The distribution of a skip-gram pair if a question may meet itself more or less often than its equals.

    Parameters
    ----------
    plain : gives the classes.
    joint : unscaled p(x, y) of one member of each class, two different questions: float64 (classes, classes).
    same : the same of a question and itself: float64 (classes,).
    each : unscaled p(x): float64 (classes,).
    """

    def __init__(self, plain: MarkovChain, joint: NDArray, same: NDArray, each: NDArray) -> None:
        self._plain, self._joint, self._same, self._each = plain, joint, same, each
        self._scale = float(each @ plain.sizes)

    def probability(self, x: ArrayLike) -> NDArray[np.float64]:
        """p(x): how often a pair's input (or output) is question x."""
        return self._each[self._plain.classes[np.asarray(x)]] / self._scale

    def conditional(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """p(y | x), elementwise over token arrays of one shape; 0 for a token that isn't in these walks."""
        x, y = np.asarray(x), np.asarray(y)
        out = np.zeros(x.shape)
        there = (x < self._plain.n_questions) & (y < self._plain.n_questions)
        a, b = self._plain.classes[x[there]], self._plain.classes[y[there]]
        out[there] = np.where(x[there] == y[there], self._same[a], self._joint[a, b]) / self._each[a]
        return out
