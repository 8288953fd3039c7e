"""What components write, against plain forward passes, and the localizers that look at it."""

from __future__ import annotations

import copy
from unittest.mock import patch

import contexts
import numpy as np
import pytest
import torch

from absa_edit.data.prompts import encode
from absa_edit.errors import PlanError
from absa_edit.localizers import probe
from absa_edit.localizers.base import SiteScores
from absa_edit.localizers.cka import dissimilarity
from absa_edit.localizers.settings import LOCALIZERS, Shape
from absa_edit.localizers.states import OF_THE_EXAMPLE, components, states_at
from absa_edit.model.architectures import layout
from absa_edit.records import Dataset, EditPlan, Part, Role
from absa_edit.tasks.absc import ABSC


def scores(model, kind: str, train, **settings: object) -> SiteScores:
    ctx = contexts.context(model, train=train)
    return LOCALIZERS[kind]().score(ctx, LOCALIZERS[kind].settings(kind=kind, **settings))


def plan(model, kind: str, train, **settings: object) -> EditPlan:
    ctx = contexts.context(model, train=train)
    chosen = LOCALIZERS[kind].settings(kind=kind, rank=2, **settings)
    return LOCALIZERS[kind]().plan(ctx, chosen, np.random.default_rng(0))


def sites(made: EditPlan) -> list[str]:
    return [str(target.site) for target in made.targets]


def with_silent_blocks(lm, *layers: int):
    """A copy of a Llama in which some blocks add nothing."""
    model = copy.deepcopy(lm.model)
    with torch.no_grad():
        for layer in layers:
            model.model.layers[layer].self_attn.o_proj.weight.zero_()
            model.model.layers[layer].mlp.down_proj.weight.zero_()
    return model


def by_hand(model, prompt, layer: int) -> dict[str, torch.Tensor]:
    """Inputs and outputs of a block's projections [pos, wide], and what leaves the block, none of them the last."""
    block, kept = model.model.layers[layer], {}

    def keep(name: str):
        def hook(_module, args, output) -> None:
            kept[f"{name} inputs"], kept[name] = args[0][0], output[0]

        return hook

    handles = [block.self_attn.o_proj.register_forward_hook(keep("attn")),
               block.mlp.down_proj.register_forward_hook(keep("mlp"))]  # fmt: skip
    states = model(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    return kept | {"leaving": states[layer + 1][0]}


def test_what_components_write_is_what_the_residual_stream_gains(tiny, prompts) -> None:
    if layout(tiny.model).mlp is None:
        pytest.skip("experts have no single MLP to look at")
    given = {site: c for site, c in components(tiny.runner, prompts[:3], [Part.attn, Part.mlp])}
    streams = {site.layer: c.leaving for site, c in given.items()}
    written = {layer: sum(c.written for site, c in given.items() if site.layer == layer) for layer in streams}
    for layer in (1, 2):
        torch.testing.assert_close(streams[layer - 1] + written[layer], streams[layer], rtol=1e-4, atol=1e-3)


def test_heads_write_what_attention_does(small, prompts) -> None:
    (attention, *_), heads = (
        [c for site, c in components(small.runner, prompts[:2], [part]) if site.layer == 1]
        for part in (Part.attn, Part.head)
    )
    assert len(heads) == 4
    torch.testing.assert_close(sum(c.written for c in heads), attention.written)


def test_figures_of_a_component_by_hand(small, examples) -> None:
    given = {kind: scores(small.model, kind, examples[:3]).values for kind in ("resnorm", "activation", "plop")}
    for i, prompt in enumerate(encode(examples[:3], small.tokenizer, ABSC.prompt())):
        seen = by_hand(small.model, prompt, 1)
        late = [p for p, role in enumerate(prompt.roles) if role is not Role.instruction]
        for kind, part in enumerate(("attn", "mlp")):
            sizes = seen[part].norm(dim=-1)
            assert given["resnorm"][i, kind, 0, 1] == pytest.approx(
                float((sizes / seen["leaving"].norm(dim=-1))[late].mean()), rel=1e-4
            )
            views = [float(sizes[prompt.positions(role)].mean()) for role in (Role.aspect, Role.sentence, Role.last)]
            np.testing.assert_allclose(given["activation"][i, kind, :, 1], views, rtol=1e-4)
    inputs = seen["mlp inputs"].norm(dim=-1)
    weight = small.model.model.layers[1].mlp.down_proj.weight
    features = sizes / (weight.norm() * inputs / 48**0.5)
    assert given["plop"][2, 1, 0, 1] == pytest.approx(float(features[late].mean()), rel=1e-4)


@pytest.mark.parametrize("kind", ["resnorm", "activation", "cka"])
def test_a_window_goes_where_something_is_written(small, examples, kind) -> None:
    for layer in range(3):
        model = with_silent_blocks(small, *({0, 1, 2} - {layer}))
        made = plan(model, kind, examples, width=1)
        assert sites(made) == [f"attn@{layer}", f"mlp@{layer}"] and made.source == kind
        assert made.stability is not None and made.stability > 0.9


def test_plop_takes_weights_that_know_nothing_of_their_inputs(small, examples) -> None:
    """Of entries drawn at random the norms are about 1; where the largest directions of the inputs weigh most, more."""
    model = copy.deepcopy(small.model)
    drawn = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    prompts = encode(examples, small.tokenizer, ABSC.prompt())
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.down_proj.weight.copy_(drawn)
        entered = torch.cat([by_hand(model, prompt, 1)["mlp inputs"] for prompt in prompts])
        model.model.layers[1].mlp.down_proj.weight.copy_(drawn @ entered.T @ entered)
    values = scores(model, "plop", examples, parts=[Part.mlp]).values.mean(0)[0, 0]
    assert values[1] > 1.2 and 0.8 < values[0] < 1.2
    chosen = sites(plan(model, "plop", examples, parts=[Part.mlp], shape=Shape.sites, sites=2))
    assert chosen == ["mlp@0", "mlp@2"]


def test_principal_weights_are_where_a_strong_direction_is(small, examples) -> None:
    model = copy.deepcopy(small.model)
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.add_(torch.ones(32, 32) * 3)
        noise = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
        model.model.layers[0].self_attn.o_proj.weight.add_(4 * noise)  # larger, but in no direction
    given = scores(model, "principal", ()).values[0, :, 0]
    sizes = np.array([32 * 32, 32 * 48])[:, None]
    assert (given * sizes).sum() / (3 * sizes.sum()) == pytest.approx(0.05, abs=1e-3)
    made = plan(model, "principal", (), shape=Shape.sites, sites=1)
    assert (sites(made), made.stability) == (["attn@2"], 1.0)
    heads = scores(model, "principal", (), parts=[Part.head], shape=Shape.sites, sites=1).values[0, :, 0]
    attention = scores(model, "principal", (), parts=[Part.attn]).values[0, :, 0]
    np.testing.assert_allclose(heads.mean(0), attention[0])  # heads have as many columns each
    assert heads.shape == (4, 3) and len(set(heads[:, 2])) > 1


def test_dissimilarity_is_that_of_kornblith() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, 5, generator=generator).double(), torch.randn(9, 4, generator=generator).double()
    a, b = x - x.mean(0), y - y.mean(0)
    wanted = 1 - (b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())
    assert dissimilarity(x @ x.T, y @ y.T) == pytest.approx(float(wanted))
    turned = 3 * x @ torch.linalg.qr(torch.randn(5, 5, generator=generator).double()).Q + 1
    assert dissimilarity(x @ x.T, turned @ turned.T) == pytest.approx(0, abs=1e-9)


def test_cka_is_the_figure_without_its_bias(small, examples) -> None:
    """The mean of the pseudo-values is the jackknife's estimate, counted from the states anew."""
    given = scores(small.model, "cka", examples).values[:, 0, 0, 1].mean()
    prompts = encode(examples, small.tokenizer, ABSC.prompt())
    states = states_at(contexts.context(small.model), prompts, OF_THE_EXAMPLE, "x").double()
    n = len(examples)

    def figure(rows: list[int]) -> float:
        before, after = states[rows, 1], states[rows, 2]
        return dissimilarity(before @ before.T, after @ after.T)

    rest = np.mean([figure([j for j in range(n) if j != i]) for i in range(n)])
    assert given == pytest.approx(n * figure(list(range(n))) - (n - 1) * rest, rel=1e-6)
    with pytest.raises(PlanError, match="locate=cka compares examples, and has 3"):
        scores(small.model, "cka", examples[:3])


@pytest.mark.parametrize("roles", [[Role.last], [Role.aspect, Role.before]])
def test_states_are_means_over_tokens(small, examples, roles) -> None:
    prompts = encode(examples, small.tokenizer, ABSC.prompt())
    states = states_at(contexts.context(small.model), prompts, roles, "x")
    plain = small.model(torch.tensor([prompts[2].ids]), output_hidden_states=True).hidden_states
    wanted = torch.stack([s[0, prompts[2].positions(*roles)].mean(0) for s in plain[:3]])
    torch.testing.assert_close(states[2, :3], wanted, rtol=1e-4, atol=1e-4)


def test_a_probe_takes_the_block_that_brings_the_label(small, examples) -> None:
    """States are noise before block 1, and hold the label behind it."""
    rng = np.random.default_rng(0)
    numbers = torch.tensor([ABSC.labels.index(e.label) for e in examples])
    train, dev = examples * 5, examples * 2

    def states(ctx, prompts, roles, name) -> torch.Tensor:
        noise = torch.from_numpy(rng.normal(size=(len(prompts), 4, 8)))
        noise[:, 2:, :3] += 9 * torch.nn.functional.one_hot(numbers.repeat(len(prompts) // 8), 3)[:, None]
        return noise

    ctx = contexts.context(small.model, train=train)
    data = Dataset("d", "dev", "python", dev, {}, ABSC.labels)
    ctx = type(ctx)(ctx.settings, ctx.lm, ctx.task, type(ctx.splits)(ctx.splits.train, data, (), ()))
    with patch.object(probe, "states_at", states):
        made = LOCALIZERS["probe"]().plan(
            ctx, probe.ProbeSettings(kind="probe", width=1, rank=2), np.random.default_rng(0)
        )
    assert sites(made) == ["attn@1", "mlp@1"] and made.stability is not None and made.stability > 0.95
    with pytest.raises(PlanError, match="locate=probe judges its probes on development examples"):
        LOCALIZERS["probe"]().check(contexts.context(small.model, train=train), probe.ProbeSettings(kind="probe"))


def test_probes_leave_each_example_out_in_turn() -> None:
    generator = torch.Generator().manual_seed(0)
    states, targets = torch.randn(7, 4, generator=generator).double(), torch.randn(7, 2, generator=generator).double()
    values, vectors = torch.linalg.eigh(states @ states.T)
    penalty = 0.1 * float(values.sum()) / 7
    errors = []
    for i in range(7):
        rest = [j for j in range(7) if j != i]
        kept, wanted = states[rest], targets[rest]
        weight = torch.linalg.solve(kept.T @ kept + penalty * torch.eye(4).double(), kept.T @ wanted)
        errors.append((states[i] @ weight - targets[i]).square())
    given = probe._left_out_error(values.clamp(min=0), vectors, targets, 0.1)
    assert given == pytest.approx(float(torch.stack(errors).mean()), rel=1e-6)
