"""Question vectors as pictures: each question's position in two dimensions, and its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data import TrainPart
from qcq.embeddings import Embeddings
from qcq.engine import Cell, Row, Store
from qcq.engine.kinds import Chosen, OnData, Trained
from qcq.report.comparison import entrants
from qcq.run import Run
from qcq.support.arrays import read_npz
from qcq.support.files import whole
from qcq.support.progress import Progress
from qcq.support.seeds import derive, generator

MOST = 20_000  # questions on one map
NEIGHBOURS = 10  # stored for each question
LANDMARKS = 1_000  # distinct vectors that t-SNE itself arranges
ITERATIONS = 300
_PLACED_BY = 5  # landmarks that determine the position of any other vector
_TWIN_STEP = 0.0024  # of the width of the map at most: how far apart questions of one vector are drawn
_TWIN_AREA = 0.1  # share of the map that all of them may cover together


@dataclass(frozen=True, eq=False)
class Map:
    """Where the questions of one table lie.

    Attributes
    ----------
    shown : int64 (n,), the questions on the map, ascending.
    pca : float32 (n, 2), the first two principal components of the vectors scaled to length 1.
    explained : float64 (2,), their shares of the variance.
    tsne : float32 (n, 2), t-SNE of the same; (0, 2) where there are too few distinct vectors for one.
    landmarks : how many distinct vectors t-SNE placed; each other vector is placed between its nearest landmarks.
    twins : int32 (n,), number of other questions on the map with exactly the same vector.
    nearest : int32 (n, k), rows of the map by decreasing cosine, ties in index order.
    similarity : float32 (n, k).
    together : int32 (n, k), training students who answered both; (0, k) without students.
    """

    shown: NDArray[np.int64]
    pca: NDArray[np.float32]
    explained: NDArray[np.float64]
    tsne: NDArray[np.float32]
    landmarks: int
    twins: NDArray[np.int32]
    nearest: NDArray[np.int32]
    similarity: NDArray[np.float32]
    together: NDArray[np.int32]

    def save(self, path: Path) -> None:
        """Write a complete ``.npz`` file or nothing."""
        with whole(path) as file:
            held = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
            np.savez_compressed(file, **held)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Map | None:
        """What :meth:`save` wrote; None where there is no readable map."""
        try:
            held = read_npz(path)
            found: dict[str, Any] = {f.name: held[f.name] for f in fields(cls)}
        except (OSError, ValueError, KeyError):
            return None
        return cls(**{**found, "landmarks": int(found["landmarks"])})


@dataclass(frozen=True)
class Pictured:
    """A trainer whose vectors are drawn: its walk, its read-out (chosen on validation) and its seed (the first).

    Attributes
    ----------
    label : its name on the page; the walk is left out if there is only one.
    """

    walk: str
    trainer: str
    readout: str
    seed: int
    label: str


def pictured(run: Run) -> list[Pictured]:
    """All methods of the run that have a map, in the configured order."""
    config = run.config
    rows = [row for row in run.rows("training") if "error" not in row]
    several = len(config["walks"]) > 1
    found = []
    for walk, trainer in entrants(config):
        row = next((r for r in rows if (r["walk"], r["trainer"]) == (walk, trainer)), None)
        if row is not None:
            label = f"{trainer} on {walk}" if several and walk in config["walks"] else trainer
            found.append(Pictured(walk, trainer, row["readout"], row["seed"], label))
    return found


def sample(n: int, maps: int, seed: int) -> NDArray[np.int64]:
    """The questions to be shown, ascending: all of ``n``, or a sample small enough for ``maps`` maps in a browser.

    Examples
    --------
    >>> len(sample(300, 5, 0)), len(sample(200_000, 5, 0)), len(sample(200_000, 24, 0))
    (300, 20000, 10000)
    """
    most = min(MOST, 12 * MOST // max(maps, 1))
    if n <= most:
        return np.arange(n)
    return np.sort(generator(seed, "map", "questions").choice(n, size=most, replace=False)).astype(np.int64)


def read_maps(run: Run) -> list[tuple[Pictured, Map]]:
    """The maps of a run; a method whose map can't be read is left out."""
    found = [
        (one, Map.load(run.file("maps", one.walk, one.trainer, one.readout, one.seed, ".npz"))) for one in pictured(run)
    ]
    return [(one, made) for one, made in found if made is not None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Mapped(OnData):
    """The map of one table, ``map.npz``.

    Parameters
    ----------
    trained, readout : the vectors of the map.
    maps : how many maps are on one page; with very many questions each shows a sample, the same one in all maps.
    seed : of the sample and of t-SNE.
    """

    revision = 2
    code = ("qcq.report.maps", "qcq.embeddings", "qcq.data", "qcq.support.seeds")

    trained: Trained
    readout: str | Chosen
    maps: int
    seed: int

    def resolved(self, resolve: Callable[[Cell], Cell], store: Store) -> Mapped:
        made = super().resolved(resolve, store)
        return replace(made, readout=made.readout.readout(store)) if isinstance(made.readout, Chosen) else made

    def run(self, store: Store, progress: Progress) -> Row:
        assert isinstance(self.readout, str)
        emb, train = self.trained.embeddings(store, self.readout), self.train(store)
        shown = sample(len(emb), self.maps, self.seed)
        answered = None if train is None else store.cached(f"answered {self.data}", lambda: _answered(train))
        made = draw(emb, shown, answered, self.seed)
        made.save(store.file(self, "map.npz"))
        return {"questions": len(shown), "landmarks": made.landmarks}


def _answered(train: TrainPart) -> scipy.sparse.csr_array:
    """Which students answered which questions: csr_array float32 (questions × students) of ones."""
    r, data = TrainPart.checked(train).interactions, train.dataset
    ones = np.ones(len(r), dtype=np.float32)
    made = scipy.sparse.csr_array((ones, (r.question, r.student)), shape=(len(data.questions), len(data.students)))
    made.sum_duplicates()
    made.data[:] = 1
    return made


def draw(
    embeddings: Embeddings,
    shown: NDArray[np.int64],
    answered: scipy.sparse.csr_array | None = None,
    seed: int = 0,
) -> Map:
    """Arrange the vectors of ``shown`` in two dimensions, by PCA and by t-SNE, and find the neighbours of each.

    Vectors are scaled to length 1, as for a cosine. t-SNE arranges at most ``LANDMARKS`` distinct vectors, so its time
    doesn't grow with the question bank; the others are placed between the landmarks nearest to them. Questions that
    share one vector are spread over a small disc around its position, so that their number is visible.

    References
    ----------
    van der Maaten & Hinton 2008, Visualizing data using t-SNE.
    """
    import sklearn.manifold
    import sklearn.neighbors  # noqa: F401  (what isn't loaded yet isn't limited)
    from threadpoolctl import threadpool_limits

    # Of rows equally near, the threads of a search choose by chance; those of t-SNE busy-wait for one another.
    with threadpool_limits(1):
        return _map(embeddings.unit[shown], shown, answered, seed)


def _map(
    unit: NDArray[np.float32], shown: NDArray[np.int64], answered: scipy.sparse.csr_array | None, seed: int
) -> Map:
    _, first, which = np.unique(np.round(unit, 4) + 0.0, axis=0, return_index=True, return_inverse=True)
    which = which.ravel()
    size = np.bincount(which)
    pca, explained = _pca(unit)
    arranged = _Arranged.of(unit[first], derive(seed, "map", "t-SNE") % 2**31)
    nearest, similarity = _nearest(unit, min(NEIGHBOURS, len(shown) - 1))
    together = np.zeros((0, nearest.shape[1]), dtype=np.int32)
    if answered is not None:
        together = _together(answered[shown], nearest)
    return Map(
        shown,
        _spread(pca, which),
        explained,
        _spread(arranged.places[which], which) if len(arranged.places) else arranged.places,
        arranged.landmarks,
        (size[which] - 1).astype(np.int32),
        nearest,
        similarity,
        together,
    )


def _pca(unit: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    from sklearn.decomposition import PCA

    n = min(2, *unit.shape)
    wide = unit.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    if np.abs(centred).max() < 1e-6:  # one vector, but for rounding
        return np.zeros((len(unit), 2), dtype=np.float32), np.zeros(2)
    pca = PCA(n, svd_solver="full" if min(unit.shape) < 500 else "randomized", random_state=0)
    made = pca.fit_transform(centred)
    out, share = np.zeros((len(unit), 2), dtype=np.float32), np.zeros(2)
    out[:, :n], share[:n] = made, pca.explained_variance_ratio_
    return out, share


@dataclass(frozen=True, eq=False)
class _Arranged:
    """Positions of the distinct vectors: float32 (distinct, 2), or (0, 2)."""

    places: NDArray[np.float32]
    landmarks: int

    @classmethod
    def of(cls, distinct: NDArray[np.float32], seed: int) -> _Arranged:
        if len(distinct) < 5:
            return cls(np.zeros((0, 2), dtype=np.float32), 0)
        from sklearn.manifold import TSNE
        from sklearn.neighbors import KNeighborsRegressor

        rng = np.random.default_rng(seed)
        chosen = np.arange(len(distinct))
        if len(distinct) > LANDMARKS:
            chosen = np.sort(rng.choice(len(distinct), size=LANDMARKS, replace=False))
        tsne = TSNE(
            perplexity=min(30.0, (len(chosen) - 1) / 3),
            init="pca" if min(distinct[chosen].shape) > 1 else "random",
            max_iter=ITERATIONS,
            random_state=seed,
        )
        places = tsne.fit_transform(distinct[chosen]).astype(np.float32)
        if len(chosen) < len(distinct):
            by = KNeighborsRegressor(_PLACED_BY, weights="distance", algorithm="brute").fit(distinct[chosen], places)
            others = np.setdiff1d(np.arange(len(distinct)), chosen)
            every = np.empty((len(distinct), 2), dtype=np.float32)
            every[chosen], every[others] = places, by.predict(distinct[others])
            places = every
        return cls(places, len(chosen))


def _spread(places: NDArray[np.float32], which: NDArray[np.int64]) -> NDArray[np.float32]:
    """Questions of one vector on a sunflower spiral around its position: float32 (n, 2)."""
    order = np.argsort(which, kind="stable")
    first = np.r_[0, np.flatnonzero(np.diff(which[order])) + 1]
    rank = np.empty(len(which))
    rank[order] = np.arange(len(which)) - np.repeat(first, np.diff(np.r_[first, len(which)]))
    width = float(np.ptp(places, axis=0).max()) or 1.0
    angle = rank * np.pi * (3 - np.sqrt(5))
    radius = min(_TWIN_STEP, np.sqrt(_TWIN_AREA / np.pi / len(rank))) * width * np.sqrt(rank)
    return (places + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)).astype(np.float32)


def _nearest(unit: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ``k`` other rows of highest cosine: int32 and float32 (n, k)."""
    if k == 0:
        return np.zeros((len(unit), 0), dtype=np.int32), np.zeros((len(unit), 0), dtype=np.float32)
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit).kneighbors(return_distance=False)
    # For vectors of length 1, the nearest have the highest cosine; the product is the exact cosine.
    cosine = np.stack([(unit * unit[found[:, j]]).sum(axis=1) for j in range(k)], axis=1).clip(-1, 1)  # (n, k)
    order = np.lexsort((found, -np.round(cosine, 5)), axis=1)
    return np.take_along_axis(found, order, axis=1).astype(np.int32), np.take_along_axis(cosine, order, axis=1)


def _together(answered: scipy.sparse.csr_array, nearest: NDArray[np.int32]) -> NDArray[np.int32]:
    """Students who answered both a row and its neighbour: int32 (n, k)."""
    out = np.zeros(nearest.shape, dtype=np.int32)
    for j in range(nearest.shape[1]):
        both = answered.multiply(answered[nearest[:, j]])
        out[:, j] = np.asarray(both.sum(axis=1)).ravel()
    return out
