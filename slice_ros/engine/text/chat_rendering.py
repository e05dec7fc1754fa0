# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Chats as text in which no special token comes from a caller."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import json
import re
import secrets

from slice_ros.engine.chat_options import ChatOptions
from slice_ros.engine.config import Message, template_arguments
from slice_ros.engine.text.chat_template import ChatTemplate
from slice_ros.engine.text.reasoning.think_tags import ThinkTags
from slice_ros.engine.text.special_tokens import SpecialTokens
from slice_ros.engine.text.tools.tool_prompts import neutral, plain
from slice_ros.errors import ErrorCode, RequestError

MARK = re.compile('(\x02[0-9a-f]{32}\x03)')   # stands for a text that may have special tokens
# What a template may make a special token with, of a text without the first character of one.
_MAKES_CHARACTERS = re.compile('striptags|decode|format|replace|%c')


@dataclass(frozen=True, slots=True)
class MarkedMessage:
    """A message, and what may stand for its content."""

    real: Message
    mark: str  # of a content that may have special tokens; '' for none but blanks

    @classmethod
    def of(cls, message: Message) -> 'MarkedMessage':
        """Return a message with a mark that nobody can foresee."""
        return cls(message, f'\x02{secrets.token_hex(16)}\x03' if message.content.strip() else '')

    @property
    def content(self) -> str:
        return self.real.content

    @property
    def marked(self) -> Message:
        """The mark instead of the content; blanks around it stay, for templates that cut them."""
        if not self.mark:
            return self.real
        return self.real._replace(
            content=self.content.replace(self.content.strip(), self.mark, 1))


class ChatRendering:
    """Renders chats with a template, and finds the special tokens of callers. Thread-safe.

    `tags` are those of the model's thoughts, None where it has none; `taken` are names of the
    template that are not the caller's.
    """

    def __init__(self, template: ChatTemplate, special: SpecialTokens, tags: ThinkTags | None,
                 taken: Iterable[str]) -> None:
        self._template, self._special, self._tags = template, special, tags
        self._taken = frozenset(taken)
        self._makes_characters = bool(_MAKES_CHARACTERS.search(template.source))

    def render(self, messages: list[Message], tools: list[dict], options: ChatOptions) -> str:
        """Return the text of messages up to where the model goes on, in a thought or behind one.

        Raises as `PromptEncoder.encode_chat` does.
        """
        return self._render(messages, tools, options, template_arguments(options.arguments))

    def _render(self, messages: list[Message], tools: list[dict], options: ChatOptions,
                given: Mapping[str, object]) -> str:
        arguments = {**template_arguments(options.defaults), **given}
        if self._tags is None:
            return self._template.render(messages, tools, arguments)
        return self._tags.completed(self._template.render(
            messages, tools, {**arguments, **self._tags.arguments(options.reasoning)}),
            options.reasoning)

    def rendered(self, chat: list[MarkedMessage], tools: list[dict], options: ChatOptions
                 ) -> tuple[str, dict[str, str]]:
        """Return the text of a chat, and {mark: content} for the marks in it.

        It has marks only if the contents must be encoded as text, because a special token would
        be found in them. Then they must stand in the text as they are. `tools` are those that the
        template shows. Raises as `PromptEncoder.encode_chat` does.
        """
        special = self._special.found_in
        reals = [message.real for message in chat]
        real = self.render(reals, tools, options)
        self._check_tools(reals, tools, options, real)
        self._check_arguments(reals, tools, options, real)
        if not self._makes_characters and not any(
                self._special.may_be_in(message.content) for message in chat):
            return real, {}
        try:
            marked = self.render([message.marked for message in chat], tools, options)
        except RequestError:
            marked = ''
        if special(real) == special(marked) and not any(special(m.content) for m in chat):
            return real, {}
        literal = {message.mark: message.content.strip() for message in chat if message.mark}
        if MARK.sub(lambda found: literal.get(found[0], found[0]), marked) != real:
            raise _invalid(
                'a message has a special token of this model (one of '
                f'{", ".join(self._special.texts[:4])}), or parts of one, and the chat template '
                'alters it: leave it out'[:400])
        return marked, literal

    def _check_arguments(self, messages: list[Message], tools: list[dict], options: ChatOptions,
                         text: str) -> None:
        """Raise `RequestError` for arguments that are not read, or put special tokens in text."""
        if not options.arguments:
            return
        arguments = template_arguments(options.arguments)
        for name in arguments:
            if name in self._taken or not re.search(rf'\b{name}\b', self._template.source):
                raise _invalid(f'template_arguments has the name {name!r:.80}, which the chat '
                               'template of this model does not read, or has from the node: leave '
                               'it out')
        if self._makes_characters or self._special.may_be_in(
                json.dumps(arguments, ensure_ascii=False)):
            harmless = self._render(messages, tools, options, plain(arguments))
            if self._special.found_in(text) != self._special.found_in(harmless):
                raise _invalid('template_arguments have a special token of this model: leave it '
                               'out')

    def _check_tools(self, messages: list[Message], tools: list[dict], options: ChatOptions,
                     text: str) -> None:
        """Raise `RequestError` where tools or calls put a special token into a `text`."""
        calls = [message.tool_calls for message in messages if message.tool_calls]
        if not tools and not calls:
            return
        special = self._special
        if self._makes_characters or special.may_be_in(
                json.dumps([tools, calls], ensure_ascii=False)):
            harmless = self.render(*neutral(messages, tools), options)
            if special.found_in(text) != special.found_in(harmless):
                raise _invalid('the tools, or calls of them, have a special token of this model: '
                               'leave it out')


def _invalid(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)
