"""The loop against a plain one, resumed, stopped early, out of memory, in bf16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import adapt

from absa_edit.errors import DataError
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.jola import Jola
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.settings import MethodSettings
from absa_edit.model import onednn_linear
from absa_edit.model.loading import LanguageModel
from absa_edit.model.prefix_tree import PrefixTree, grow
from absa_edit.model.settings import Precision
from absa_edit.records import Part, Site
from absa_edit.results import Fit
from absa_edit.training import loop
from absa_edit.training.checkpoint import Checkpoint, Progressed
from absa_edit.training.loop import epoch_batches, fit
from absa_edit.training.loss import AnswerLoss
from absa_edit.training.settings import FitSettings, Softmax

SITES = [Site(1, Part.attn), Site(1, Part.mlp), Site(2, Part.mlp)]
EDIT = Edit(lr=1e-3, representation=True)
REPRESENTATION = Edit(lr=1e-3, weights=False, representation=True)
PLAIN = FitSettings(epochs=5, batch_size=2, patience=9, precision=Precision.float32)


def adapted_to(lm, method: MethodSettings = EDIT, seed: int = 0) -> AdaptedModel:
    return adapt(lm.model, method, plan_of(lm.runner, SITES, 2, "manual"), seed=seed)


def scores(*values: float) -> Callable[[], dict[str, float]]:
    """Development scores, one an epoch; rising for ever if none are given."""
    given = iter(values or (i / 1000 for i in range(1000)))
    return lambda: {"dev_accuracy": 0.5, "dev_macro_f1": next(given)}


def weights(adapted: AdaptedModel) -> dict[str, torch.Tensor]:
    return {n: t.detach().clone() for n, t in adapted.trainable().items()}


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def run(adapted: AdaptedModel, prompts, labels, settings: FitSettings = PLAIN, evaluate=None, **options: object) -> Fit:
    return fit(adapted, prompts, labels, settings, evaluate or scores(), seed=7, **options)


def forest_of(prompts) -> PrefixTree:
    return grow([p.ids for p in prompts], [len(p.ids) - 1 for p in prompts])


def plain_loop(adapted: AdaptedModel, prompts, labels, settings: FitSettings) -> list[float]:
    """Mean loss of each epoch; a full forward pass an example, nothing cached or shared, all logits made."""
    words = sorted(token for word in labels.values() for token in word)
    groups = [{**g, "weight_decay": 0.0, "initial": g["lr"]} for g in adapted.parameter_groups()]
    optimizer = torch.optim.AdamW(groups)
    parameters = [p for g in groups for p in g["params"]]
    an_epoch = -(-len(prompts) // settings.batch_size)
    total, step, history = settings.epochs * an_epoch, 0, []
    warm = round(settings.warmup * total)
    for epoch in range(1, settings.epochs + 1):
        losses = 0.0
        for batch in epoch_batches(forest_of(prompts), settings.batch_size, np.random.default_rng([7, epoch])):
            chosen = [prompts[i] for i in batch]
            total_loss = torch.zeros(())
            for prompt in chosen:
                with adapted.on(prompt):
                    logits = adapted.model(input_ids=torch.tensor([prompt.ids]), use_cache=False).logits[:, -1]
                gold = torch.tensor([words.index(labels[prompt.example.label][0])])
                total_loss = total_loss + torch.nn.functional.cross_entropy(logits[:, words], gold)
            loss = total_loss / len(chosen)
            loss.backward()
            losses += float(loss.detach()) * len(chosen)
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            factor = step / max(1, warm) if step < warm else (total - step) / max(1, total - warm)
            for group in optimizer.param_groups:
                group["lr"] = group["initial"] * factor
            optimizer.step()
            optimizer.zero_grad()
            step += 1
        history.append(losses / len(prompts))
    assert step == total
    return history


@pytest.mark.parametrize("tiny", ["llama", "qwen2", "gemma2", "gpt2"], indirect=True)
def test_equals_the_plain_loop(tiny, prompts, labels) -> None:
    settings = replace(PLAIN, epochs=13)
    assert settings.epochs * -(-len(prompts) // settings.batch_size) >= 50
    check_against_plain(tiny, EDIT, prompts, labels, settings)


@pytest.mark.parametrize("method", [Delta(lr=1e-3), Lora(lr=1e-3)], ids=["delta", "lora"])
def test_other_methods_equal_the_plain_loop(small, prompts, labels, method) -> None:
    check_against_plain(small, method, prompts, labels)


def test_micro_batches_and_a_last_smaller_batch_equal_the_plain_loop(small, prompts, labels, monkeypatch) -> None:
    monkeypatch.setattr(loop, "Progressed", lambda micro_batch: Progressed(micro_batch=2))
    check_against_plain(small, EDIT, prompts, labels, replace(PLAIN, epochs=2, batch_size=3, clip=1e9))


def check_against_plain(
    tiny: LanguageModel, method: MethodSettings, prompts, labels, settings: FitSettings = PLAIN
) -> None:
    ours, theirs = adapted_to(tiny, method), adapted_to(tiny, method)
    first = weights(ours)
    found = run(ours, prompts, labels, settings)
    expected = plain_loop(theirs, prompts, labels, settings)
    assert found.steps == settings.epochs * -(-len(prompts) // settings.batch_size)
    assert [row["loss"] for row in found.history] == pytest.approx(expected, abs=1e-5, rel=1e-5)
    close(weights(ours), weights(theirs))
    assert any(not torch.allclose(first[n], t, atol=1e-3) for n, t in weights(ours).items())
    assert not list(changed_elsewhere(ours, tiny.model))


def test_micro_batches_give_the_same_fit(small, prompts, labels, monkeypatch) -> None:
    settings = replace(PLAIN, batch_size=4, epochs=2)
    whole, pieces = adapted_to(small), adapted_to(small)
    run(whole, prompts, labels, settings)
    monkeypatch.setattr(loop, "Progressed", lambda micro_batch: Progressed(micro_batch=1))
    found = run(pieces, prompts, labels, settings)
    assert (found.batch_size, found.micro_batch) == (4, 1)
    close(weights(whole), weights(pieces))


def test_out_of_memory_halves_the_batch_and_keeps_the_result(small, prompts, labels, monkeypatch) -> None:
    settings = replace(PLAIN, batch_size=4, epochs=2)
    whole, halved = adapted_to(small), adapted_to(small)
    run(whole, prompts, labels, settings)
    forward, calls = AnswerLoss.forward, []

    def tight(self: AnswerLoss, indices: list[int]) -> torch.Tensor:
        calls.append(len(indices))
        loss = forward(self, indices)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("simulated")
        return loss

    monkeypatch.setattr(AnswerLoss, "forward", tight)
    found = run(halved, prompts, labels, settings)
    assert calls == [4, 4, 2, 2, 2, 2, 2, 2]
    assert (found.batch_size, found.micro_batch, found.steps) == (4, 2, 4)
    close(weights(whole), weights(halved))


def test_memory_that_one_example_does_not_fit_is_an_error(small, prompts, labels, monkeypatch) -> None:
    def never(self: AnswerLoss, indices: list[int]) -> torch.Tensor:
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(AnswerLoss, "forward", never)
    with pytest.raises(torch.OutOfMemoryError, match="simulated"):
        run(adapted_to(small), prompts, labels)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "method", [replace(EDIT, dropout=0.2), Full(lr=1e-4), Jola()], ids=["edit with dropout", "full", "gated heads"]
)
def test_resumed_after_the_first_epoch_ends_at_the_same_weights(small, prompts, labels, tmp_path, method) -> None:
    settings = replace(PLAIN, epochs=3)
    whole, resumed = adapted_to(small, method), adapted_to(small, method)
    expected = run(whole, prompts, labels, settings, scores(0.1, 0.2, 0.3))
    development = scores(0.1)

    def killed_in_the_second() -> dict[str, float]:
        try:
            return development()
        except (StopIteration, RuntimeError):
            raise Killed from None

    checkpoint = Checkpoint(tmp_path / "checkpoint", "k")
    with pytest.raises(Killed):
        run(adapted_to(small, method), prompts, labels, settings, killed_in_the_second, checkpoint=checkpoint)
    torch.manual_seed(99)  # another process has another generator
    found = run(resumed, prompts, labels, settings, scores(0.2, 0.3), checkpoint=checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))
    losses = [[row["loss"] for row in f.history] for f in (expected, found)]
    assert losses[0] == losses[1]
    assert (found.steps, found.epochs, found.best_epoch) == (expected.steps, 3, 3)
    assert found.history[0]["seconds"] < found.history[1]["seconds"]


@pytest.mark.parametrize("precision", Precision)
def test_heads_keep_to_their_columns_through_decay_and_a_resumed_fit(
    small, prompts, labels, tmp_path, precision
) -> None:
    plan = plan_of(small.runner, [Site(1, Part.head, 0), Site(1, Part.head, 3)], 2, "manual")
    settings = replace(PLAIN, epochs=2, weight_decay=0.1, precision=precision)
    whole, killed, resumed = (adapt(small.model, Edit(lr=1e-2), plan, seed=0) for _ in range(3))
    run(whole, prompts, labels, settings, scores(0.1, 0.2))
    checkpoint = Checkpoint(tmp_path / "checkpoint", "k")
    with pytest.raises(StopIteration):  # the development scores run out after the first epoch
        run(killed, prompts, labels, settings, scores(0.1), checkpoint=checkpoint)
    run(resumed, prompts, labels, settings, scores(0.2), checkpoint=checkpoint)
    close(weights(whole), weights(resumed), atol=0)
    layer = resumed.model.model.layers[1].self_attn.o_proj
    delta = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).unflatten(1, (4, 8))
    assert delta.ne(0).any(2).any(0).tolist() == [True, False, False, True]


def test_a_finished_fit_is_not_trained_again(small, prompts, labels, tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path, "k")
    first, second = adapted_to(small), adapted_to(small)
    a = run(first, prompts, labels, evaluate=scores(0.1, 0.5, 0.3, 0.2, 0.1), checkpoint=checkpoint)
    b = run(second, prompts, labels, evaluate=scores(0.0), checkpoint=checkpoint)
    assert b.history == a.history and b.steps == a.steps
    close(weights(first), weights(second), atol=0)


def test_a_stale_checkpoint_counts_as_none(small, prompts, labels, tmp_path) -> None:
    settings = replace(PLAIN, epochs=2)
    plain, beside = adapted_to(small), adapted_to(small)
    run(plain, prompts, labels, settings)
    run(adapted_to(small, seed=5), prompts, labels, settings, checkpoint=Checkpoint(tmp_path, "old"))
    found = run(beside, prompts, labels, settings, checkpoint=Checkpoint(tmp_path, "new"))
    assert found.steps == 8
    close(weights(plain), weights(beside), atol=0)


def test_stops_early_and_goes_back_to_the_best_epoch(small, prompts, labels) -> None:
    after = []
    adapted = adapted_to(small)
    values = scores(0.2, 0.6, 0.6, 0.5, 0.9)

    def evaluate() -> dict[str, float]:
        after.append(weights(adapted))
        return values()

    found = run(adapted, prompts, labels, replace(PLAIN, epochs=5, patience=2), evaluate)
    assert (found.epochs, found.best_epoch, found.best_macro_f1) == (4, 2, 0.6)  # 0.6 again is no better
    assert len(found.history) == 4 and found.steps == 16
    close(weights(adapted), after[1], atol=0)
    assert any(not torch.equal(after[1][n], after[3][n]) for n in after[1])


def test_history_has_a_row_an_epoch(small, prompts, labels) -> None:
    rows = []
    found = run(adapted_to(small), prompts, labels, replace(PLAIN, epochs=2), on_epoch=rows.append)
    assert tuple(rows) == found.history
    assert [set(row) for row in rows] == [{"epoch", "loss", "dev_accuracy", "dev_macro_f1", "seconds"}] * 2
    assert rows[0]["loss"] > 0 and found.peak_bytes > 0 and found.seconds >= rows[1]["seconds"]


def test_learns_the_training_examples(bundled, prompts, labels) -> None:
    settings = FitSettings(epochs=10, batch_size=4, patience=9, precision=Precision.float32)
    plan = plan_of(bundled.runner, [Site(9, Part.mlp), Site(9, Part.attn)], 4, "manual")
    found = run(adapt(bundled.model, Edit(lr=2e-2), plan, seed=0), prompts, labels, settings)
    assert found.history[-1]["loss"] < 0.5 * found.history[0]["loss"]


def test_the_same_seed_gives_the_same_fit_and_another_does_not(small, prompts, labels) -> None:
    made = []
    for seed in (1, 1, 2):
        adapted = adapted_to(small, replace(EDIT, dropout=0.3))
        fit(adapted, prompts, labels, replace(PLAIN, epochs=1), scores(), seed=seed)
        made.append(weights(adapted))
    close(made[0], made[1], atol=0)
    assert any(not torch.equal(made[0][n], made[2][n]) for n in made[0])


@pytest.mark.parametrize("method", [EDIT, Delta(lr=1e-3), Lora(lr=1e-3), Full(lr=1e-3)])
def test_bf16_is_near_float32(small, prompts, labels, method) -> None:
    losses = {}
    for precision in Precision:
        adapted = adapted_to(small, method)
        found = run(adapted, prompts, labels, replace(PLAIN, epochs=1, precision=precision))
        losses[precision] = found.history[0]["loss"]
        assert all(t.dtype is torch.float32 and t.isfinite().all() for t in adapted.trainable().values())
    assert losses[Precision.bf16] == pytest.approx(losses[Precision.float32], rel=0.1)
    assert losses[Precision.bf16] != losses[Precision.float32]


def test_weight_decay_leaves_the_representation_alone(small, prompts, labels) -> None:
    plain, decayed = (adapted_to(small, REPRESENTATION) for _ in range(2))
    for adapted, decay in ((plain, 0.0), (decayed, 0.1)):
        run(adapted, prompts, labels, replace(PLAIN, epochs=2, weight_decay=decay))
    close(weights(plain), weights(decayed), atol=0.0)
    for edit in decayed.representation.edits:
        rows = edit.rotation()
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", [REPRESENTATION, Full(lr=1e-3)], ids=["representation", "full"])
def test_products_by_onednn_give_the_same_fit(small, prompts, labels, method, monkeypatch) -> None:
    plain, ours = adapted_to(small, method), adapted_to(small, method)
    settings = replace(PLAIN, softmax=Softmax.vocabulary)  # of the output layer, too
    expected = run(plain, prompts, labels, settings)
    product, calls = onednn_linear._product, []
    monkeypatch.setattr(onednn_linear, "_product", lambda *given: calls.append(0) or product(*given))
    for name in ("WORK", "LAID_OUT_WORK", "WIDTH"):  # so that a small model's products are not too small
        monkeypatch.setattr(onednn_linear, name, 1)
    found = run(ours, prompts, labels, settings)
    assert len(calls) >= 2 * found.steps * (7 if method is REPRESENTATION else 1)  # of a block, or the output layer
    assert [row["loss"] for row in found.history] == pytest.approx([row["loss"] for row in expected.history], rel=1e-5)
    close(weights(ours), weights(plain))


def test_the_model_is_left_in_evaluation_mode_without_hooks(small, prompts, labels) -> None:
    adapted = adapted_to(small, replace(EDIT, dropout=0.2))
    run(adapted, prompts, labels, replace(PLAIN, epochs=1))
    assert not any(m.training for m in adapted.model.modules())
    assert not any(m._forward_hooks for m in adapted.model.modules())


def test_nothing_to_train_on_is_an_error(small, labels) -> None:
    with pytest.raises(DataError, match="no training examples"):
        run(adapted_to(small), [], labels)


def random_forest(n: int) -> PrefixTree:
    """Sequences of 5 to 80 tokens, some of which share all but their ends."""
    rng = np.random.default_rng(0)
    sequences: list[tuple[int, ...]] = []
    for i in range(n):
        root = sequences[-1] if i and rng.random() < 0.4 else tuple(rng.integers(1, 9, rng.integers(5, 80)).tolist())
        sequences.append((*root[:-1], i + 10))
    return grow(sequences, [len(s) - 1 for s in sequences])


@pytest.mark.parametrize(("n", "size"), [(1, 4), (7, 7), (23, 4), (450, 4)])
def test_batches_hold_every_example_once(n, size) -> None:
    batches = list(epoch_batches(random_forest(n), size, np.random.default_rng([1, 2])))
    assert sorted(i for batch in batches for i in batch) == list(range(n))
    assert len(batches) == -(-n // size)
    assert max(map(len, batches)) <= size


def test_batches_follow_the_seed_and_are_of_like_length() -> None:
    tree = random_forest(400)
    a, b, c = (list(epoch_batches(tree, 8, np.random.default_rng([1, epoch]))) for epoch in (1, 1, 2))
    assert a == b and a != c
    assert sorted(map(sorted, a)) != sorted(map(sorted, c))  # other batches, not another order of the same
    lengths = tree.lengths()[tree.subtree]
    assert np.mean([np.ptp(lengths[batch]) for batch in a]) < 6 < np.ptp(lengths) / 3


def test_batches_keep_most_trees_together() -> None:
    tree = random_forest(400)
    rows = sum(len(set(tree.subtree[batch])) for batch in epoch_batches(tree, 8, np.random.default_rng(0)))
    assert len(tree.subtrees()) <= rows < len(tree.subtrees()) + 50
