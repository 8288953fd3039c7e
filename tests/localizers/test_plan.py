"""Plans: what they count, how they are kept, and which sites they refuse."""

from __future__ import annotations

import json

import pytest

from absa_edit.errors import PlanError, RecordError
from absa_edit.localizers.plan import checked, every_layer, plan_of, read_plan
from absa_edit.records import EditPlan, Part, Site, Target
from absa_edit.storage import write_json

ATTN, MLP = 64, 80  # inputs + outputs of o_proj (32, 32) and down_proj (48, 32) of the tiny Llama


def test_counts_parameters_by_hand(small) -> None:
    plan = plan_of(small.runner, [Site(2, Part.mlp), Site(0, Part.attn), Site(2, Part.attn)], 3, "manual")
    assert plan.parameters == 3 * (ATTN + MLP + ATTN)
    assert [str(t.site) for t in plan.targets] == ["attn@0", "attn@2", "mlp@2"]
    assert plan.layers() == (0, 2)


def test_heads_count_their_own_columns(small) -> None:
    plan = plan_of(small.runner, [Site(1, Part.head, 3), Site(1, Part.head, 0)], 3, "manual")
    assert plan.parameters == 2 * 3 * (8 + 32)  # a head fills 8 inputs of o_proj
    assert [str(t.site) for t in plan.targets] == ["head.0@1", "head.3@1"]
    assert len(every_layer(small.runner, [Part.head])) == 3 * 4


def test_every_layer(small) -> None:
    plan = plan_of(small.runner, every_layer(small.runner, [Part.attn, Part.mlp]), 1, "all")
    assert len(plan.targets) == 6
    assert plan.parameters == 3 * (ATTN + MLP)


def test_a_file_gives_the_plan_back(small, tmp_path) -> None:
    plan = plan_of(small.runner, [Site(1, Part.attn), Site(1, Part.mlp)], 2, "trace", 0.75)
    write_json(plan, tmp_path / "plan.json")
    found = read_plan(str(tmp_path / "plan.json"), small.runner)
    assert (found.targets, found.parameters) == (plan.targets, plan.parameters)
    assert (found.source, found.stability) == ("file", None), "anybody may have changed it"


def test_a_changed_file_is_counted_anew(small, tmp_path) -> None:
    targets = (Target(Site(0, Part.attn), 2), Target(Site(1, Part.mlp), 5))
    write_json(EditPlan("me", targets, 999), tmp_path / "plan.json")
    assert read_plan(str(tmp_path / "plan.json"), small.runner).parameters == 2 * ATTN + 5 * MLP


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([(3, "attn", None, 1)], r"attn@3: the model has layers 0 to 2"),
        ([(-1, "attn", None, 1)], r"attn@-1: the model has layers 0 to 2"),
        ([(0, "block", None, 1)], r"block@0: only attn, mlp and head"),
        ([(0, "head", 4, 1)], r"head\.4@0: expected the head's index, 0 to 3"),
        ([(0, "head", None, 1)], r"head@0: expected the head's index, 0 to 3"),
        ([(0, "head", 1, 9)], r"head\.1@0: rank 9, expected 1 to 8"),
        ([(0, "attn", None, 1), (0, "head", 1, 1)], r"head\.1@0: the plan edits all heads of the layer as attn@0"),
        ([(0, "attn", 1, 1)], r"attn\.1@0: only heads have an index"),
        ([(1, "mlp", None, 1), (1, "mlp", None, 2)], r"mlp@1: stands in the plan twice"),
        ([(1, "mlp", None, 0)], r"mlp@1: rank 0, expected 1 to 32"),
        ([(1, "mlp", None, 33)], r"mlp@1: rank 33, expected 1 to 32"),
        ([], r"plan from file has no targets"),
    ],
)
def test_sites_that_match_nothing_are_errors_that_name_them(small, tmp_path, targets, message) -> None:
    plan = {
        "source": "me",
        "parameters": 0,
        "targets": [{"site": {"layer": n, "part": p, "index": i}, "rank": r} for n, p, i, r in targets],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(PlanError, match=message):
        read_plan(str(tmp_path / "plan.json"), small.runner)


def test_errors_before_anything_is_counted(small) -> None:
    with pytest.raises(PlanError, match="block@1"):
        plan_of(small.runner, [Site(1, Part.block)], 1, "manual")
    with pytest.raises(PlanError, match="attn@9"):
        plan_of(small.runner, [Site(9, Part.attn)], 1, "manual")


def test_a_missing_file_and_a_misspelt_key(small, tmp_path) -> None:
    with pytest.raises(PlanError, match=r"no such file"):
        read_plan(str(tmp_path / "plan.json"), small.runner)
    target = {"site": {"layer": 0, "part": "attn"}, "rnk": 4}
    (tmp_path / "plan.json").write_text(json.dumps({"source": "me", "parameters": 0, "targets": [target]}))
    with pytest.raises(RecordError, match=r"plan\.json is not a EditPlan: targets\.0\.r"):
        read_plan(str(tmp_path / "plan.json"), small.runner)


def test_a_checked_plan_is_itself(small) -> None:
    plan = plan_of(small.runner, [Site(1, Part.attn)], 32, "manual")
    assert checked(plan, small.runner) is plan
