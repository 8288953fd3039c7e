"""The model card of an export: what was edited, on which data, with which scores, and how to load it."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from absa_edit.records import RunRecord


def model_card(record: RunRecord, method: str, *, base: str, representation: bool) -> str:
    """A README with metadata that the hub reads."""
    row = record.methods[method]
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=test,
            dataset_name=test,
            metric_type=metric,
            metric_value=round(interval.value, 4),
        )
        for test, score in row.scores.items()
        for metric, interval in (("accuracy", score.accuracy), ("f1", score.macro_f1))
    ]
    data = ModelCardData(
        language="en",
        library_name="peft" if row.kind in ("edit", "lora") else "transformers",
        pipeline_tag="text-generation",
        base_model=base,
        datasets=[record.data["train"].name],
        metrics=["accuracy", "f1"],
        tags=["aspect-based-sentiment", "absa_edit"],
        model_name=f"{record.experiment}-{method}",
        eval_results=results,
    )
    where = ", ".join(str(t.site) for t in row.plan.targets) if row.plan else "all layers"
    scores = "\n".join(
        f"| {test} | {score.accuracy.percent()} | {score.macro_f1.percent()} | {score.accuracy.n} |"
        for test, score in row.scores.items()
    )
    note = (
        "\nThe folder also holds a representation edit (`representation.safetensors`), which acts at the aspect and "
        "which only `absa_edit.load` applies: plain `peft` gives other answers.\n"
        if representation
        else ""
    )
    return f"""---
{data.to_yaml()}
---

# {record.experiment}, {method}

`{base}` adapted to aspect-based sentiment classification with absa_edit. It answers a prompt with one of the label
words; {row.trainable:,} parameters were trained ({100 * row.share:.3f} % of the model), seed {record.seed}.

Edited: {where}.
{note}
| test set | accuracy % [95 %] | macro-F1 % [95 %] | n |
|---|---|---|---|
{scores}

Trained on {record.data["train"].name} ({record.data["train"].n} aspects). Perplexity on neutral text:
{row.perplexity:.1f}.

## Use

```python
import absa_edit

absa_edit.load("this/folder").predict(["The screen is lovely but the fan never stops."], ["fan"])
```

English reviews only. The labels are three; sentences about other things, irony and mixed feelings are beyond it. The
model carries the biases of its base model and of the reviews.
"""
