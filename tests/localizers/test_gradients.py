"""Gradients of single examples, against those that autograd gives the weights themselves."""

from __future__ import annotations

import copy

import contexts
import numpy as np
import pytest
import torch
from families import sites_in

from absa_edit.data.prompts import Labels, encode, label_ids
from absa_edit.errors import PlanError, SettingsError
from absa_edit.localizers.base import SiteScores
from absa_edit.localizers.examples import OnExamples
from absa_edit.localizers.gradients import answer_gradients
from absa_edit.localizers.settings import LOCALIZERS, LocateSettings, Shape
from absa_edit.model.architectures import output_width
from absa_edit.records import Part, Site
from absa_edit.tasks.absc import ABSC


def scores(lm, kind: str, train, **settings: object) -> SiteScores:
    """Of all the examples, in their order."""
    ctx = contexts.context(lm.model, train=train)
    return LOCALIZERS[kind]().score(ctx, LOCALIZERS[kind].settings(kind=kind, **settings))


def gradients(lm, site: Site, examples, labels: Labels | None = None) -> list[torch.Tensor]:
    """The gradient [output, input] of each example's loss in a copy of the model, by a plain forward pass."""
    model = copy.deepcopy(lm.model)
    module = model.get_submodule(lm.runner.path(site))
    module.weight.requires_grad_(True)
    labels = labels or label_ids(lm.tokenizer, ABSC.prompt(), ABSC.labels)
    tokens = sorted({token for word in labels.values() for token in word})
    matrices = []
    for prompt in encode(examples, lm.tokenizer, ABSC.prompt()):
        word = labels[prompt.example.label]
        ids = torch.tensor([[*prompt.ids, *word[:-1]]])
        logits = model(ids).logits[0, -len(word) :, tokens]
        wanted = [tokens.index(token) for token in word]
        loss = -logits.log_softmax(-1)[range(len(word)), wanted].mean()
        (matrix,) = torch.autograd.grad(loss, module.weight)
        conv = output_width(module) == tuple(matrix.shape) and type(module).__name__ == "Conv1D"
        matrices.append(matrix.T if conv else matrix)
    return matrices


def test_energies_are_those_of_the_weights_gradients(tiny, examples) -> None:
    for part in dict.fromkeys(site.part for site in sites_in(tiny.model, [Site(0, Part.attn), Site(0, Part.mlp)])):
        found = scores(tiny, "fisher", examples, parts=[part])
        assert list(found.sentence_ids) == [e.sentence_id for e in examples]
        for layer in (0, 2):
            wanted = [float(g.square().sum()) for g in gradients(tiny, Site(layer, part), examples)]
            np.testing.assert_allclose(found.values[:, 0, 0, layer], wanted, rtol=1e-3)


def test_a_head_has_its_own_columns(small, examples) -> None:
    found = scores(small, "fisher", examples[:3], parts=[Part.head], sites=2, shape=Shape.sites)
    wanted = gradients(small, Site(1, Part.attn), examples[:3])
    columns = [[float(g[:, 8 * head : 8 * head + 8].square().sum()) for head in range(4)] for g in wanted]
    np.testing.assert_allclose(found.values[:, :, 0, 1], columns, rtol=1e-3)


def test_all_tokens_of_a_word_count(small, examples) -> None:
    """Each a share of the word's loss, at its own position, in a batch of words of different lengths."""
    words = {"positive": (11, 7, 30), "negative": (12,), "neutral": (13, 7)}
    prompts = encode(examples[:5], small.tokenizer, ABSC.prompt())
    assert len({p.example.label for p in prompts}) == 3
    given = answer_gradients(small.runner, prompts, words, [Part.attn])[Part.attn, 1].energy()
    wanted = [float(g.square().sum()) for g in gradients(small, Site(1, Part.attn), examples[:5], words)]
    np.testing.assert_allclose(given.numpy(), wanted, rtol=1e-3)


def test_page_is_the_mean_energy_of_an_adapters_first_gradient(small, examples) -> None:
    """Of B, over many adapters as PEFT begins them; that of A is 0."""
    found = scores(small, "page", examples[:2], parts=[Part.mlp], rank=3)
    generator = torch.Generator().manual_seed(0)
    for number, gradient in enumerate(gradients(small, Site(1, Part.mlp), examples[:2])):
        inputs = gradient.shape[1]
        drawn = (torch.rand(4000, 3, inputs, generator=generator) * 2 - 1) / inputs**0.5
        energies = (gradient @ drawn.mT).square().sum((1, 2))
        assert found.values[number, 0, 0, 1] == pytest.approx(float(energies.mean()), rel=0.05)


def test_gradient_does_not_mind_the_scale_of_what_enters(small, examples) -> None:
    """Values three times as large through an output projection of a third: the same model."""
    before = scores(small, "gradient", examples).values
    model = copy.deepcopy(small.model)
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.mul_(3)
        model.model.layers[1].self_attn.o_proj.weight.div_(3)
    scaled = type(small)("scaled", "scaled", model, small.tokenizer, "0")
    np.testing.assert_allclose(scores(scaled, "gradient", examples).values, before, rtol=1e-3)
    kinds = [scores(lm, "fisher", examples).values[:, 0, 0, 1] for lm in (scaled, small)]
    np.testing.assert_allclose(kinds[0], 9 * kinds[1], rtol=1e-3)


def test_gradient_by_hand(small, examples) -> None:
    """In the last block the answer is read from one token: the gradient is one product, its norm that of g alone."""
    found = scores(small, "gradient", examples[:1], parts=[Part.mlp])
    (gradient,) = gradients(small, Site(2, Part.mlp), examples[:1])
    values = torch.linalg.svdvals(gradient)
    assert values[1] < 1e-4 * values[0]
    prompt = encode(examples[:1], small.tokenizer, ABSC.prompt())[0]
    entered: list[torch.Tensor] = []
    module = small.model.model.layers[2].mlp.down_proj
    handle = module.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    small.model(torch.tensor([prompt.ids]))
    handle.remove()
    assert found.values[0, 0, 0, 2] == pytest.approx(float(values[0] / entered[0][0, -1].norm()), rel=1e-3)


def test_gradient_has_inputs_of_length_1(small, examples) -> None:
    found = scores(small, "gradient", examples[:3], parts=[Part.attn]).values[:, 0, 0, 1]
    plain = {i: matrix for i, matrix in enumerate(gradients(small, Site(1, Part.attn), examples[:3]))}
    assert all(abs(found[i] / float(plain[i].norm()) - 1) > 0.05 for i in plain)
    given = answer_gradients(
        small.runner,
        encode(examples[:3], small.tokenizer, ABSC.prompt()),
        label_ids(small.tokenizer, ABSC.prompt(), ABSC.labels),
        [Part.attn],
    )[Part.attn, 1]
    for i, matrix in plain.items():
        torch.testing.assert_close(given.outputs[i].T @ given.inputs[i], matrix, rtol=1e-3, atol=1e-4)
        unit = given.inputs[i] / given.inputs[i].norm(dim=-1, keepdim=True)
        assert found[i] == pytest.approx(float((given.outputs[i].T @ unit).norm()), rel=1e-4)


@pytest.mark.parametrize("kind", ["gradient", "fisher", "page"])
def test_only_a_layer_that_reaches_the_answer_is_chosen(small, examples, kind) -> None:
    """The two blocks after the first let nothing by but the residual stream: their inputs' matrices are 0."""
    model = copy.deepcopy(small.model)
    with torch.no_grad():
        for layer in (0, 2):
            model.model.layers[layer].self_attn.v_proj.weight.zero_()
            model.model.layers[layer].mlp.up_proj.weight.zero_()
    ctx = contexts.context(model, train=examples)
    settings = OnExamples(kind=kind, width=1, rank=2)
    plan = LOCALIZERS[kind]().plan(ctx, settings, np.random.default_rng(0))
    assert [str(t.site) for t in plan.targets] == ["attn@1", "mlp@1"]
    assert (plan.source, plan.stability) == (kind, 1.0)


def test_fewer_examples_are_among_more(small, examples) -> None:
    few = scores(small, "fisher", examples, examples=3)
    many = scores(small, "fisher", examples)
    places = [list(many.values[:, 0, 0, 0]).index(pytest.approx(value, rel=1e-4)) for value in few.values[:, 0, 0, 0]]
    assert len(set(places)) == 3 and places == sorted(places)


def test_no_examples_is_told_first(small) -> None:
    settings = OnExamples(kind="gradient")
    with pytest.raises(PlanError, match="locate=gradient looks at training examples"):
        LOCALIZERS["gradient"]().check(contexts.context(small.model), settings)
    with pytest.raises(PlanError, match="locate=gradient looks at training examples"):
        contexts.locate(settings, small.model, None, rng=np.random.default_rng(0))
    with pytest.raises(SettingsError, match=r"locate\.examples=0"):
        OnExamples(kind="gradient", examples=0)
    assert isinstance(LocateSettings(kind="first").by("fisher"), OnExamples)
