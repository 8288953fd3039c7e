"""What `absa-edit serve-check` prints, and its exit code."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from absa_edit.cli import main
from absa_edit.model.loading import LanguageModel


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[object, str]:
        code: object = 0
        try:
            main(["serve-check", *arguments])
        except SystemExit as done:
            code = done.code
        return code, capsys.readouterr().out

    return run


def test_a_rank_over_the_limit_is_told_with_its_fix(check, small: LanguageModel, tmp_path: Path) -> None:
    config = LoraConfig(r=24, target_modules=["model.layers.1.mlp.down_proj"], task_type="CAUSAL_LM")
    get_peft_model(copy.deepcopy(small.model), config).save_pretrained(tmp_path, save_embedding_layers=False)
    code, said = check(str(tmp_path))
    assert code == 1
    assert "wrong" in said and "-> start it with --max-lora-rank 32" in said and "vllm serve" not in said
    code, said = check(str(tmp_path), "--max-lora-rank", "32")
    assert code == 0
    assert "wrong" not in said and "vllm serve" in said and "--max-lora-rank 32" in said


def test_a_folder_with_nothing_in_it(check, tmp_path: Path) -> None:
    assert "nothing to serve in it" in str(check(str(tmp_path))[0])
