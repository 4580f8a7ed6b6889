"""Language models: encoders, objectives, softmaxes, the training loop and the read-outs."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import binom
from torch import nn
from torch.nn import functional as F

from qcq.corpus import Corpus
from qcq.errors import ConfigError, TrainingError
from qcq.floors.losses import Verdict
from qcq.floors.objectives import Masked
from qcq.graph import KnowledgeGraph
from qcq.models import TRAINERS, TrainingData
from qcq.models.language import readout as readouts
from qcq.models.language.softmax import LOSSES, PROPOSALS, Full, Sampled
from qcq.models.language.trainers import MLM, Cloze
from qcq.models.language.training import SparseTable, rate
from qcq.models.language.transformer import POSITIONS, Bidirectional, Block, Encoder, TwoStream
from qcq.walks import QCQ

SIZES: dict[str, Any] = {
    "dim": 16,
    "heads": 4,
    "layers": 2,
    "norm": "pre",
    "dropout": 0.0,
    "position": "relative",
    "length": 9,
}
TINY: dict[str, Any] = {
    "dim": 16,
    "heads": 2,
    "negatives": 20,
    "batch": 16,
    "steps": 140,
    "table_lr": 0.05,
    "lr": 0.005,
}


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


def excess(model, source: TrainingData) -> tuple[float, float]:
    """Mean held-out excess and its standard error, by walk."""
    probe = Masked().held_out_batch(source.heldout, seed=5)
    off = model.losses(probe) - probe.objective.floor(source.chain, probe)
    by_walk = np.bincount(probe.walk, weights=off - off.mean())
    return float(off.mean()), float(np.sqrt((by_walk**2).sum()) / len(off))


def unigram_excess(source: TrainingData) -> float:
    probe = Masked().held_out_batch(source.heldout, seed=5)
    answer = probe.objective.unigram(probe, source.chain.unigram)
    return float((answer - probe.objective.floor(source.chain, probe)).mean())


def batch(length: int = 9, dim: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randn(5, length, dim, generator=g)
    hidden = torch.rand(5, length, generator=g) < 0.3
    real = torch.arange(length) < torch.tensor([[length], [length], [length - 2], [3], [1]])
    return tokens, hidden & real, real


def shaken(encoder: Encoder) -> Encoder:
    """The encoder with random weights, so that no path is closed by its start values."""
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.3)
    return encoder.eval()


# ---------------------------------------------------------------------------------------------------------- encoders


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_equals_torchs_layer_with_the_same_weights(norm):
    torch.manual_seed(1)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm == "pre"
    ).eval()
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    ours = Block(16, 4, norm, 0.0).eval()
    attention = theirs.self_attn
    weights, offsets = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    with torch.no_grad():
        for mine, weight, offset in zip(
            (ours.attention.query, ours.attention.key, ours.attention.value), weights, offsets, strict=True
        ):
            mine.weight.copy_(weight), mine.bias.copy_(offset)
        pairs: Any = (
            (ours.attention.out, attention.out_proj),
            (ours.wide, theirs.linear1),
            (ours.narrow, theirs.linear2),
            (ours.norm1, theirs.norm1),
            (ours.norm2, theirs.norm2),
        )
        for mine, other in pairs:
            mine.load_state_dict(other.state_dict())
        x, _, real = batch()
        bias = torch.where(real, 0.0, -torch.inf)[:, None, None, :]
        expected = theirs(x, src_key_padding_mask=~real)
        torch.testing.assert_close(ours(x, bias)[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_cloze_never_sees_its_own_token_at_any_depth(position, layers):
    encoder = shaken(TwoStream(**{**SIZES, "position": position, "layers": layers}))
    tokens, hidden, real = batch()
    hidden = torch.zeros_like(hidden)
    with torch.no_grad():
        before = encoder(tokens, hidden, real)
        for place in range(tokens.shape[1]):
            changed = tokens.clone()
            changed[:, place] = changed[:, place].flip(-1) * 3  # a mere shift would be undone by the layer norm
            after = encoder(changed, hidden, real)
            for layer, (a, b) in enumerate(zip(before, after, strict=True)):
                assert torch.equal(a[:, place], b[:, place])
                others = torch.arange(tokens.shape[1]) != place
                if layer and place == 0:  # every other real position does see it
                    assert ((a - b).abs().sum(-1)[real & others] > 0).all()


@pytest.mark.parametrize("kind", [Bidirectional, TwoStream])
@pytest.mark.parametrize("position", POSITIONS)
def test_what_is_hidden_or_padding_is_seen_by_nobody(kind, position):
    encoder = shaken(kind(**{**SIZES, "position": position}))
    tokens, hidden, real = batch()
    with torch.no_grad():
        before = encoder(tokens, hidden, real)[-1]
        unseen = hidden | ~real
        after = encoder(torch.where(unseen[..., None], tokens.flip(-1) * 3, tokens), hidden, real)[-1]
        assert torch.equal(before[real], after[real])
        visible = encoder(torch.where(unseen[..., None], tokens, tokens.flip(-1) * 3), hidden, real)[-1]
        assert not torch.allclose(before[0], visible[0])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_last_state_can_be_had_at_some_places_alone(norm):
    tokens, hidden, real = batch()
    for kind in (Bidirectional, TwoStream):
        encoder = shaken(kind(**{**SIZES, "norm": norm}))
        with torch.no_grad():
            some = encoder(tokens, hidden, real, None, hidden)[-1]
            torch.testing.assert_close(some, encoder(tokens, hidden, real)[-1][hidden])


def test_a_walk_with_everything_hidden_still_has_finite_states():
    for kind in (Bidirectional, TwoStream):
        tokens, _, real = batch()
        states = kind(**SIZES)(tokens, real, real)
        assert all(torch.isfinite(s[real]).all() for s in states)


def test_without_positions_order_means_nothing_and_with_them_it_does():
    tokens, hidden, _ = batch()
    real, order = torch.ones_like(hidden), torch.randperm(9, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for position, kind in itertools.product(POSITIONS, (Bidirectional, TwoStream)):
            encoder = shaken(kind(**{**SIZES, "position": position}))
            straight = encoder(tokens, hidden, real)[-1][:, order]
            turned = encoder(tokens[:, order], hidden[:, order], real)[-1]
            assert torch.allclose(straight, turned, atol=1e-4) == (position == "none")


def test_local_sees_neighbours_first_and_relative_sees_all_alike_at_first():
    local, relative = (POSITIONS[name](9, 16, 3).bias(9) for name in ("local", "relative"))
    assert (relative == 0).all()
    both, left, right = local.detach()
    assert torch.equal(both, both.T)
    for side in (both, left):
        assert (side[8, :-1].diff() > 0).all()  # nearer on the left is better
    assert (right[0, 1:].diff() < 0).all()
    assert left[4, 3] > left[4, 5]
    assert right[4, 5] > right[4, 3]
    assert both[4, 3] == both[4, 5]


def test_adding_three_vectors_is_one_of_the_maps_of_concatenating_them():
    tokens, hidden, real = batch()
    types = torch.randint(0, 2, hidden.shape, generator=torch.Generator().manual_seed(4))
    sizes: dict[str, Any] = {**SIZES, "position": "absolute", "n_types": 2}
    for kind in (Bidirectional, TwoStream):
        added, joined = kind(**sizes), kind(**sizes, combine="concatenate")
        joined.load_state_dict(added.state_dict(), strict=False)
        with torch.no_grad():
            assert torch.allclose(
                added(tokens, hidden, real, types)[-1], joined(tokens, hidden, real, types)[-1], atol=1e-5
            )


# -------------------------------------------------------------------------------------------------------- objectives


def test_masking_is_binomial_and_never_draws_a_special_token():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 57, size=(600, 30)).astype(np.int32)
    tokens[::3, 20:] = -1
    tokens[1::3, 1::2] = 57 + 2  # a concept among the walk's tokens
    trainer = MLM(mask_rate=0.15, mask_share=0.8, random_share=0.1)
    made = trainer.training_batch(tokens, 57, rng)
    real = tokens >= 0
    assert not (made.asked & ~real).any()
    assert not (made.hidden & ~made.asked).any()
    assert np.array_equal(made.targets, tokens[made.asked])
    swapped = made.asked & ~made.hidden & (made.tokens != tokens)
    assert np.array_equal(made.tokens[~made.asked], tokens[~made.asked])
    assert ((made.tokens[swapped] >= 0) & (made.tokens[swapped] < 57)).all()  # never a mask, pad or concept
    n = int(made.asked.sum())
    drawn = np.bincount(made.tokens[swapped], minlength=57)
    assert (drawn > 0).sum() > 50
    for count, of, p in (
        (n, int(real.sum()), 0.15),
        (int(made.hidden.sum()), n, 0.8),
        (int(swapped.sum()), n, 0.1 * 56.2 / 57),
    ):
        assert binom.ppf(1e-5, of, p) <= count <= binom.ppf(1 - 1e-5, of, p)


def test_pure_masks_hide_all_that_is_asked_and_cloze_asks_for_everything():
    tokens = np.arange(40, dtype=np.int32).reshape(4, 10)
    tokens[1, 6:] = -1
    rng = np.random.default_rng(0)
    pure = MLM(mask_rate=0.5).training_batch(tokens, 40, rng)
    assert np.array_equal(pure.hidden, pure.asked)
    assert pure.asked.any()
    cloze = Cloze(hide_rate=0.3).training_batch(tokens, 40, rng)
    assert np.array_equal(cloze.asked, tokens >= 0)
    assert 0 < cloze.hidden.sum() < (tokens >= 0).sum()
    assert not (cloze.hidden & (tokens < 0)).any()


def test_a_batch_always_asks_for_something():
    tokens = np.full((1, 3), -1, dtype=np.int32)
    tokens[0, 0] = 5
    made = MLM(mask_rate=1e-9).training_batch(tokens, 40, np.random.default_rng(0))
    assert made.asked.tolist() == [[True, False, False]]


# -------------------------------------------------------------------------------------------------------- softmaxes


def tables(v: int = 50, dim: int = 8) -> tuple[SparseTable, SparseTable, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    output = SparseTable(torch.randn(v, dim, dtype=torch.float64, generator=g))
    bias = SparseTable(torch.randn(v, 1, dtype=torch.float64, generator=g))
    h = torch.randn(30, dim, dtype=torch.float64, generator=g).requires_grad_()
    return output, bias, h, torch.randint(0, v, (30,), generator=g)


def dense(table: SparseTable) -> torch.Tensor:
    ids, grad = table.gradients()
    return grad if ids is None else torch.zeros_like(table.weight).index_add(0, ids, grad)


@pytest.mark.parametrize("proposal", PROPOSALS)
@pytest.mark.parametrize("negatives", [1, 20, 100_000])
def test_sampled_softmax_and_its_gradient_equal_the_dense_formula(proposal, negatives):
    output, bias, h, targets = tables()
    counts = np.random.default_rng(1).integers(0, 50, 50)
    loss = Sampled(counts, negatives, proposal)
    drawn = torch.from_numpy(loss.draw(7))
    made = loss(h, targets, output, bias, 7)
    made.backward()
    weight, offset, h2 = (t.detach().clone().requires_grad_() for t in (output.weight, bias.weight, h))
    scores = h2 @ weight.T + offset[:, 0] - loss.log_inclusion  # (N, V)
    chosen = torch.zeros(30, 50, dtype=torch.bool)
    chosen[:, drawn] = True
    chosen[torch.arange(30), targets] = True
    expected = F.cross_entropy(scores.masked_fill(~chosen, -torch.inf), targets)
    expected.backward()
    torch.testing.assert_close(made.detach(), expected.detach())
    for ours, theirs in ((h.grad, h2.grad), (dense(output), weight.grad), (dense(bias), offset.grad)):
        torch.testing.assert_close(ours, theirs)
    if negatives == 100_000:  # everything is drawn: this is the full softmax
        full = Full(counts, negatives, proposal)(h.detach(), targets, output, bias, 7)
        assert float(made.detach()) == pytest.approx(float(full.detach()), abs=1e-6)


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_negatives_come_as_often_as_the_correction_assumes(proposal):
    counts = np.array([0, 1, 3, 10, 30, 100, 300])
    loss = Sampled(counts, 3, proposal)
    times = np.zeros(7)
    for step in range(6000):
        times[loss.draw(step)] += 1
    low, high = (binom.ppf(p, 6000, np.exp(loss.log_inclusion.numpy())) for p in (1e-5, 1 - 1e-5))
    assert ((low <= times) & (times <= high)).all()
    q = PROPOSALS[proposal](counts)
    assert q.sum() == pytest.approx(1)
    assert (np.diff(q) >= 0).all()


def test_alike_tokens_come_equally_often_in_every_round_in_ever_new_company():
    loss = Sampled(np.full(70, 5), 20, "unigram")
    rounds = [np.bincount(np.concatenate([loss.draw(4 * r + s) for s in range(4)]), minlength=70) for r in range(50)]
    assert {int(n) for n in np.unique(rounds)} == {1, 2}  # 80 points for 70 tokens
    company = sum((0 in loss.draw(step)) and (1 in loss.draw(step)) for step in range(4000))
    assert 0 < company < 0.5 * 4000 * 20 / 70
    assert not np.array_equal(Sampled(np.full(70, 5), 20, "unigram", seed=1).draw(0), loss.draw(0))


def test_the_sampled_softmax_has_its_optimum_where_the_full_one_has_it():
    """Scores that answer p exactly get no gradient on average, though each step sees a part of the tokens."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(60, 0.3), size=4)  # four contexts
    loss = Sampled(rng.integers(1, 50, 60), 20, "unigram")
    h, bias = torch.eye(4, dtype=torch.float64), SparseTable(torch.zeros(60, 1, dtype=torch.float64))
    output = SparseTable(torch.from_numpy(np.log(p.T + 1e-9)))
    total, size = torch.zeros(60, 4, dtype=torch.float64), 0.0
    loss.log_inclusion = loss.log_inclusion.double()
    for step in range(1500):
        context = rng.integers(0, 4, 64)
        targets = (p[context].cumsum(axis=1) < rng.random((64, 1))).sum(axis=1).clip(max=59)
        made = loss(h[context].requires_grad_(), torch.from_numpy(targets), output, bias, step)
        made.backward()
        step_grad = dense(output)
        bias.gradients()
        total, size = total + step_grad, size + float(step_grad.norm())
    assert float(total.norm()) < 0.06 * size


# ---------------------------------------------------------------------------------------------------------- training


def test_rows_that_are_always_read_are_updated_as_by_torchs_adam_and_others_stay():
    start = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    table, theirs = SparseTable(start.clone()), start.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=0.1)
    ids = torch.tensor([1, 4, 5, 4])
    for step in range(5):
        away = (table.look_up(ids) - step).square().sum()
        away.backward()
        table.step(*table.gradients(), 0.1)
        adam.zero_grad()
        (theirs[ids] - step).square().sum().backward()
        adam.step()
    torch.testing.assert_close(table.weight, theirs.detach())
    assert torch.equal(table.weight[[0, 2, 3]], start[[0, 2, 3]])


def test_a_row_read_twice_gets_both_gradients():
    table = SparseTable(torch.arange(8.0).reshape(4, 2))
    (table.rows(torch.tensor([0, 2])).sum() + 3 * table.look_up(torch.tensor([2, 2])).sum()).backward()
    assert dense(table)[:, 0].tolist() == [1, 0, 7, 0]
    (table.rows().sum() + table.rows(torch.tensor([3])).sum()).backward()
    assert dense(table)[:, 0].tolist() == [1, 1, 1, 2]
    assert table.gradients() is None


def test_rates_rise_then_fall():
    rates = [rate(s, 200, 0.1) for s in range(200)]
    assert np.argmax(rates) == 19
    assert (np.diff(rates[:20]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()
    assert rates[-1] < 1e-3


# Every pair of choices meets in at least one of these (checked below).
FACTORS = {
    "asks": ("mlm", "mlm as BERT masks", "cloze"),
    "position": tuple(POSITIONS),
    "softmax": tuple(LOSSES),
    "tying": ("tied", "untied", "start"),
    "proposal": tuple(PROPOSALS),
    "combine": ("add", "concatenate"),
    "norm": ("pre", "post"),
    "layout": ("plain", "bert"),
    "layers": (1, 2),
    "heads": (1, 2),
    "dropout": (0.0, 0.05),
}
ASKS = {
    "mlm": ("mlm", {}),
    "mlm as BERT masks": ("mlm", {"mask_share": 0.8, "random_share": 0.1}),
    "cloze": ("cloze", {}),
}


def pairwise() -> list[dict]:
    """A small set of combinations in which every pair of choices occurs.

    Each starts from a pair that is still missing; the other factors, in turn, take the value that adds most new pairs.
    """
    left = {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(FACTORS, 2)
        for x, y in itertools.product(FACTORS[a], FACTORS[b])
    }
    out = []
    while left:
        chosen = dict(min(left, key=lambda pair: sorted(map(str, pair))))
        for name in [name for name in FACTORS if name not in chosen]:
            new = {x: sum(frozenset([(name, x), other]) in left for other in chosen.items()) for x in FACTORS[name]}
            chosen[name] = max(new, key=new.__getitem__)
        left -= {frozenset(pair) for pair in itertools.combinations(chosen.items(), 2)}
        out.append({name: chosen[name] for name in FACTORS})
    return out


def test_every_pair_of_choices_meets():
    chosen = pairwise()
    for a, b in itertools.combinations(FACTORS, 2):
        met = {(c[a], c[b]) for c in chosen}
        assert met == set(itertools.product(FACTORS[a], FACTORS[b]))


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(c, id="-".join(map(str, c.values())), marks=[pytest.mark.slow] if i % 4 else [])
        for i, c in enumerate(pairwise())
    ],
)
def test_every_combination_trains_out_of_the_trap_to_within_0_6_nats_of_its_floor(source, choice):
    """The unigram solution, where training starts, lies over 1.1 nats above the floor."""
    name, settings = ASKS[choice["asks"]]
    settings = {**TINY, **settings, **{k: v for k, v in choice.items() if k != "asks"}}
    model = TRAINERS[name](**settings).fit(source)
    off, se = excess(model, source)
    assert -3 * se < off < 0.6
    assert unigram_excess(source) > 1.1


def test_same_seed_same_bytes_and_other_seed_others(source):
    few: dict[str, Any] = {**TINY, "steps": 6, "dropout": 0.1}
    for name in ("mlm", "cloze"):
        a, b, c = (TRAINERS[name](**few).fit(source, seed) for seed in (3, 3, 4))
        for readout in a.readouts:
            assert a.embeddings(readout).vectors.tobytes() == b.embeddings(readout).vectors.tobytes()
        assert not np.allclose(a.embeddings().vectors, c.embeddings().vectors)


def test_losses_are_minus_log_of_the_full_softmax(source):
    model = MLM(**{**TINY, "steps": 5}).fit(source)
    probe = Masked().held_out_batch(source.heldout)
    rows = probe.tokens[:7]
    asked = probe.asked[:7]
    learner = model.learner
    with torch.no_grad():
        state = learner.states(rows, asked, rows >= 0)[-1].double()
        scores = state @ learner.output.weight.double().T + learner.bias.weight[:, 0].double()
    expected = -scores.log_softmax(-1).numpy()[asked][np.arange(asked.sum()), rows[asked]]
    ours = model.losses(probe)
    assert ours[: len(expected)] == pytest.approx(expected, abs=1e-5)
    assert ours.shape == probe.walk.shape
    with pytest.raises(ConfigError, match="positions, not pairs"):
        model.losses(type(probe)(probe.objective, probe.tokens, probe.walk))


def test_tokens_are_counted_without_padding(source):
    tokens = source.corpus.tokens.copy()
    tokens[:, 6:] = -1
    short = Corpus([tokens], 40, 4, source.graph.digest)
    model = MLM(**{**TINY, "steps": 4}).fit(TrainingData(source.graph, source.walk, sampled=short))
    assert model.tokens == 4 * 16 * 6


class Stop(Exception):
    pass


def stop_at(step: int):
    def progress(done: int, total: int, **figures: float | str) -> None:
        if done >= step:
            raise Stop

    return progress


@pytest.mark.parametrize("tying", ["tied", "start"])
def test_a_run_that_was_interrupted_continues_to_the_same_bytes(source, tmp_path, tying):
    file = tmp_path / "run.safetensors"
    settings: dict[str, Any] = {**TINY, "steps": 40, "dropout": 0.1, "tying": tying}
    curves: list[list[tuple[int, dict[str, Any]]]] = [[], []]
    kept = tmp_path / "whole.safetensors"
    whole = MLM(**settings, checkpoint=str(kept)).fit(source, 0, lambda n, all, **f: curves[0].append((n, f)))
    with pytest.raises(Stop):
        MLM(**settings, checkpoint=str(file)).fit(source, 0, stop_at(25))
    resumed = MLM(**settings, checkpoint=str(file)).fit(source, 0, lambda n, all, **f: curves[1].append((n, f)))
    assert min(step for step, figures in curves[1] if "tokens_per_second" in figures) > 20
    for _, figures in curves[0] + curves[1]:
        figures.pop("tokens_per_second", None)
    assert curves[1] == curves[0]
    assert file.read_bytes() == kept.read_bytes()
    assert resumed.tokens == whole.tokens
    assert resumed.history == whole.history
    for name in whole.readouts:
        assert resumed.embeddings(name).vectors.tobytes() == whole.embeddings(name).vectors.tobytes()
    with pytest.raises(TrainingError, match="another run"):
        MLM(**settings, checkpoint=str(file)).fit(source, 1)
    data = bytearray(file.read_bytes())
    for at in (len(data) - 1, len(data) // 2, int(re.search(rb"tokens|history|counters", data).start()) + 20):
        file.write_bytes(bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]]))
        with pytest.raises(TrainingError, match=r"changed or damaged|no readable|another run"):
            MLM(**settings, checkpoint=str(file)).fit(source)
    for metadata, why in (({"state": "{"}, "no readable"), ({"state": "[]"}, "another run"), (None, "another run")):
        save_file({"a": torch.zeros(1)}, file, metadata=metadata)
        with pytest.raises(TrainingError, match=why):
            MLM(**settings, checkpoint=str(file)).fit(source)
    file.write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match="no readable checkpoint"):
        MLM(**settings, checkpoint=str(file)).fit(source)


def test_divergence_stops_with_step_rate_and_advice_and_keeps_the_last_good_state(source, tmp_path):
    file = tmp_path / "run.safetensors"
    with pytest.raises(
        TrainingError, match=r"diverged at step \d+ of 60.* 0\.\d+ \(body\) and \d.*lower lr and table_lr"
    ):
        MLM(**{**TINY, "steps": 60, "table_lr": 1e3}).fit(source)
    calls = itertools.count()

    class Spoilt(MLM):
        def training_batch(self, tokens, n_questions, rng):
            made = super().training_batch(tokens, n_questions, rng)
            if next(calls) == 10:
                spoil()
            return made

    trainer = Spoilt(**{**TINY, "steps": 40}, checkpoint=str(file))
    learner, _ = trainer.learner(source, 0)
    held: list = []

    def spoil() -> None:
        held[0].input.weight[:] = math.nan

    def keep(self, *args):
        held.append(learner)
        return learner, _

    patch = pytest.MonkeyPatch()
    patch.setattr(Spoilt, "learner", keep)
    with patch.context(), pytest.raises(TrainingError, match=r"step 11 of 40: the loss is not finite.*last good state"):
        trainer.fit(source)
    patch.undo()
    assert file.exists()
    from safetensors.numpy import load_file

    assert all(np.isfinite(t).all() for t in load_file(file).values())


def test_training_stops_early_at_the_excess_asked_for_or_when_nothing_improves(source):
    seen: list[dict] = []
    MLM(**TINY, stop_excess=0.4).fit(source, 0, lambda done, total, **f: seen.append({"done": done, **f}))
    assert seen[-1]["excess"] <= 0.4 < seen[-2]["excess"]
    assert seen[-1]["done"] < TINY["steps"]
    assert seen[-1]["loss"] - seen[-1]["floor"] == pytest.approx(seen[-1]["excess"])
    assert {line["verdict"] for line in seen} <= set(get_args(Verdict))
    steps: list[int] = []
    still: dict[str, Any] = {**TINY, "lr": 1e-12, "table_lr": 1e-12}
    MLM(**still, patience=3).fit(source, 0, lambda done, total, **f: steps.append(done))
    assert len(steps) < 20


def test_settings_that_cannot_be_are_refused():
    for settings, text in (
        ({"dim": 10, "heads": 4}, "multiple of heads"),
        ({"mask_share": 0.9, "random_share": 0.2}, "more than 1"),
        ({"position": "locl"}, "position"),
        ({"steps": 0}, "steps"),
    ):
        with pytest.raises(ConfigError, match=text):
            MLM(**settings)


def test_a_device_that_is_not_there_is_refused_in_one_line(source):
    with pytest.raises(ConfigError, match="device: 'abacus' can't be used here"):
        MLM(**{**TINY, "device": "abacus"}).fit(source)


# ---------------------------------------------------------------------------------------------------------- read-outs


@pytest.fixture(scope="module")
def deep(source) -> dict:
    few: dict[str, Any] = {**TINY, "steps": 5, "layers": 2}
    return {"mlm": MLM(**few, tying="start").fit(source), "cloze": Cloze(**few).fit(source)}


def test_a_model_offers_its_readouts_and_refuses_others(deep):
    assert deep["mlm"].readouts == ("table", "output", "hidden", "context")
    assert deep["cloze"].readouts == ("table", "context")
    for model in deep.values():
        for name in model.known:
            emb = model.embeddings(name)
            assert emb.vectors.shape == (40, 3 * 16 if name == "concat" else 16)
    for name, text in (
        ("output", "no read-out 'output'; it has table, context"),
        ("hidden", "no read-out 'hidden'"),
        ("context-2", "no read-out 'context-2'"),
        ("table+white", "no change 'white'"),
    ):
        with pytest.raises(ConfigError, match=text):
            deep["cloze"].embeddings(name)


def test_a_trainer_can_be_told_which_readouts_to_offer(source):
    few: dict[str, Any] = {**TINY, "steps": 2}
    model = MLM(**few, readouts=("context+whitened", "table")).fit(source)
    assert model.readouts == ("context+whitened", "table")
    assert np.array_equal(model.embeddings().vectors, model.embeddings("context+whitened").vectors)
    with pytest.raises(ConfigError, match="no read-out 'output'"):
        MLM(**few, tying="tied", readouts=("output",)).fit(source)


def test_tables_and_lone_states_are_what_they_say(deep):
    model = deep["mlm"]
    assert np.array_equal(model.embeddings("table").vectors, model.learner.input.weight.numpy())
    assert np.array_equal(model.embeddings("output").vectors, model.learner.output.weight.numpy())
    one = np.array([[7]], dtype=np.int32)
    with torch.no_grad():
        states = model.learner.states(one, one < 0, one >= 0)
    for name, layer in (("hidden", 2), ("hidden-1", 1)):
        assert model.embeddings(name).vectors[7] == pytest.approx(states[layer][0, 0].numpy(), abs=1e-5)


def test_context_and_principal_are_mean_and_first_component_of_a_questions_states(deep, source):
    for model in deep.values():
        walks = readouts.choose(source.corpus, 40)
        with torch.no_grad():
            states = model.learner.states(walks, walks < 0, walks >= 0)[-1].numpy()
        for q in (0, 17, 39):
            mine = states[walks == q]
            assert model.embeddings("context").vectors[q] == pytest.approx(mine.mean(axis=0), abs=1e-4)
            _, strength, directions = np.linalg.svd(mine, full_matrices=False)
            top = directions[0] * np.sign(directions[0] @ mine.mean(axis=0))
            if strength[0] > 1.5 * strength[1]:
                assert model.embeddings("principal").vectors[q] == pytest.approx(top, abs=1e-2)


def test_every_question_occurs_among_the_chosen_walks_if_it_occurs_at_all():
    rng = np.random.default_rng(0)
    common = rng.integers(0, 5, size=(3000, 10)).astype(np.int32)
    common[2999, 3] = 6  # once in the whole corpus; question 5 never
    corpus = Corpus([common[:1000], common[1000:]], 7, 0, "x")
    walks = readouts.choose(corpus, 7)
    assert 6 in walks
    assert len(walks) < 60


def test_changes_do_what_they_are_called():
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32) @ np.diag(np.arange(1, 9)).astype("f") + 3
    assert readouts.centred(x).mean(axis=0) == pytest.approx(np.zeros(8), abs=1e-4)
    assert np.cov(readouts.whitened(x).T, bias=True) == pytest.approx(np.eye(8), abs=1e-3)
    rest = np.linalg.svd(readouts.all_but_the_top(x), compute_uv=False)
    before = np.linalg.svd(readouts.centred(x), compute_uv=False)
    assert rest[:7] == pytest.approx(before[1:], rel=1e-3)
    assert rest[7] < 1e-2


def test_concept_tokens_have_a_type_and_vectors_of_their_own(source):
    kept = TrainingData(source.graph, QCQ(length=8, per_question=3, keep_concepts=True))
    model = MLM(**{**TINY, "steps": 3}).fit(kept)
    assert model.learner.encoder.types.shape[0] == 2
    emb = model.embeddings()
    assert emb.vectors.shape == (40, 16)
    assert emb.concept_vectors.shape == (4, 16)
