"""A short fit of a tiny model; prints its losses and weights. Run alone, or as one of several processes by torchrun."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import SENTENCES, example, tiny_model
from contexts import adapt
from transformers import AutoTokenizer

from absa_edit.data.prompts import encode, label_ids
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.model.settings import Precision
from absa_edit.model.sources import reviewlm
from absa_edit.records import Part, Site
from absa_edit.tasks.absc import ABSC
from absa_edit.training.loop import fit
from absa_edit.training.settings import FitSettings

if __name__ == "__main__":
    tokenizer = AutoTokenizer.from_pretrained(reviewlm())
    prompts = encode([example(i, *row) for i, row in enumerate(SENTENCES)], tokenizer, ABSC.prompt())
    lm = tiny_model("llama", tokenizer)
    plan = plan_of(lm.runner, [Site(1, Part.attn), Site(2, Part.mlp)], 2, "manual")
    adapted = adapt(lm.model, Edit(lr=1e-2, representation=True), plan, seed=0)
    settings = FitSettings(epochs=4, batch_size=3, patience=9, precision=Precision.float32)
    labels = label_ids(tokenizer, ABSC.prompt(), ABSC.labels)
    done = fit(adapted, prompts, labels, settings, lambda: {"dev_accuracy": 0.0, "dev_macro_f1": 0.0}, seed=1)
    weights = {name: t.detach().flatten().tolist() for name, t in adapted.trainable().items()}
    found = {"losses": [row["loss"] for row in done.history], "steps": done.steps, "weights": weights}
    Path(sys.argv[1], f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(found), encoding="utf-8")
