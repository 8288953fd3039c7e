"""Shots: balanced, of different sentences, by seed; and how prompts read after them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from absa_edit.data.prompts import content_free, encode, label_ids
from absa_edit.data.settings import PromptSettings
from absa_edit.data.shots import draw_shots, preamble_of
from absa_edit.errors import DataError, ModelError, SettingsError
from absa_edit.records import Example, Role
from absa_edit.tasks.absc import ABSC

LABELS = ABSC.labels
MANY = [Example(f"{i}", f"s{i // 2}", "x" * i, "x", 0, 1, LABELS[i % 3], "") for i in range(1, 91)]
TURN = "{% for m in messages %}<user>{{ m.content }}</user>{% endfor %}<bot>"


def drawn(count: int, seed: int = 0, examples=MANY) -> tuple[Example, ...]:
    return draw_shots(examples, LABELS, count, np.random.default_rng(seed))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 30])
def test_as_many_of_each_label_as_can_be(count) -> None:
    for seed in range(10):
        shots = drawn(count, seed)
        each = Counter({label: 0 for label in LABELS} | Counter(shot.label for shot in shots))
        assert sum(each.values()) == count and max(each.values()) - min(each.values()) <= 1
        assert len({shot.sentence_id for shot in shots}) == count


def test_the_seed_decides_and_nothing_is_preferred() -> None:
    assert drawn(8, 4) == drawn(8, 4) != drawn(8, 5)
    over = Counter(label for seed in range(300) for label in {shot.label for shot in drawn(1, seed)})
    assert min(over[label] for label in LABELS) > 70, "the one that is left over is dealt to any label"
    assert abs(np.mean([len(shot.text) for seed in range(300) for shot in drawn(3, seed)]) - 45.5) < 4
    firsts = Counter(drawn(9, seed)[0].label for seed in range(300))
    assert min(firsts[label] for label in LABELS) > 70, "labels do not stand in an order"


def test_others_leave_a_rare_label_its_sentences() -> None:
    """A label whose only sentence has other aspects, too, must not lose it to these."""
    shared = [Example(f"{i}", "only", "a b c", "a", 0, 1, label, "") for i, label in enumerate(LABELS)]
    more = [Example(f"m{i}", f"m{i}", "d", "d", 0, 1, label, "") for i, label in enumerate(LABELS[1:])]
    for seed in range(20):
        assert len(drawn(3, seed, [*shared, *more])) == 3


def test_too_few_sentences_are_an_error() -> None:
    few = [e for e in MANY if e.label != "neutral"][:20] + [replace(MANY[0], label="neutral", sentence_id="one")] * 3
    with pytest.raises(DataError, match=r"shots=6: 2 .* label neutral are wanted and 1 are there; take fewer shots"):
        drawn(6, 0, few)
    with pytest.raises(SettingsError, match=r"prompt\.shots=-1: expected 0 or more"):
        PromptSettings(shots=-1)


def test_a_prompt_after_shots_is_their_text_and_the_plain_prompt(tokenizer, examples, prompts) -> None:
    words = PromptSettings(labels=["good", "bad", "okay"])
    settings = ABSC.prompt(words)
    text = preamble_of(examples[2:5:2], LABELS, settings)
    assert text == (
        "Given the sentence: 'Battery life is terrible, plug it in at noon.', what is the sentiment polarity of the "
        "aspect term Battery life ? bad\n\nGiven the sentence: 'It comes with a 65 watt charger.', what is the "
        "sentiment polarity of the aspect term 65 watt charger ? okay\n\n"
    )
    asked = encode(examples, tokenizer, replace(settings, preamble=text))
    for prompt, plain, example in zip(asked, prompts, examples, strict=True):
        whole = text + settings.template.replace("{sentence}", example.text).replace("{aspect}", example.aspect)
        assert list(prompt.ids) == tokenizer(whole)["input_ids"]
        assert prompt.preamble == len(tokenizer(text)["input_ids"]) and plain.preamble == 0
        assert set(prompt.roles[: prompt.preamble]) == {Role.instruction}
        own = [role for role in plain.roles if role is not Role.instruction]
        assert list(prompt.roles[-len(own) :]) == own
        assert prompt.ids[-len(own) :] == plain.ids[-len(own) :]
    assert encode(examples, tokenizer, replace(settings, preamble="")) == prompts
    after = label_ids(tokenizer, replace(settings, preamble=text), LABELS)
    assert after == label_ids(tokenizer, settings, LABELS)


def test_in_a_chat_the_shots_stand_in_the_users_turn(tokenizer, examples, monkeypatch) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", TURN)
    text = preamble_of(examples[2:3], LABELS, ABSC.prompt())
    (prompt,) = encode(examples[:1], tokenizer, ABSC.prompt(PromptSettings(chat=True, preamble=text)))
    whole = tokenizer.decode(prompt.ids)
    assert whole.index("<user>") < whole.index("Battery") < whole.index("screen") < whole.index("</user>")
    assert "noon" in tokenizer.decode(prompt.ids[: prompt.preamble])
    assert "screen" not in tokenizer.decode(prompt.ids[: prompt.preamble])
    assert tokenizer.decode([prompt.ids[i] for i in prompt.positions(Role.aspect)]).strip() == "screen"


def test_too_long_a_prompt_says_how_long_its_shots_are(tokenizer, examples) -> None:
    text = preamble_of(examples[:4], LABELS, ABSC.prompt())
    length = len(tokenizer(text)["input_ids"])
    with pytest.raises(ModelError, match=rf"has \d+ tokens, {length} of them shots .* is 60; take fewer shots, "):
        encode(examples, tokenizer, ABSC.prompt(PromptSettings(preamble=text, max_tokens=60)))
    with pytest.raises(ModelError, match=r"has \d+ tokens, prompt.max_tokens is 9; shorten"):
        encode(examples, tokenizer, ABSC.prompt(PromptSettings(max_tokens=9)))


def test_inputs_that_say_nothing(tokenizer) -> None:
    texts = [tokenizer.decode(p.ids, skip_special_tokens=True) for p in content_free(tokenizer, ABSC.prompt())]
    template = ABSC.template
    wanted = [template.replace("{sentence}", t).replace("{aspect}", t) for t in ("N/A", "", "[MASK]")]
    assert [t.strip() for t in texts] == wanted
    sentences = PromptSettings(template="Is '{sentence}' good ?")
    assert [p.example.aspect for p in content_free(tokenizer, sentences)] == [""] * 3
