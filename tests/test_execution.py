"""The two ways to run a step: rows on the CPU, and a device's program of fixed shapes, here run on the CPU."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qcq.errors import ConfigError, TrainingError
from qcq.floors.objectives import Masked
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.kernels import language as kernels
from qcq.models.language.electra import RTD
from qcq.models.language.execution import Device, fixed
from qcq.models.language.softmax import LOSSES, Sampled
from qcq.models.language.tables import BETAS, DenseTable, SparseTable
from qcq.models.language.trainers import CLM, MLM, Asked, BiLM, Cloze
from qcq.models.language.training import Learner
from qcq.models.language.transformer import Attention, Bias
from qcq.support import devices
from qcq.walks import QCQ

TINY: dict[str, Any] = {
    "dim": 16,
    "heads": 2,
    "negatives": 20,
    "batch": 16,
    "steps": 140,
    "table_lr": 0.05,
    "lr": 0.005,
}


class StaticMLM(MLM):
    static = True


class StaticCloze(Cloze):
    static = True


class StaticCLM(CLM):
    static = True


class StaticBiLM(BiLM):
    static = True


class StaticRTD(RTD):
    static = True


STATIC = {"mlm": StaticMLM, "cloze": StaticCloze, "clm": StaticCLM, "bilm": StaticBiLM, "rtd": StaticRTD}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source() -> TrainingData:
    """Forty questions, four concepts, every tenth question with two of them."""
    edges = [(f"q{i}", f"c{i % 4}") for i in range(40)] + [(f"q{i}", f"c{(i + 1) % 4}") for i in range(0, 40, 10)]
    return TrainingData(KnowledgeGraph.from_edges(edges), QCQ(length=12, per_question=10))


def slopes(learner: Learner) -> dict[str, torch.Tensor]:
    """The gradients of a learner after a backward pass, by name; dense."""
    out = {name: p.grad for name, p in learner.encoder.named_parameters() if p.grad is not None}
    for name, table in learner.tables.items():
        ids, grad = table.gradients()
        out[f"table {name}"] = grad if ids is None else torch.zeros_like(table.weight).index_add(0, ids, grad)
    return out


def walks_with_pads(source: TrainingData) -> np.ndarray:
    walks = source.corpus.tokens[:16].copy()
    walks[3, 7:] = walks[5, 1:] = -1
    return walks


@pytest.mark.parametrize("softmax", LOSSES)
@pytest.mark.parametrize("name", STATIC)
def test_both_plans_have_the_same_loss_and_gradients_on_a_batch(name, softmax, source):
    settings: dict[str, Any] = {**TINY, "softmax": softmax, "negatives": 30, "layers": 2}
    rows, dense = TRAINERS[name](**settings), STATIC[name](**settings)
    walks = walks_with_pads(source)
    made = rows.training_batch(walks, 40, np.random.default_rng(0))
    one, two = (trainer.learner(source, 0)[0] for trainer in (rows, dense))
    two.loss = one.loss if softmax != "sampled" else two.loss
    if softmax == "sampled":  # the device takes the full softmax where it fits: let the rows draw everything
        one.loss = Sampled(np.ones(40), 10_000, "uniform")
    asked = Asked(*(torch.from_numpy(x) for x in (made.tokens, made.hidden, made.asked)))
    if made.back is not None:
        asked = Asked(asked.tokens, asked.hidden, asked.asked, torch.from_numpy(made.back))
    most = int(made.asked.sum()) + 9
    exercise = fixed(asked, torch.from_numpy(walks).long(), most)
    assert float(exercise.share.sum()) == pytest.approx(1)
    found = []
    for learner, given in ((one, made), (two, exercise)):
        torch.manual_seed(1)
        if name == "rtd":  # both plans draw the same tokens
            learner.drawn = lambda guesses, chance: torch.full((len(guesses),), 7)
        loss = learner.exercise_loss(given, 3)
        loss.backward()
        found.append((float(loss.detach()), slopes(learner)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for part, mine in found[0][1].items():
        torch.testing.assert_close(
            mine, found[1][1][part], atol=1e-4, rtol=1e-4, msg=lambda text, part=part: part + text
        )


def test_the_negatives_of_a_step_are_the_same_by_either_plan():
    loss, other = (Sampled(np.arange(1, 61), 25, "unigram", seed=2) for _ in range(2))
    for step in range(9):
        other.hold(step, torch.device("cpu"))
        drawn, spare = other.negatives_of(step, torch.device("cpu"))
        assert drawn.shape == (25,)
        assert np.array_equal(drawn[spare == 0].numpy(), loss.draw(step))
        h, targets = torch.randn(8, 6, generator=torch.Generator().manual_seed(step)), torch.arange(8)
        tables = [
            [kind(torch.linspace(-1, 1, 60 * d).reshape(60, d).clone()) for d in (6, 1)]
            for kind in (SparseTable, lambda w: DenseTable(w, every=False))
        ]
        one, two = loss(h, targets, *tables[0], step), other(h, targets, *tables[1], step)
        assert float(one) == pytest.approx(float(two), abs=1e-6)


def test_a_fixed_exercise_asks_for_what_was_asked_and_no_more():
    walks = torch.arange(30).reshape(5, 6)
    walks[2, 3:] = -1
    asked = (walks % 3 == 0) & (walks >= 0)
    made = fixed(Asked(walks, walks < -1, asked), walks, 15)
    kept = made.share > 0
    assert torch.equal(made.targets[kept], walks[asked])
    assert made.asked.shape == (15,)
    few = fixed(Asked(walks, walks < -1, asked), walks, 4)  # too little room: the last ones are left out
    assert torch.equal(few.targets, walks[asked][:4])
    nothing = fixed(Asked(walks, walks < -1, walks < -1), walks, 4)
    assert float(nothing.share.sum()) == 0


@pytest.mark.parametrize("every", [True, False])
def test_a_dense_table_is_updated_like_a_sparse_one_and_leaves_unread_rows(every):
    start = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([1, 4, 5, 4]) if not every else torch.tensor([0, 1, 2, 3, 4, 5, 4])
    made = [SparseTable(start.clone()), DenseTable(start.clone(), every)]
    for step in range(5):
        for table in made:
            (table.look_up(ids) - step).square().sum().backward()
            found, grad = table.gradients()
            table.step(found, grad, 0.1, 0.5)
    torch.testing.assert_close(made[0].held, made[1].held)
    assert every or torch.equal(made[1].weight[[0, 2, 3]], start[[0, 2, 3]])


def test_the_compiled_update_is_torchs_with_clipping_and_for_late_counts():
    start = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    compiled, plain = SparseTable(start.clone()), SparseTable(start.clone())
    for table in (compiled, plain):
        table.held[1, -1] = 40_000  # beyond the corrections that are kept ready
        table.held[:, 5:15] = 0.1
    grad = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    compiled.step(torch.arange(4), grad, 0.1, 0.3)
    plain.step(None, grad, 0.1, 0.3)
    torch.testing.assert_close(compiled.held, plain.held)
    assert pytest.approx(1) == 1 - BETAS[1] ** 40_000


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("veiled", [True, False])
def test_compiled_attention_and_its_gradients_are_torchs(rows, veiled):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 4, generator=g) for n in (7, 9, 9))
    seen = torch.rand(3, rows, 9, generator=g) < 0.7
    seen[..., 0] = True
    place = torch.randn(2, 7, 9, generator=g)
    veil, hidden = (torch.tensor([-3.0, 1.0]), torch.rand(3, 9, generator=g) < 0.4) if veiled else (None, None)
    found = []
    for compiled in (True, False):
        leaves = [x.clone().requires_grad_() for x in (q, k, v, place)]
        mine = None if veil is None else veil.clone().requires_grad_()
        bias = Bias(seen, leaves[3], mine, hidden)
        made = bias.attend(*leaves[:3]) if compiled else F.scaled_dot_product_attention(
            *leaves[:3], attn_mask=bias.whole(leaves[0])
        )  # fmt: skip
        (made * torch.arange(4.0)).sum().backward()
        found.append([made.detach(), *(x.grad for x in leaves), *([] if mine is None else [mine.grad])])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_compiled_exponentials_are_exact_and_pass_on_what_is_no_number():
    x = np.array([[0.0, -1.0, -30.5, -86.0, -np.inf, -1e30]], dtype=np.float32)
    total = np.empty(1, dtype=np.float32)
    made = x.copy()
    kernels.exponentiate(made, np.zeros(1, dtype=np.float32), total)
    assert made == pytest.approx(np.exp(x), rel=1e-5, abs=1e-37)
    assert total[0] == pytest.approx(np.exp(x).sum(), rel=1e-6)
    spoilt = np.array([[0.0, np.nan, -1.0]], dtype=np.float32)
    kernels.exponentiate(spoilt, np.zeros(1, dtype=np.float32), total)
    assert np.isnan(total[0])
    scores = torch.zeros(1, 1, 2, 3)
    scores[0, 0, 1, 2] = torch.nan
    bias = Bias(torch.ones(1, 1, 3, dtype=torch.bool))
    assert torch.isnan(
        bias.attend(scores.transpose(2, 3)[..., :2].contiguous(), *[torch.full((1, 1, 3, 2), torch.nan)] * 2)
    ).any()


def excess(model, source: TrainingData) -> float:
    probe = Masked().held_out_batch(source.heldout, seed=5)
    return float((model.losses(probe) - probe.objective.floor(source.chain, probe)).mean())


@pytest.mark.slow
def test_a_run_reaches_the_same_excess_by_either_plan(source):
    settings: dict[str, Any] = {**TINY, "steps": 300}
    rows, dense = (
        [excess(kind(**settings).fit(source, seed), source) for seed in range(3)] for kind in (MLM, StaticMLM)
    )
    assert abs(np.mean(rows) - np.mean(dense)) < 3 * (np.std(rows) + np.std(dense)) + 0.02
    assert max(*rows, *dense) < 0.5


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != "mlm" else []) for name in STATIC]
)
def test_the_device_plan_repeats_and_continues_to_the_same_bytes(name, source, tmp_path):
    def stop(done, total, **figures):
        if done >= 25:
            raise Stop

    settings: dict[str, Any] = {**TINY, "steps": 40, "dropout": 0.1}
    whole, again = (STATIC[name](**settings).fit(source) for _ in range(2))
    file = str(tmp_path / "run.safetensors")
    with pytest.raises(Stop):
        STATIC[name](**settings, checkpoint=file).fit(source, 0, stop)
    resumed = STATIC[name](**settings, checkpoint=file).fit(source)
    for other in (again, resumed):
        assert other.tokens == whole.tokens
        assert other.history == whole.history
        for readout in whole.readouts:
            assert other.embeddings(readout).vectors.tobytes() == whole.embeddings(readout).vectors.tobytes()


def failing(at: int, error: Exception):
    """A step of the device plan that fails."""
    step = Device.step

    def failed(self, number, share):
        if number == at:
            raise error
        step(self, number, share)

    return failed


GONE = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), r"at step 3\d .*of (4|8) instead of 16 would fit"),
        (RuntimeError(GONE), r"stopped at step 3\d of 40 \(CUDA error: unspecified launch failure\); run again"),
    ],
)  # fmt: skip
def test_a_device_that_fails_is_said_in_one_line_and_the_checkpoint_stays(error, text, source, tmp_path, monkeypatch):
    file = tmp_path / "run.safetensors"
    settings: dict[str, Any] = {**TINY, "steps": 40}
    monkeypatch.setattr(Device, "step", failing(30, error))
    monkeypatch.setattr(Device, "_memory", lambda self: (400_000 * (1 + self.size), 0))
    with pytest.raises(TrainingError, match=text) as caught:
        StaticMLM(**settings, checkpoint=str(file)).fit(source)
    assert "\n" not in str(caught.value)
    assert f"the last good state is in {file}" in str(caught.value)
    monkeypatch.undo()
    resumed = StaticMLM(**settings, checkpoint=str(file)).fit(source)
    whole = StaticMLM(**settings).fit(source)
    assert resumed.embeddings().vectors.tobytes() == whole.embeddings().vectors.tobytes()


@pytest.mark.parametrize(
    ("where", "name", "text"),
    [
        (DenseTable, "__init__", "while its tables were made .*; lower dim or layers"),
        (Learner, "nats", "at step .*would fit"),  # measured inside the training
    ],
)
def test_a_device_without_room_is_one_line_outside_of_a_step_too(where, name, text, source, monkeypatch):
    def full(*args, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore")

    monkeypatch.setattr(where, name, full)
    monkeypatch.setattr(Device, "_memory", lambda self: (400_000 * (1 + self.size), 0))
    with pytest.raises(TrainingError, match=text) as caught:
        StaticMLM(**TINY).fit(source)
    assert "\n" not in str(caught.value)


def test_a_prediction_without_room_is_one_line(source, monkeypatch):
    def full(*args, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nmore")

    model = StaticMLM(**TINY).fit(source)
    monkeypatch.setattr(Learner, "seen", full)
    batch = model.objective.held_out_batch(source.heldout, 0)
    for text, ask in (
        ("in a held-out loss", lambda: model.losses(batch)),
        ("in the read-out hidden", lambda: model.embeddings("hidden")),
        ("in the read-out context", lambda: model.embeddings("context+centred")),
        ("in a prediction", lambda: model.attention(batch)),
    ):
        with pytest.raises(TrainingError, match=f"out of memory {text}.*use device = 'cpu'") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_of_guards_inside_each_other_the_outer_one_speaks():
    def inner():
        with devices.guarded("cuda", lambda: "inside", lambda: "a"):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with (
        pytest.raises(TrainingError, match=r"at step 7.*; b; kept$"),
        devices.guarded("cuda", lambda: "at step 7", lambda: "b", "; kept"),
    ):
        inner()
    with pytest.raises(TrainingError, match=r"inside.*; a$"):
        inner()


def test_a_deterministic_training_is_in_torchs_deterministic_mode(source, monkeypatch):
    modes = []
    step = Device.step

    def watched(self, number, share):
        modes.append(torch.are_deterministic_algorithms_enabled())
        step(self, number, share)

    monkeypatch.setattr(Device, "step", watched)
    for wanted in (True, False):
        modes.clear()
        StaticMLM(**TINY, deterministic=wanted).fit(source)
        assert set(modes) == {wanted}


def test_an_error_without_words_is_named_by_its_kind():
    with (
        pytest.raises(TrainingError, match=r"cuda is out of memory here \(OutOfMemoryError\); x$"),
        devices.guarded("cuda", lambda: "here", lambda: "x"),
    ):
        raise torch.OutOfMemoryError("")


def test_deterministic_asks_torch_for_it_and_says_what_it_cannot_do():
    assert MLM(device="cuda", deterministic=True).reproducible
    assert not MLM(device="cuda").reproducible
    with pytest.raises(ConfigError, match="device 'mps' has no deterministic mode; use 'cpu' or 'cuda'"):
        MLM(device="mps", deterministic=True)
    assert MLM(device="cuda:0", deterministic=True).reproducible
    assert MLM().reproducible
    with devices.deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
    with devices.deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with (
        pytest.raises(TrainingError, match=r"can't repeat this exactly \(cumsum.*\); use deterministic = false"),
        devices.deterministic(True),
    ):
        raise RuntimeError("cumsum does not have a deterministic implementation, but you set ...\nmore")
    with pytest.raises(RuntimeError, match="shapes differ"), devices.deterministic(True):
        raise RuntimeError("shapes differ")
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_error_of_the_code_is_not_taken_for_one_of_the_device(source, monkeypatch):
    monkeypatch.setattr(Device, "step", failing(2, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        StaticMLM(**TINY).fit(source)


def test_no_number_stops_the_device_plan_with_its_step(source, monkeypatch):
    step = Device.step

    def spoilt(self, number, share):
        if number == 10:
            self.learner.input.weight[:] = torch.nan
        step(self, number, share)

    monkeypatch.setattr(Device, "step", spoilt)
    with pytest.raises(TrainingError, match="diverged at step 11 of 140: the loss is not finite"):
        StaticMLM(**TINY).fit(source)


def test_a_missing_driver_is_one_line_and_auto_takes_what_is_there(source, monkeypatch):
    def missing(*args, **more):
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", missing)
        with pytest.raises(ConfigError, match=r"device: 'cuda' can't be used here.*no NVIDIA driver") as caught:
            MLM(**TINY, device="cuda").refuse_unusable()
        assert "\n" not in str(caught.value)
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
            patch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
            assert MLM(**TINY, device="auto").place == expected
    assert MLM(**TINY, device="cpu").place == "cpu"


@pytest.mark.slow
def test_training_on_the_cpu_never_starts_cuda():
    code = (
        "import torch\n"
        "def no(*a, **k): raise SystemExit('CUDA was asked for')\n"
        "torch.cuda.init = torch.cuda._lazy_init = torch.cuda.CUDAGraph = no\n"
        "from qcq.graph import KnowledgeGraph\nfrom qcq.models import TRAINERS, TrainingData\n"
        "from qcq.walks import QCQ\n"
        "g = KnowledgeGraph.from_edges([(f'q{i}', f'c{i % 4}') for i in range(40)])\n"
        "m = TRAINERS['mlm'](dim=16, heads=2, steps=3).fit(TrainingData(g, QCQ(length=8, per_question=3)))\n"
        "print(m.embeddings().vectors.shape)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert made.stdout.strip() == "(40, 16)", made.stderr


def test_queries_of_a_trained_attention_use_the_compiled_loop_only_without_dropout():
    torch.manual_seed(0)
    layer = Attention(8, 2, 0.0)
    x, bias = torch.randn(2, 5, 8), Bias(torch.ones(2, 1, 5, dtype=torch.bool))
    torch.testing.assert_close(layer(x, x, bias), layer(x, x, bias.whole(x)), atol=1e-6, rtol=1e-5)
