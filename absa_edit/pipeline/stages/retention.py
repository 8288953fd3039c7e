"""What a model still does besides its task: neutral text, sentiment in general, other domains; before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from absa_edit.context import Context
from absa_edit.data.general_sentiment import QUESTION
from absa_edit.data.neutral import neutral_text, some_paragraphs
from absa_edit.data.prompts import Labels, Prompt, content_free, encode, label_ids
from absa_edit.data.splits import limit
from absa_edit.errors import ModelError
from absa_edit.evaluation.perplexity import perplexity
from absa_edit.evaluation.predict import log_probabilities, predictions
from absa_edit.evaluation.scoring import score
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.pipeline.shared_cache import fetch, share
from absa_edit.records import Dataset
from absa_edit.results import Prediction, Retention, Score
from absa_edit.storage import content_hash, load_kept, save_kept


def retention(ctx: Context, name: str, adapted: AdaptedModel, scores: Mapping[str, Score]) -> Retention:
    """What `adapted` still does; `scores` are its own on the run's test sets.

    Without `score.retention` its perplexity alone. A representation edit is left out but for the test sets: it acts at
    places of the prompt that other texts do not have. A head is asked nothing else: it knows its own labels alone.
    """
    plain = replace(adapted, representation=None, content_free=())
    paragraphs = neutral_paragraphs(ctx)
    ppl = perplexity(
        plain,
        ctx.lm.tokenizer,
        paragraphs,
        draws=ctx.settings.score.resamples,
        rng=ctx.rng("bootstrap neutral text"),
        batch_tokens=ctx.settings.score.batch_tokens,
        progress=ctx.progress,
        name=f"{name} on neutral text",
    )
    words = sum(len(text.split()) for text in paragraphs)
    if not ctx.settings.score.retention:
        return Retention(ppl, words, {}, {})
    others = {test: s.log_loss for test, s in scores.items() if test != ctx.splits.train.name and s.log_loss}
    return Retention(ppl, words, {} if plain.head else _sentiment(ctx, name, plain), others)


def base_retention(ctx: Context, tests: Mapping[str, list[Prompt]]) -> Retention:
    """What the base model does, found or measured, for a run in which it is no method."""
    path, key = ctx.folder / "methods" / "base_retention.json", retention_key(ctx, "base")
    fetch(ctx, "base_retention", key, path.parent, [path.name])
    if kept := load_kept(Retention, path, key):
        return kept
    base, scores = AdaptedModel("base", ctx.lm.model, start=ctx.lm.runner.layers), {}
    for test, prompts in tests.items():
        if test != ctx.splits.train.name and ctx.settings.score.retention:
            rows = _answers(ctx, "base", base, test, prompts, ctx.labels, ctx.task.labels)
            scores[test] = score(rows, draws=ctx.settings.score.resamples, rng=ctx.rng(f"bootstrap {test}"))
    made = retention(ctx, "base", base, scores)
    save_kept(made, path, key)
    share(ctx, "base_retention", key, path.parent, [path.name])
    return made


def retention_key(ctx: Context, *parts: object) -> str:
    """A hash of `parts` and of all that a record of retention depends on but the model after training."""
    sets = [data.summary() for data in (*ctx.splits.tests, *ctx.splits.general)]
    return ctx.key(*parts, ctx.settings.score, content_hash(neutral_text()), QUESTION.template, *sets)


def check_retention(ctx: Context) -> None:
    """Raise `ModelError`, before anything is trained, where the general question cannot be asked."""
    if ctx.settings.score.retention:
        try:
            label_ids(ctx.lm.tokenizer, QUESTION.prompt(), QUESTION.labels)
        except ModelError as error:
            raise ModelError(f"score.retention=true asks {QUESTION.template!r}: {error}; or set it to false") from error


def neutral_paragraphs(ctx: Context) -> list[str]:
    """The seeded draw of neutral text that perplexity is told on, the same for every method."""
    return some_paragraphs(neutral_text(), ctx.settings.score.neutral_words, ctx.rng("neutral text"))


def _sentiment(ctx: Context, name: str, adapted: AdaptedModel) -> dict[str, Score]:
    """Scores of the general question on each set, of at most `score.general_examples` drawn sentences.

    What the model answers to texts that say nothing is taken off (contextual calibration, Zhao et al. 2021, arXiv
    2102.09690): small models say the commoner word to everything, and no change of them would be seen.
    """
    settings, labels = ctx.settings.score, label_ids(ctx.lm.tokenizer, QUESTION.prompt(), QUESTION.labels)
    adapted = replace(adapted, content_free=content_free(ctx.lm.tokenizer, QUESTION.prompt()))
    scores = {}
    for data in ctx.splits.general:
        drawn: Dataset = limit(data, settings.general_examples, ctx.rng(f"general {data.name}"))
        prompts = encode(drawn.examples, ctx.lm.tokenizer, QUESTION.prompt())
        rows = _answers(ctx, name, adapted, data.name, prompts, labels, QUESTION.labels)
        scores[data.name] = score(rows, draws=settings.resamples, rng=ctx.rng(f"bootstrap general {data.name}"))
    return scores


def _answers(
    ctx: Context,
    name: str,
    adapted: AdaptedModel,
    test: str,
    prompts: list[Prompt],
    words: Labels,
    labels: Sequence[str],
) -> tuple[Prediction, ...]:
    scores = log_probabilities(
        adapted,
        prompts,
        words,
        batch_tokens=ctx.settings.score.batch_tokens,
        progress=ctx.progress,
        name=f"{name} on {test}",
    )
    return predictions(name, test, prompts, labels, scores)
