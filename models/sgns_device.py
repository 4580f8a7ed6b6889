"""``sgns`` on a device: scores of a batch of walks are matrix products, and noise tokens are shared by groups of walks.

What is learnt is what the compiled loops learn (:mod:`qcq.models.kernels.sgns`): the same objective, windows, noise and
learning rate. All shapes are known beforehand and nothing waits for the device.

Pairs: with X and Y the input and output rows of a walk's tokens, G = Y Xᵀ has the scores of all pairs of the walk, and
a mask M keeps those within the centre's window. Noise: a group of walks shares m tokens, and an input that stands in c
pairs meets each of them with weight c k / m, k the negatives of a pair; pairs that predict a noise token don't count
for it. So the expected step is that of k tokens drawn for every pair.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcq.corpus import Corpus
from qcq.models.word2vec import shuffled
from qcq.support.devices import guarded
from qcq.support.progress import Progress
from qcq.support.seeds import derive, generator

GROUP = 16  # walks that share noise tokens, and pairs that meet each of them: as in the compiled loops, at most
AT_ONCE = 1 << 20  # tokens that are sent to the device at a time
SCORES = 1 << 26  # scores of a step, at most
LOOK = 256  # steps between two progress reports, which wait for the device


def train(
    corpus: Corpus,
    tables: DeviceTables,
    rates: tuple[float, float],
    epochs: int,
    used: int,
    seed: int,
    progress: Progress,
) -> None:
    """Train ``used`` walks of each epoch, in random order, ``tables.batch`` at a time; the rate falls linearly.

    Raises
    ------
    TrainingError : the device has too little memory, or failed.
    """
    batch, device = tables.batch, tables.device
    size = batch * max(1, AT_ONCE // (batch * corpus.length))
    full, rest = divmod(used, size)
    total = epochs * (full * (size // batch) + -(-rest // batch))
    order, done = generator(seed, "sgns", "order"), 0
    with guarded(device, lambda: f"at step {done + 1} of {total}", lambda: "use device = 'cpu', or lower dim"):
        for _ in range(epochs):
            for some in shuffled(corpus, size, order, used):
                short = -len(some) % batch
                padded = np.pad(some, ((0, short), (0, 0)), constant_values=-1) if short else some
                walks = torch.from_numpy(padded).to(device)
                for part in torch.split(walks, batch):
                    tables.step(part.long(), rates[0] + (rates[1] - rates[0]) * done / total)
                    done += 1
                    if done % LOOK == 0:
                        progress(done, total)
        tables.wait()
    progress(total, total)


class DeviceTables:
    """The two tables on a device, and the steps that train them.

    Parameters
    ----------
    inputs, outputs : where they begin, float32 (vocabulary, dim).
    noise : weight of each token as noise, float64 (vocabulary,).
    window, negatives : of the objective.
    length : of the walks.
    together : walks that may read the same state; fewer do where walks are long.
    device : where.
    deterministic : changes of one row are summed in a fixed order, so that the same seed gives the same bytes on the
        same kind of device.
    seed : of everything that is drawn.

    Attributes
    ----------
    batch : walks in a step.
    group : walks that share noise tokens; it divides ``batch``.
    shared : noise tokens of a group.
    """

    def __init__(
        self,
        inputs: NDArray[np.float32],
        outputs: NDArray[np.float32],
        noise: NDArray[np.float64],
        window: int,
        negatives: int,
        length: int,
        together: int,
        device: str,
        deterministic: bool,
        seed: int,
    ) -> None:
        self.device, self.window, self.negatives = device, window, negatives
        pairs = length * (window + 1)  # of a walk, on average
        widest = int((SCORES * GROUP / (negatives * pairs * length)) ** 0.5)
        self.group = max(1, min(together, GROUP, widest))
        self.shared = -(-negatives * pairs * self.group // GROUP)
        most = min(together, SCORES // (length * max(length, self.shared)))
        self.batch = self.group * max(1, most // self.group)
        self.inputs, self.outputs = (torch.from_numpy(table).to(device) for table in (inputs, outputs))
        below = torch.from_numpy(np.cumsum(noise / noise.sum()))
        self.below = (below.float() if device == "mps" else below).to(device)  # there is no float64 on mps
        self.drawn = torch.Generator(device)
        self.drawn.manual_seed(derive(seed, "sgns", "device"))
        self.sorted = deterministic and device != "cpu"

    def step(self, walks: Tensor, rate: float) -> None:
        """Train the pairs of some walks, int64 (batch, length) with -1 pads."""
        token = walks.clamp(min=0)
        pairs, noise = self.pairs(walks >= 0), self.noise()
        by_input, by_output, by_noise = self.changes(token, pairs, noise)
        self._add(self.inputs, token, by_input, rate)
        self._add(self.outputs, token, by_output, rate)
        self._add(self.outputs, noise, by_noise, rate)

    def changes(self, token: Tensor, pairs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Minus the derivatives of the loss by the rows of inputs, outputs and noise.

        Σ over pairs of -log σ(x·y) - k/m Σ log σ(-x·n), n the noise tokens of the walk's group that aren't the centre.

        Parameters
        ----------
        token : int64 (batch, length).
        pairs : of :meth:`pairs`.
        noise : of :meth:`noise`.

        Returns
        -------
        float32 (batch, length, dim) twice, and (groups, shared, dim).
        """
        b, length = token.shape
        groups, m = noise.shape
        x, y, n = self.inputs[token], self.outputs[token], self.outputs[noise]  # (B, L, dim) twice, (groups, m, dim)
        slope = pairs * torch.sigmoid(-(y @ x.mT))  # (B, L, L)
        by_x, by_y = slope.mT @ y, slope @ x  # (B, L, dim)
        other = token.view(groups, -1, 1) != noise[:, None]  # (groups, G L, m), of a centre and a noise token
        counted = pairs.mT @ other.view(b, length, m).to(x.dtype)  # (B, L, m), pairs of an input that meet the token
        flat = x.view(groups, -1, x.shape[2])  # (groups, G L, dim)
        push = counted.view(groups, -1, m) * torch.sigmoid(flat @ n.mT) * (-self.negatives / m)  # (groups, G L, m)
        return by_x + (push @ n).view_as(x), by_y, push.mT @ flat

    def pairs(self, there: Tensor) -> Tensor:
        """Which pairs are trained, 1 or 0: float32 (walks, centres, inputs); each centre draws its own window."""
        b, length = there.shape
        reach = torch.randint(1, self.window + 1, (b, length, 1), device=self.device, generator=self.drawn)
        place = torch.arange(length, device=self.device)
        apart = (place[:, None] - place).abs()  # (L, L)
        return ((apart <= reach) & (apart > 0) & there[:, :, None] & there[:, None]).float()

    def noise(self) -> Tensor:
        """Noise tokens of a step: int64 (groups, shared)."""
        size = (self.batch // self.group, self.shared)
        r = torch.rand(size, device=self.device, generator=self.drawn, dtype=self.below.dtype)
        return torch.searchsorted(self.below, r, right=True).clamp(max=len(self.below) - 1)

    def _add(self, table: Tensor, rows: Tensor, change: Tensor, rate: float) -> None:
        if self.sorted:  # CUDA sorts the rows first, and adds in their order
            table.index_put_((rows.flatten(),), rate * change.view(-1, table.shape[1]), accumulate=True)
        else:
            table.index_add_(0, rows.flatten(), change.view(-1, table.shape[1]), alpha=rate)

    def wait(self) -> None:
        """Until all steps are done."""
        self.inputs[:1].cpu()

    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The two tables as numpy arrays."""
        return self.inputs.cpu().numpy(), self.outputs.cpu().numpy()
