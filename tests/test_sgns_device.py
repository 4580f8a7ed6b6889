"""``sgns`` and ``kt`` on a device: the same code on the CPU, and on tensors without numbers to see where they lie."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qcq import data
from qcq.config import Config
from qcq.errors import ConfigError, TrainingError
from qcq.evaluation import Partition
from qcq.evaluation.tracing.models import Tracer
from qcq.evaluation.tracing.tasks import Attempts, KTSettings
from qcq.graph import KnowledgeGraph
from qcq.models import SGNS, TrainingData
from qcq.models.sgns_device import DeviceTables
from qcq.pipeline import Experiment
from qcq.walks import QCQ

DIM, LENGTH, WORDS = 8, 12, 30


class StaticSGNS(SGNS):
    static = True


@pytest.fixture(scope="module")
def source() -> TrainingData:
    return TrainingData(KnowledgeGraph.from_dataset(data.Simulated(questions=300).read()), QCQ(length=12))


def tables(together: int = 40, device: str = "cpu", window: int = 3, negatives: int = 4) -> DeviceTables:
    rng = np.random.default_rng(1)
    begin = [rng.standard_normal((WORDS, DIM)).astype(np.float32) for _ in range(2)]
    noise = 1.0 + np.arange(WORDS)
    return DeviceTables(begin[0], begin[1], noise, window, negatives, LENGTH, together, device, True, 0)


def some_walks(n: int) -> torch.Tensor:
    rng = np.random.default_rng(2)
    walks = rng.integers(0, WORDS, (n, LENGTH))
    walks[:, 9:] = np.where(rng.random((n, 1)) < 0.5, -1, walks[:, 9:])  # half of them end early
    return torch.from_numpy(walks)


def test_the_changes_are_the_slopes_of_the_written_loss() -> None:
    made = tables()
    walks = some_walks(made.batch)
    token, pairs, noise = walks.clamp(min=0), made.pairs(walks >= 0), made.noise()
    into = made.inputs.double().requires_grad_()
    out = made.outputs.double().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for b, i, j in pairs.nonzero().tolist():
        x, y = into[token[b, j]], token[b, i]
        loss = loss - torch.nn.functional.logsigmoid(x @ out[y])
        drawn = noise[b // made.group]
        against = torch.nn.functional.logsigmoid(-(out[drawn[drawn != y]] @ x)).sum()
        loss = loss - made.negatives / made.shared * against
    loss.backward()
    into_before, out_before = made.inputs.clone(), made.outputs.clone()
    by_input, by_output, by_noise = made.changes(token, pairs, noise)
    for rows, change, table in (
        (token, by_input, made.inputs),
        (token, by_output, made.outputs),
        (noise, by_noise, made.outputs),
    ):
        made._add(table, rows, change, 0.5)
    assert into.grad is not None
    assert out.grad is not None
    torch.testing.assert_close(made.inputs, into_before - 0.5 * into.grad.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.outputs, out_before - 0.5 * out.grad.float(), rtol=1e-4, atol=1e-5)


def test_pairs_are_those_of_a_window_drawn_for_each_centre() -> None:
    made = tables(window=3)
    walks = some_walks(made.batch)
    counts = torch.zeros(LENGTH)
    rounds = 400
    for _ in range(rounds):
        pairs = made.pairs(walks >= 0)
        assert set(pairs.unique().tolist()) <= {0.0, 1.0}
        for b, i, j in pairs.nonzero().tolist()[:200]:
            assert walks[b, i] >= 0
            assert walks[b, j] >= 0
            assert i != j
        reach = pairs[:, 4]  # a centre with three neighbours on each side, all real
        assert torch.equal(reach[:, :4].flip(1), reach[:, 5:9])
        counts[:4] += reach[:, 5:9].mean(0)
    expected = torch.tensor([1, 2 / 3, 1 / 3, 0])
    assert (counts[:4] / rounds - expected).abs().max() < 5 * 0.5 / (rounds * made.batch) ** 0.5


def test_noise_is_drawn_in_proportion_to_its_weight() -> None:
    made = tables()
    drawn = torch.cat([made.noise().flatten() for _ in range(200)])
    share = torch.bincount(drawn, minlength=WORDS) / len(drawn)
    weight = (1.0 + torch.arange(WORDS)) / (1.0 + torch.arange(WORDS)).sum()
    assert ((share - weight).abs() / (weight / len(drawn)).sqrt()).max() < 5


@pytest.mark.parametrize(("together", "length"), [(1, 40), (5, 40), (3_000, 40), (3_000, 1_500), (1, 9_000)])
def test_a_step_stays_within_bounds(together: int, length: int) -> None:
    begin = np.zeros((2, 2), dtype=np.float32)
    made = DeviceTables(begin, begin, np.ones(2), 5, 5, length, together, "cpu", True, 0)
    assert made.batch % made.group == 0
    assert 1 <= made.batch <= together
    assert made.batch == made.group or made.batch * length * max(length, made.shared) <= 1 << 26
    met = made.negatives * made.group * length * (made.window + 1) / made.shared
    assert met <= 16  # pairs that meet a noise token


def test_a_device_learns_what_the_cpu_learns(source: TrainingData) -> None:
    losses: dict[type[SGNS], list[float]] = {SGNS: [], StaticSGNS: []}
    for kind, found in losses.items():
        for seed in range(3):
            model: Any = kind(dim=16).fit(source, seed)
            batch = model.objective.held_out_batch(source.heldout, seed=0)
            found.append(float(model.losses(batch).mean()))
            if seed == 0:
                assert (
                    model.embeddings().vectors.tobytes() == kind(dim=16).fit(source, 0).embeddings().vectors.tobytes()
                )
    spread = max(np.ptp(found) for found in losses.values())
    assert abs(np.mean(losses[SGNS]) - np.mean(losses[StaticSGNS])) < 2 * spread + 0.002


def test_a_warm_start_begins_where_the_first_training_ended(source: TrainingData) -> None:
    first = StaticSGNS(dim=16).fit(source, 0)
    again: Any = TrainingData(source.graph, source.walk, start=first.weights())
    second = StaticSGNS(dim=16).fit(again, 1)
    a, b = (each.embeddings().vectors for each in (first, second))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.mean() > 0.9


def test_what_a_device_does_not_train_is_refused() -> None:
    for more in ({"ordered": True}, {"parts": 2}):
        with pytest.raises(ConfigError, match="device 'cuda' trains neither ordered tables nor parts; use 'cpu'"):
            SGNS(device="cuda", **more)
    if not torch.cuda.is_available():
        for made in (SGNS(device="cuda"),):
            with pytest.raises(ConfigError, match="device: 'cuda' can't be used here"):
                made.refuse_unusable()
        with pytest.raises(ConfigError, match="device: 'cuda' can't be used here"):
            Tracer(np.zeros((2, 2), np.float32), np.zeros((1, 2, 0), np.float32), False, KTSettings(device="cuda"), 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
@pytest.mark.parametrize("setting", ["sgns.device=cuda", "kt.device=cuda"])
def test_a_missing_device_is_refused_before_anything_is_written(setting: str, tmp_path: Path) -> None:
    small = ["simulated.questions=60", "simulated.students=40", setting]
    settled = Config.load(overrides=small, trainers=("sgns",), tasks=("kt",), seeds=1)
    with pytest.raises(ConfigError, match="device: 'cuda' can't be used here"):
        Experiment(settled).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_device_that_fails_is_one_line(source: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, text in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), r"at step 1 of \d+ \(CUDA out.*lower dim"),
        (RuntimeError("CUDA error: unspecified launch failure\nmore"), r"stopped at step 1 of \d+ .*run again"),
    ):

        def failing(self: DeviceTables, walks: Any, rate: float, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(DeviceTables, "step", failing)
        with pytest.raises(TrainingError, match=text) as caught:
            StaticSGNS(dim=16).fit(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "name", "text"),
    [
        (DeviceTables, "__init__", "while its tables were made .*or lower dim"),
        (DeviceTables, "rows", "while its tables were read"),
        (torch.nn.Module, "to", "while its tables were made .*; lower hidden"),
    ],
)
def test_a_device_without_room_for_tables_is_one_line(
    where: Any, name: str, text: str, source: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore")

    def traced() -> Tracer:
        return Tracer(np.zeros((2, 2), np.float32), np.zeros((1, 2, 0), np.float32), False, KTSettings(), 0)

    made = StaticSGNS(dim=16)
    start = traced if where is torch.nn.Module else partial(made.fit, source)
    monkeypatch.setattr(where, name, full)
    with pytest.raises(TrainingError, match=text) as caught:
        start()
    assert "\n" not in str(caught.value)


def test_a_report_says_which_settings_give_other_bytes_each_time() -> None:
    assert SGNS().reproducible
    assert SGNS(device="cuda").reproducible
    assert SGNS(deterministic=False, threads=1).reproducible
    assert not SGNS(deterministic=False, threads=2).reproducible
    assert not SGNS(deterministic=False, device="cuda").reproducible
    assert not SGNS(device="mps").reproducible


class OneDevice(TorchDispatchMode):
    """Fails where an operation mixes tensors of two devices, which a GPU would refuse."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}))
        places = {each.device.type for each in flat if isinstance(each, torch.Tensor) and each.dim() > 0}
        assert len(places) <= 1 or "copy" in str(op), f"{op} mixes {places}"
        return op(*args, **(kwargs or {}))


def test_a_step_of_sgns_stays_on_its_device() -> None:
    made = tables()
    for name in ("inputs", "outputs", "below"):
        setattr(made, name, getattr(made, name).to("meta"))
    made.device, made.drawn, made.sorted = "meta", None, True  # type: ignore[assignment]
    with OneDevice():
        made.step(some_walks(made.batch).to("meta"), 0.1)
    assert made.inputs.device.type == "meta"


@pytest.mark.parametrize("kind", ["dkt", "attention"])
@pytest.mark.parametrize("ahead", [1, 5])
def test_knowledge_tracing_stays_on_its_device(kind: Any, ahead: int) -> None:
    partition = Partition.make(data.Simulated(questions=60, students=40).read(), 0, hold_out_edges=False)
    attempts = Attempts(partition, "kt")
    vectors = np.ones((60, 4), dtype=np.float32)
    features = attempts.question_features(("difficulty",))
    tracer = Tracer(vectors, features, True, KTSettings(model=kind, hidden=8), 0)
    tracer.device = "meta"
    tracer._modules().to("meta")
    part = attempts.sequences("train")
    with OneDevice():
        for batch in list(part.batches())[:2]:
            for _, logits in tracer._read(part, batch, ahead):
                assert logits.device.type == "meta"
