"""Students who occur in a data set twice: the same answers to the same questions under two identifiers.

When students are divided into parts, such a student may be learnt from under one identifier and tested under the other.
In ASSISTments 2009 as S2KT publishes it, that concerns 29 % of the test responses (benchmarks/duplicates.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import scipy  # its submodules load when they are first used
from numpy.typing import NDArray

from qcq.data.dataset import Dataset, Interactions
from qcq.support.settings import settings
from qcq.support.words import several

RAREST, MET = 5, 3  # a duplicate has answered at least MET of a student's RAREST rarest questions
COMMON = 1_000  # students: a question answered by more doesn't tell students apart, and never counts as rare
CONTAINED = 0.9  # share of the questions of the student with fewer that the other answered too
SLIP = 0.02  # share of a duplicate's answers that may differ
DOUBT = 1e-6  # chance, under the model, that a data set without duplicates has a pair that looks like one
CHUNK = 20_000  # pairs computed at once


def duplicate_students(responses: Interactions, n_students: int, n_questions: int) -> NDArray[np.int64]:
    """Pairs of students who are one person, whatever the order of their answers.

    Two students are one person if the one with fewer questions shares nearly all of them with the other (``CONTAINED``)
    and the answers agree so well that chance can't explain it. With p the chance that two unrelated students agree on a
    question, from a Rasch model logit P(right) = ability + ease, the evidence is the log likelihood ratio

        sum over common questions of log((1 - SLIP) / p) where they agree, log(SLIP / (1 - p)) where they don't,

    and has to exceed log(pairs / DOUBT). Two students who got everything right agree, but this is little evidence.
    Because one person has one ability, p is at least one half, and a question contributes log 2 at most. So students
    who answered too few questions to reach the threshold are skipped, and so are students all of whose questions were
    answered by more than COMMON students.

    Parameters
    ----------
    responses : of all students; of several answers to one question the majority counts; a tie counts as no answer.
    n_students, n_questions : how many there are.

    Returns
    -------
    int64 (pairs, 2), the lower index first, in ascending order.

    Examples
    --------
    >>> import numpy as np
    >>> from qcq.data.assembly import interactions
    >>> rng = np.random.default_rng(0)
    >>> question = np.tile(np.arange(100), 4)
    >>> answers = rng.integers(0, 2, (3, 100))
    >>> student = np.repeat(np.arange(4), 100)
    >>> duplicate_students(interactions(student, question, np.r_[answers.ravel(), answers[1]]), 4, 100).tolist()
    [[1, 3]]

    References
    ----------
    Fellegi & Sunter 1969, A theory for record linkage (JASA 64): the likelihood ratio of a pair. Rasch 1960,
    Probabilistic models for some intelligence and attainment tests.
    """
    shape = (n_students, n_questions)
    sign = scipy.sparse.csr_array((2.0 * responses.correct - 1, (responses.student, responses.question)), shape=shape)
    sign.sum_duplicates()
    sign.eliminate_zeros()
    sign.data = np.sign(sign.data)
    size = np.diff(sign.indptr)
    threshold = np.log(max(n_students * (n_students - 1) / 2, 1) / DOUBT)
    pairs = _candidates(sign, least=threshold / np.log(2 * (1 - SLIP)))
    lean = _lean(sign)
    found = []
    for at in range(0, len(pairs), CHUNK):
        one, other = pairs[at : at + CHUNK].T
        both = sign[one].multiply(sign[other]).tocsr()  # (pairs, questions): 1 agree, -1 don't
        chance = lean[one].multiply(lean[other]).tocsr()  # P(agree) = (1 + chance) / 2
        both.sort_indices()
        chance.sort_indices()
        agree = both.data > 0
        p = np.where(agree, 1 + chance.data, 1 - chance.data) / 2
        said = np.log(np.where(agree, 1 - SLIP, SLIP) / p)
        which = np.repeat(np.arange(len(one)), np.diff(both.indptr))
        evidence = np.bincount(which, weights=said, minlength=len(one))
        contained = np.diff(both.indptr) >= CONTAINED * np.minimum(size[one], size[other])
        found.append(pairs[at : at + CHUNK][contained & (evidence > threshold)])
    return np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)


def _candidates(sign: scipy.sparse.csr_array, least: float) -> NDArray[np.int64]:
    """Pairs to compare: one answered MET of the other's RAREST questions, and both have ``least`` questions at least.
    int64 (pairs, 2), sorted, each once."""
    n_students = sign.shape[0]
    counts = np.bincount(sign.indices, minlength=sign.shape[1])
    student = np.repeat(np.arange(n_students), np.diff(sign.indptr))
    told = (counts[sign.indices] <= COMMON) & (np.diff(sign.indptr) >= least)[student]
    student, question = student[told], sign.indices[told]
    order = np.lexsort((question, counts[question], student))
    student, question = student[order], question[order]
    begin = np.searchsorted(student, student)  # where each student's questions begin
    rare = np.arange(len(student)) - begin < RAREST
    ones = np.ones(len(student))
    met = scipy.sparse.csr_array((ones, (question, student)), shape=sign.shape[::-1])
    rarest = scipy.sparse.csr_array((ones[rare], (student[rare], question[rare])), shape=sign.shape)
    shared = (rarest @ met).tocoo()
    near = (shared.data >= MET) & (shared.row != shared.col)
    low, high = np.minimum(shared.row, shared.col)[near], np.maximum(shared.row, shared.col)[near]
    return np.unique(np.stack([low, high], axis=1).astype(np.int64), axis=0)


def _lean(sign: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """2 P(right) - 1 of each student on each question answered, from ability and ease; same sparsity as the signs."""
    right = sign.copy()
    right.data = (sign.data > 0).astype(np.float64)
    row = np.repeat(np.arange(sign.shape[0]), np.diff(sign.indptr))

    def logit(at: NDArray, n: int) -> NDArray[np.float64]:
        k = np.bincount(at, weights=right.data, minlength=n) + 1.0
        return np.log(k / (np.bincount(at, minlength=n) + 2.0 - k))

    overall = np.log((right.data.sum() + 1) / (len(right.data) - right.data.sum() + 1))
    total = logit(row, sign.shape[0])[row] + logit(sign.indices, sign.shape[1])[sign.indices] - overall
    right.data = np.tanh(total / 2)
    right.data[right.data == 0] = 1e-12  # an entry must not vanish in a product
    return right


@settings
class SplitSettings:
    """Who is in the parts of a split: section ``split`` of a run's settings.

    Parameters
    ----------
    duplicates : ``left-out``: of a person's identifiers one is in a part (:func:`without_duplicates`);
        ``as-published``: all are, so a person may be learnt from under one and tested under another. For comparisons
        with published figures only: ``qcq audit`` fails such a run.
    """

    duplicates: Literal["left-out", "as-published"] = "left-out"

    def applied(self, dataset: Dataset) -> Dataset:
        """The data set with these identifiers in no part, and a note that says what was done."""
        honest = without_duplicates(dataset)
        if self.duplicates == "left-out" or honest is dataset:
            return honest
        n = len(honest.left_out) - len(dataset.left_out)
        said = f"{several(n, 'student')} in a part as published, though the same answers occur under another identifier"
        return replace(dataset, notes=(*dataset.notes, said))


def same_person(dataset: Dataset) -> dict[int, int]:
    """Which identifier stays for a student who is in no part of a split as a duplicate: index → index.

    Students who are left out for another reason aren't in it.
    """
    if dataset.interactions is None or not len(dataset.left_out):
        return {}
    n = len(dataset.students)
    pairs = duplicate_students(dataset.interactions, n, len(dataset.questions))
    linked = scipy.sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    _, person = scipy.sparse.csgraph.connected_components(linked, directed=False)
    stays = np.setdiff1d(np.unique(pairs), dataset.left_out)
    kept = {int(person[i]): int(i) for i in stays[::-1]}
    paired = np.intersect1d(pairs, dataset.left_out)
    return {int(i): kept[int(person[i])] for i in paired if int(person[i]) in kept}


def without_duplicates(dataset: Dataset) -> Dataset:
    """The data set in which all but one of the identifiers of each person are in no part of any split.

    Nothing is removed: responses and counts stay as they are, and ``left_out`` names the students whom a split leaves
    out. The identifier that stays is the one closest to the test part in the source's own split, then the one with more
    responses, then the first. So a published test part stays as it was, except for duplicates within it.

    If two students only look like one person, correct it by ``dataclasses.replace(dataset, left_out=…)``.

    Parameters
    ----------
    dataset : as a reader made it; students that it leaves out already stay out.

    Returns
    -------
    Dataset : the same one if there are no duplicates, otherwise with ``left_out`` and a note.
    """
    if dataset.interactions is None:
        return dataset
    n = len(dataset.students)
    pairs = duplicate_students(dataset.interactions, n, len(dataset.questions))
    pairs = pairs[~np.isin(pairs, dataset.left_out).any(axis=1)]
    if not len(pairs):
        return dataset
    linked = scipy.sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    _, person = scipy.sparse.csgraph.connected_components(linked, directed=False)
    size = np.bincount(dataset.interactions.student, minlength=n)
    part = np.zeros(n, dtype=np.int8) if dataset.parts is None else dataset.parts
    order = np.lexsort((np.arange(n), -size, -part, person))
    first = np.ones(n, dtype=bool)
    first[1:] = person[order][1:] != person[order][:-1]
    left_out = np.sort(order[~first]).astype(np.int32)
    said = (
        f"{several(len(left_out), 'student')} in no part of a split: the same answers occur in the data set under "
        f"another identifier ({several(int(size[left_out].sum()), 'response')})"
    )
    every = np.union1d(dataset.left_out, left_out).astype(np.int32)
    return replace(dataset, left_out=every, notes=(*dataset.notes, said))
