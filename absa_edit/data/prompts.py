"""Examples as prompt tokens, each token with its role; character offsets decide, never token arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from transformers import PreTrainedTokenizerBase

from absa_edit.data.settings import PromptSettings
from absa_edit.errors import ModelError
from absa_edit.records import Example, Role

OWNER = (Role.aspect, Role.aspect_again, Role.sentence, Role.before, Role.after, Role.question, Role.instruction)
"""Who owns a token whose characters lie in several spans: the first of these."""

ABOUT_ASPECTS = (
    Role.before, Role.aspect, Role.after, Role.punctuation, Role.question, Role.aspect_again, Role.last,
)  # fmt: skip
ABOUT_SENTENCES = (Role.sentence, Role.punctuation, Role.question, Role.last)

Spans = list[tuple[Role, int, int]]
Labels = dict[str, tuple[int, ...]]
"""The tokens of each label's word, in label order."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One example as tokens: `roles[i]` is the role of `ids[i]`; the answer follows the last token."""

    example: Example
    ids: tuple[int, ...]
    roles: tuple[Role, ...]
    preamble: int = 0
    """How many tokens, from the first on, end within the settings' preamble."""

    def positions(self, *roles: Role) -> list[int]:
        """Token positions that have one of the roles, ascending."""
        return [i for i, role in enumerate(self.roles) if role in roles]


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> list[Prompt]:
    """The prompts of `examples`, in order.

    Raises `ModelError` for a tokenizer without character offsets or a prompt over `settings.max_tokens`.
    """
    _check_offsets(tokenizer)
    if not examples:
        return []
    texts, spans = zip(*(_spans(e, tokenizer, settings) for e in examples), strict=True)
    prompts = []
    for example, text, span, (ids, offsets) in zip(
        examples, texts, spans, _tokens(texts, tokenizer, settings), strict=True
    ):
        preamble = 0
        if settings.preamble:
            first = text.index(settings.preamble) + len(settings.preamble)
            preamble = next(i for i, (_, end) in enumerate(offsets) if end > first)
        if len(ids) > settings.max_tokens:
            before = f", {preamble} of them shots or other text before it" if preamble else ""
            fewer = "take fewer shots, " if preamble else ""
            raise ModelError(
                f"example {example.id}: its prompt has {len(ids)} tokens{before}, prompt.max_tokens is "
                f"{settings.max_tokens}; {fewer}shorten or drop the example, or raise it (an export's is in "
                "absa_edit.json)"
            )
        roles = [_role(text, int(start), int(end), span) for start, end in offsets]
        roles[-1] = Role.last
        prompts.append(Prompt(example, tuple(ids), tuple(roles), preamble))
    return prompts


def filled(example: Example, settings: PromptSettings) -> str:
    """The template with the sentence and the aspect of an example."""
    return "".join(_piece(piece, example) for piece in _pieces(settings))


CONTENT_FREE = ("N/A", "", "[MASK]")
"""Inputs that say nothing. Source: Zhao et al. 2021 (arXiv 2102.09690), section 5."""


def content_free(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> tuple[Prompt, ...]:
    """The prompt with inputs that say nothing in place of sentence and aspect."""
    asks_aspect = "{aspect}" in settings.template
    aspects = [text if asks_aspect else "" for text in CONTENT_FREE]
    pairs = zip(CONTENT_FREE, aspects, strict=True)
    examples = [Example("", "", text, aspect, 0, len(aspect), "", "") for text, aspect in pairs]
    return tuple(encode(examples, tokenizer, settings))


def roles_of(prompts: Sequence[Prompt]) -> tuple[Role, ...]:
    """The roles that tokens of such prompts may have, but for the instruction."""
    about_sentences = any(Role.sentence in p.roles for p in prompts)
    return ABOUT_SENTENCES if about_sentences else ABOUT_ASPECTS


def counterfactual(example: Example) -> Example | None:
    """`example` with its sentence, offsets and label replaced by its twin's; None without a twin."""
    twin = example.twin
    if twin is None:
        return None
    aspect = twin.text[twin.start : twin.end]
    return Example(
        example.id,
        example.sentence_id,
        twin.text,
        aspect,
        twin.start,
        twin.end,
        twin.label,
        example.domain,
    )


def label_ids(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, names: Sequence[str]) -> Labels:
    """The tokens of each label's word as they follow a prompt; `names` are the labels, in order.

    Raises `ModelError` when the word changes how the prompt before it is cut, or two words are one, and for a tokenizer
    without character offsets.
    """
    _check_offsets(tokenizer)
    some = Example("", "", "It is a phone.", "phone", 8, 13, "", "")
    stem, _ = _spans(some, tokenizer, settings)

    texts = [stem, *(stem + settings.separator + word for word in settings.labels)]
    prompt, *answered = (ids for ids, _ in _tokens(texts, tokenizer, settings))
    labels: Labels = {}
    for name, word, answered_ids in zip(names, settings.labels, answered, strict=True):
        if answered_ids[: len(prompt)] != prompt or len(answered_ids) == len(prompt):
            raise ModelError(
                f"label word {word!r}: the tokenizer does not keep it apart from the prompt; "
                "change prompt.separator, prompt.labels or the end of prompt.template"
            )
        labels[name] = tuple(answered_ids[len(prompt) :])
    for first, second in permutations(labels.values(), 2):
        if second[: len(first)] == first:  # it could never have a lower probability
            raise ModelError(f"prompt.labels={settings.labels}: one word's tokens begin (or are) another's")
    return labels


def _check_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ModelError(f"{type(tokenizer).__name__} gives no character offsets; use a fast tokenizer")


def _tokens(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, settings: PromptSettings
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """The tokens of each text, and the characters that each of them stands for.

    What the tokenizer ends every text with (`<eos>`, where it has add_eos_token) is left off: an answer follows.
    """
    encoded = tokenizer(list(texts), add_special_tokens=not settings.chat, return_offsets_mapping=True, verbose=False)
    special = set(tokenizer.all_special_ids)
    for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        end = len(ids)
        while end and ids[end - 1] in special and offsets[end - 1][0] == offsets[end - 1][1]:
            end -= 1
        yield ids[:end], offsets[:end]


def _spans(example: Example, tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> tuple[str, Spans]:
    """The prompt text of one example and the character span of each role in it."""
    text = settings.preamble
    spans: Spans = []
    for piece in _pieces(settings):
        start = len(text)
        text += _piece(piece, example)
        if piece == "{sentence}":
            sentence = start, len(text)
            spans += _sentence_spans(example, start)
        elif piece == "{aspect}":
            spans.append((Role.aspect_again, start, len(text)))
    text, shift = _wrap(text, tokenizer, settings)
    spans = [(role, start + shift, end + shift) for role, start, end in spans]
    before, after = (Role.instruction, 0, sentence[0] + shift), (Role.question, sentence[1] + shift, len(text))
    return text, [*spans, after, before]


def _pieces(settings: PromptSettings) -> list[str]:
    """The template, cut into its places and what stands between them."""
    return re.split(r"(\{sentence\}|\{aspect\})", settings.template)


def _piece(piece: str, example: Example) -> str:
    return {"{sentence}": example.text, "{aspect}": example.aspect}.get(piece, piece)


def _sentence_spans(example: Example, at: int) -> Spans:
    """The roles inside the sentence, which stands at character `at`."""
    end = at + len(example.text)
    if not example.aspect:
        return [(Role.sentence, at, end)]
    start, stop = at + example.start, at + example.end
    return [(Role.before, at, start), (Role.aspect, start, stop), (Role.after, stop, end)]


def _wrap(text: str, tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> tuple[str, int]:
    """`text` inside the chat template, if asked for, and how far that moves it to the right."""
    if not settings.chat:
        return text, 0
    if not tokenizer.chat_template:
        raise ModelError("prompt.chat=true, but the tokenizer has no chat template; use prompt.chat=false")
    turn = [{"role": "user", "content": text}]
    chat_text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    if text not in chat_text:
        raise ModelError("the chat template changes the prompt's text; offsets cannot be kept")
    return chat_text, chat_text.index(text)


def _role(text: str, start: int, end: int, spans: Spans) -> Role:
    """The role of the token at `text[start:end]`; surrounding spaces do not count, unless it is all space."""
    instruction, _, sentence = spans[-1]
    if end <= sentence:  # shots may stand before it, of some hundred tokens
        return instruction
    piece = text[start:end]
    if piece.strip():
        start, end = start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))
    owners = {role for role, first, last in spans if first < end and start < last}
    if not owners:  # a token that stands for no text: the tokenizer's own first one
        return Role.instruction
    owner = next(role for role in OWNER if role in owners)
    if owner in (Role.sentence, Role.before, Role.after) and not any(c.isalnum() for c in piece):
        return Role.punctuation
    return owner
