"""Token roles by character offsets, and the tokens of the label words."""

from __future__ import annotations

import copy
import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from absa_edit.data.prompts import Prompt, counterfactual, encode, label_ids
from absa_edit.data.settings import PromptSettings
from absa_edit.errors import ModelError, SettingsError
from absa_edit.records import Example, Role, Twin
from absa_edit.tasks.absc import ABSC, Polarity


def one(tokenizer, text: str, aspect: str, start: int | None = None, **settings: object) -> Prompt:
    at = text.index(aspect) if start is None else start
    given = Example("7", "s", text, aspect, at, at + len(aspect), Polarity.neutral, "")
    return encode([given], tokenizer, ABSC.prompt(PromptSettings(**settings)))[0]


def spoken(tokenizer, prompt: Prompt, *roles: Role) -> str:
    """The text of the tokens with one of the roles."""
    return tokenizer.decode([prompt.ids[i] for i in prompt.positions(*roles)])


def test_every_token_of_a_plain_prompt(tokenizer) -> None:
    prompt = one(tokenizer, "The screen is lovely, but slow.", "screen")
    assert prompt.ids == tuple(
        tokenizer(
            "Given the sentence: 'The screen is lovely, but slow.', what is the sentiment polarity of the aspect term "
            "screen ?"
        )["input_ids"]
    )
    assert spoken(tokenizer, prompt, Role.aspect).strip() == "screen"
    assert spoken(tokenizer, prompt, Role.before).strip(" '") == "The"
    assert spoken(tokenizer, prompt, Role.after).strip() == "is lovely but slow"
    assert spoken(tokenizer, prompt, Role.aspect_again).strip() == "screen"
    assert prompt.roles[0] is Role.instruction and tokenizer.decode([prompt.ids[0]]) == "<bos>"
    assert prompt.positions(Role.last) == [len(prompt.ids) - 1]
    assert spoken(tokenizer, prompt, Role.question).strip().endswith("aspect term")


def test_roles_stand_in_order_and_cover_everything(tokenizer, prompts) -> None:
    order = [Role.instruction, Role.before, Role.aspect, Role.after, Role.question, Role.aspect_again, Role.last]
    for prompt in prompts:
        assert len(prompt.roles) == len(prompt.ids)
        ranks = [order.index(r) for r in prompt.roles if r is not Role.punctuation]
        assert ranks == sorted(ranks)
        assert spoken(tokenizer, prompt, Role.aspect).strip() == prompt.example.aspect
        assert spoken(tokenizer, prompt, Role.aspect_again).strip() == prompt.example.aspect


def test_aspect_at_the_first_token_of_the_sentence(tokenizer) -> None:
    prompt = one(tokenizer, "Screen is fine", "Screen")
    assert spoken(tokenizer, prompt, Role.aspect).strip("' ") == "Screen"
    assert not prompt.positions(Role.before)


def test_aspect_at_the_end_of_the_sentence(tokenizer) -> None:
    prompt = one(tokenizer, "I like the screen", "screen")
    assert spoken(tokenizer, prompt, Role.aspect).strip("' ,") == "screen"
    assert not prompt.positions(Role.after)


def test_aspect_longer_than_five_tokens(tokenizer) -> None:
    aspect = "thirteen point three inch glossy multitouch widescreen display"
    prompt = one(tokenizer, f"It has a {aspect}, sadly.", aspect)
    assert len(prompt.positions(Role.aspect)) > 5
    assert spoken(tokenizer, prompt, Role.aspect).strip() == aspect
    assert spoken(tokenizer, prompt, Role.aspect_again).strip() == aspect


def test_a_repeated_aspect_is_the_one_at_the_offset(tokenizer) -> None:
    text = "the fan here and the fan there"
    first, second = (one(tokenizer, text, "fan", at) for at in (4, 21))
    assert first.ids == second.ids
    assert first.positions(Role.aspect) < second.positions(Role.aspect)
    assert len(first.positions(Role.aspect)) == len(second.positions(Role.aspect)) >= 1
    assert spoken(tokenizer, second, Role.before).strip(" '") == "the fan here and the"
    assert spoken(tokenizer, first, Role.after).strip() == "here and the fan there"


def test_punctuation_of_the_sentence_only(tokenizer) -> None:
    prompt = one(tokenizer, "Well , the fan ( loud ) stops ; nice !", "fan")
    assert spoken(tokenizer, prompt, Role.punctuation).replace(" ", "").rstrip("',") == ",();!"
    assert not set(spoken(tokenizer, prompt, Role.after)) & set(",();!")
    inside = one(tokenizer, "A wi-fi card", "wi-fi card")
    assert spoken(tokenizer, inside, Role.aspect).strip() == "wi-fi card"


@pytest.mark.parametrize(
    "aspect", ["café crème", "Straße", "屏幕", "C++/CLI (v2.0)", "{aspect}", "50% off™", "naïve 😀 UI"]
)
def test_special_characters(tokenizer, aspect) -> None:
    prompt = one(tokenizer, f"I saw {aspect} there {{sentence}}", aspect)
    assert spoken(tokenizer, prompt, Role.aspect).strip() == aspect
    assert spoken(tokenizer, prompt, Role.aspect_again).strip() == aspect
    assert spoken(tokenizer, prompt, Role.after).split("there")[1] == "sentence"


def test_a_token_over_two_spans_belongs_to_the_aspect(tokenizer) -> None:
    """The aspect is part of a token, at both ends."""
    text = "An unbelievable notebook"
    (token,) = (t for t in tokenizer(text).tokens() if "note" in t)
    assert token.strip("Ġ") == "notebook"
    prompt = one(tokenizer, text, "tebo")
    assert spoken(tokenizer, prompt, Role.aspect).strip() == "notebook"


def test_custom_template(tokenizer) -> None:
    prompt = one(
        tokenizer,
        "The fan is loud.",
        "fan",
        template="Review: {sentence}\nAspect: {aspect}\nOnce more: {aspect}\nIt is",
    )
    assert spoken(tokenizer, prompt, Role.aspect_again).split() == ["fan", "fan"]
    assert spoken(tokenizer, prompt, Role.instruction).endswith("Review:")
    assert spoken(tokenizer, prompt, Role.last).strip() == "is"
    assert spoken(tokenizer, prompt, Role.question).split() == ["Aspect:", "Once", "more:", "It"]


def test_braces_in_a_sentence_are_text(tokenizer) -> None:
    prompt = one(tokenizer, "set {aspect} and {sentence} and {x} in the menu", "menu")
    whole = tokenizer.decode(prompt.ids)
    assert "'set {aspect} and {sentence} and {x} in the menu'" in whole
    assert spoken(tokenizer, prompt, Role.aspect).strip() == "menu"


@pytest.fixture
def chatty(tokenizer):
    """The tokenizer with a chat template that writes its first token itself."""
    before = tokenizer.chat_template
    tokenizer.chat_template = (
        "<bos>{% for m in messages %}[{{ m.role }}] {{ m.content }} [end]\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    yield tokenizer
    tokenizer.chat_template = before


def test_chat_template(chatty) -> None:
    prompt = one(chatty, "The fan is loud.", "fan", chat=True)
    whole = chatty.decode(prompt.ids)
    assert whole.startswith("<bos>[user] Given the sentence: 'The fan is loud.'") and whole.endswith(
        "[end]\n[assistant]"
    )
    assert prompt.ids.count(chatty.bos_token_id) == 1
    assert spoken(chatty, prompt, Role.aspect).strip() == "fan"
    assert spoken(chatty, prompt, Role.aspect_again).strip() == "fan"
    assert "[user]" in spoken(chatty, prompt, Role.instruction)
    assert "[end]" in spoken(chatty, prompt, Role.question)
    labels = label_ids(chatty, ABSC.prompt(PromptSettings(chat=True)), ABSC.labels)
    assert chatty.decode(labels[Polarity.negative]) == " negative"


def test_chat_without_a_template_is_an_error(tokenizer) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        one(tokenizer, "The fan is loud.", "fan", chat=True)


def test_a_chat_template_that_changes_the_text_is_an_error(chatty) -> None:
    chatty.chat_template = "{{ messages[0].content | upper }}"
    with pytest.raises(ModelError, match="changes the prompt's text"):
        one(chatty, "The fan is loud.", "fan", chat=True)


def test_a_prompt_too_long_is_an_error_that_names_the_example(tokenizer) -> None:
    length = len(one(tokenizer, "The fan is loud.", "fan").ids)
    one(tokenizer, "The fan is loud.", "fan", max_tokens=length)
    with pytest.raises(ModelError, match=rf"example 7: its prompt has {length} tokens.*{length - 1}"):
        one(tokenizer, "The fan is loud.", "fan", max_tokens=length - 1)


def test_no_examples_give_no_prompts(tokenizer) -> None:
    assert encode([], tokenizer, ABSC.prompt()) == []


def test_batches_do_not_change_a_prompt(tokenizer, examples, prompts) -> None:
    assert [encode([e], tokenizer, ABSC.prompt())[0] for e in examples] == prompts


def test_labels_follow_the_prompt_as_text_does(tokenizer, prompts, labels) -> None:
    assert list(labels) == list(Polarity)
    for polarity, ids in labels.items():
        assert len(ids) == 1
        text = tokenizer.decode(prompts[0].ids, skip_special_tokens=True) + " " + polarity
        assert tuple(tokenizer(text)["input_ids"]) == prompts[0].ids + ids


def test_labels_of_several_tokens(tokenizer) -> None:
    settings = ABSC.prompt(
        PromptSettings(separator="", template="{sentence} {aspect} =>\n", labels=["positive", "negative", "neutral"])
    )
    labels = label_ids(tokenizer, settings, ABSC.labels)
    assert max(map(len, labels.values())) > 1
    for polarity, ids in labels.items():
        assert tokenizer.decode(ids) == polarity


def test_a_label_that_melts_into_the_prompt_is_an_error(tokenizer) -> None:
    settings = ABSC.prompt(
        PromptSettings(separator="", template="{sentence} {aspect} is note", labels=["book", "a", "b"])
    )
    with pytest.raises(ModelError, match="does not keep it apart"):
        label_ids(tokenizer, settings, ABSC.labels)


def test_labels_that_collide_are_an_error() -> None:
    words = "Given the sentence: ' what is sentiment polarity of aspect term ? It a phone . ,"
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(["[UNK]", *words.split()]))}
    model = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = Whitespace()
    with pytest.raises(ModelError, match="one word's tokens begin"):
        label_ids(PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]"), ABSC.prompt(), ABSC.labels)


@pytest.mark.parametrize(
    "settings",
    [
        {"template": "{sentence}"},
        {"template": "{aspect} {sentence}"},
        {"template": "{sentence} {sentence} {aspect}"},
        {"labels": ["good", "good", "bad"]},
        {"labels": ["good", "bad"]},
    ],
)
def test_settings_that_make_no_prompt(settings) -> None:
    with pytest.raises(SettingsError, match=r"prompt\."):
        ABSC.prompt(PromptSettings(**settings))


def test_counterfactual_is_the_twin() -> None:
    turned = Twin("The awful fan is awful", 10, 13, Polarity.negative)
    given = Example("1", "s", "The lovely fan is lovely", "fan", 11, 14, Polarity.positive, "laptop", turned)
    twin = counterfactual(given)
    assert twin is not None
    assert (twin.text, twin.text[twin.start : twin.end]) == ("The awful fan is awful", "fan")
    assert (twin.id, twin.sentence_id, twin.label) == (given.id, given.sentence_id, Polarity.negative)
    assert counterfactual(twin) is None


@pytest.fixture
def ending(tokenizer) -> PreTrainedTokenizerBase:
    """As of models whose tokenizer_config.json has add_eos_token."""
    ends = copy.deepcopy(tokenizer)
    whole = json.loads(ends.backend_tokenizer.to_str())
    whole["post_processor"]["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [2], "tokens": ["<eos>"]}
    whole["post_processor"]["single"].append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    ends._tokenizer = Tokenizer.from_str(json.dumps(whole))
    return ends


def test_a_tokenizer_that_ends_texts_gives_the_same_prompts_and_labels(tokenizer, ending, examples, prompts) -> None:
    assert ending("a fan")["input_ids"] == [*tokenizer("a fan")["input_ids"], 2]
    assert encode(examples, ending, ABSC.prompt()) == prompts
    assert label_ids(ending, ABSC.prompt(), ABSC.labels) == label_ids(tokenizer, ABSC.prompt(), ABSC.labels)


def test_a_special_token_that_the_template_ends_with_is_kept(tokenizer) -> None:
    prompt = one(tokenizer, "A fan.", "fan", template="{sentence} {aspect}<eos>")
    assert prompt.ids[-1] == 2 and prompt.roles[-1] is Role.last


def test_a_tokenizer_without_offsets_is_an_error() -> None:
    slow = ByT5Tokenizer()
    for call in (lambda: label_ids(slow, ABSC.prompt(), ABSC.labels), lambda: encode((), slow, ABSC.prompt())):
        with pytest.raises(ModelError, match="ByT5Tokenizer gives no character offsets; use a fast tokenizer"):
            call()
