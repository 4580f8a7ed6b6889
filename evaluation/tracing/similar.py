"""The compiled loop of the baseline ``similar-students``: which training students answered most alike so far."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
from numba import njit

EQUAL = 1e-9  # similarities that differ by less are equal: sums in another order differ in their last digits


@njit(cache=True)
def nearest(begin, block, question, answer, own, ptr, who, mean, students, k):
    """The k training students nearest to the student of each response, among those who answered its question.

    Parameters
    ----------
    begin : int64 (students + 1,), where each student's responses begin.
    block : int64 (responses,); a student's answers from this place on aren't known yet.
    question, answer : int32 and float64 (responses,); an answer is 1 or -1.
    own : int64 (students,), the place of each student among the training students, or -1: nobody is a neighbour of
        their own.
    ptr, who, mean : the answers of training students to question q are ``mean[ptr[q] : ptr[q + 1]]`` (means of ±1), and
        ``who`` gave them.
    students : how many training students there are.
    k : how many neighbours.

    Returns
    -------
    similarity, said : float64 (responses, k): sums of products of answers to the same questions, above 0, the largest
        first (of equal ones, the earlier training student), and the neighbours' own mean answers to the question; zeros
        where there are fewer than k.
    """
    n = len(question)
    similarity, said = np.zeros((n, k)), np.zeros((n, k))
    for s in range(len(begin) - 1):
        alike = np.zeros(students)
        known = begin[s]
        for t in range(begin[s], begin[s + 1]):
            while known < block[t]:
                for j in range(ptr[question[known]], ptr[question[known] + 1]):
                    alike[who[j]] += answer[known] * mean[j]
                known += 1
            for j in range(ptr[question[t]], ptr[question[t] + 1]):
                v = who[j]
                if v == own[s] or alike[v] <= EQUAL:
                    continue
                at = k
                while at > 0 and alike[v] > similarity[t, at - 1] + EQUAL:
                    at -= 1
                for i in range(k - 1, at, -1):
                    similarity[t, i] = similarity[t, i - 1]
                    said[t, i] = said[t, i - 1]
                if at < k:
                    similarity[t, at] = alike[v]
                    said[t, at] = mean[j]
    return similarity, said
