"""`absa-edit model show` on the bundled model, a folder of each family, and what is no model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from absa_edit.cli import main
from absa_edit.commands.model import facts
from absa_edit.model.loading import LanguageModel
from absa_edit.records import Part


def test_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    main(["model", "show", "reviewlm"])
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["parameters"] == "17,497,920 in float32" and told["layers"] == "12" and told["loads"] == "yes"
    assert told["family"] == "llama (LlamaForCausalLM)" and told["attention"] == "model.layers.*.self_attn.o_proj"
    assert told["widths"] == "states 320, MLP 864, vocabulary 8,192"


def test_every_family(tiny: LanguageModel) -> None:
    told = facts(tiny)
    assert told["layers"] == "3" and "states 32, MLP" in told["widths"] and told["heads"].startswith("4 of queries")
    parts = ("attention", "MLPs") if tiny.runner.has(Part.mlp) else ("attention",)
    assert ("MLPs" in told) == ("MLPs" in told["traceable"]) == (len(parts) == 2)
    for part in parts:
        assert tiny.model.get_submodule(told[part].replace("*", "2")) is not None


def test_a_checkpoint_in_a_folder(small: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy.deepcopy(small.model).save_pretrained(tmp_path)
    small.tokenizer.save_pretrained(tmp_path)
    main(["model", "show", str(tmp_path), "--dtype", "bfloat16"])
    assert "in bfloat16" in capsys.readouterr().out


def test_what_does_not_load_is_told_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["model", "show", str(tmp_path)])
    assert f"no: model.name={tmp_path}: " in capsys.readouterr().out
