"""The compiled loop of ``glove``: AdaGrad over the counted pairs, one after the other."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, fastmath=True)
def epoch(order, rows, columns, log_count, weight, words, contexts, word_squares, context_squares, rate):
    """One pass in the given order; returns Σ f(X) (w·w̃ + b + b̃ − log X)², each term before its update.

    The last column of ``words`` and ``contexts`` is the bias; ``*_squares`` have AdaGrad's sums, one per number.
    """
    dim = words.shape[1] - 1
    total = 0.0
    for at in order:
        i, j = rows[at], columns[at]
        gap = words[i, dim] + contexts[j, dim] - log_count[at]
        for e in range(dim):
            gap += words[i, e] * contexts[j, e]
        pull = weight[at] * gap
        total += pull * gap
        for e in range(dim + 1):
            to_word = pull * (contexts[j, e] if e < dim else np.float32(1))
            to_context = pull * (words[i, e] if e < dim else np.float32(1))
            words[i, e] -= rate * to_word / np.sqrt(word_squares[i, e])
            contexts[j, e] -= rate * to_context / np.sqrt(context_squares[j, e])
            word_squares[i, e] += to_word * to_word
            context_squares[j, e] += to_context * to_context
    return total
