# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts to token ids: bounded before any work is done, and safe from forged chat roles."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import re
import secrets
from types import MappingProxyType

from slice_ros.engine.text.chat_template import ChatTemplate
from slice_ros.engine.text.special_tokens import SpecialTokens
from slice_ros.engine.text.vocabulary import Vocabulary
from slice_ros.errors import ErrorCode, RequestError

ROLES = ('system', 'user', 'assistant')
_MARK = re.compile('(\x02[0-9a-f]{32}\x03)')   # stands for a text that may have special tokens
# What a template may make a special token with, of a text without the first character of one.
_MAKES_CHARACTERS = re.compile('striptags|decode|format|replace|%c')


@dataclass(frozen=True, slots=True)
class _Message:
    role: str
    content: str
    mark: str = ''  # of a content that may have special tokens

    @property
    def real(self) -> tuple[str, str]:
        return self.role, self.content

    @property
    def marked(self) -> tuple[str, str]:
        """The mark instead of the content; blanks around it stay, for templates that cut them."""
        inner = self.content.strip()
        return self.role, self.content.replace(inner, self.mark, 1) if self.mark else self.content


class PromptEncoder:
    """Encodes prompts and chats with a Hugging Face tokenizer. Thread-safe.

    Text with more bytes than `max_context` tokens can have is refused by its length alone, so
    that megabytes of text cost nothing. `template` is None for a model without one; `arguments`
    are names that it may read.
    """

    def __init__(self, tokenizer, max_context: int,
                 arguments: Mapping[str, object] = MappingProxyType({})) -> None:
        self._tokenizer = tokenizer
        self._max_context = max_context
        names = tokenizer.get_vocab()
        self._max_bytes = max_context * max((len(t.encode()) for t in names), default=1)
        self.vocabulary = Vocabulary(tokenizer)
        self._backend = getattr(tokenizer, 'backend_tokenizer', None)
        if self._backend is not None:
            self._backend.no_padding()
            self._backend.no_truncation()
            self._backend.encode_special_tokens = False
        self._special = SpecialTokens(self.vocabulary, self._backend)
        self.special_texts = tuple(self._special.texts)
        source = _template_of(tokenizer)
        self.template = source if source is None else ChatTemplate(
            source, {**arguments, **tokenizer.special_tokens_map}, self._max_bytes)
        self._makes_characters = bool(source and _MAKES_CHARACTERS.search(source))

    def encode(self, prompt: str) -> list[int]:
        """Encode a raw prompt; special tokens in it are encoded as special tokens.

        Raises ``RequestError``: INVALID_REQUEST when it is empty or no Unicode text,
        PROMPT_TOO_LONG when it does not fit the context.
        """
        self._check_text('prompt', prompt)
        if not prompt:
            raise _invalid('the prompt is empty')
        self._check_bytes(len(prompt.encode()))
        return self.check_tokens(self.ids(prompt, with_bos=True))

    def encode_chat(self, messages: Iterable[tuple[str, str]]) -> list[int]:
        """Encode (role, content) messages with the chat template, up to the start of the answer.

        A special token written in a content is encoded as text and opens no turn. Raises
        ``RequestError``: INVALID_REQUEST for an unknown role, no message, messages that the
        template refuses (with its own sentence) or fails on, or a special token in a content that
        the template alters; PROMPT_TOO_LONG. A model without a template takes one message of a
        user, as `encode` does.
        """
        chat = self._checked(messages)
        if self.template is None:
            return self.encode(chat[0].content)
        return self.check_tokens(self._ids_with_literals(*self._rendered(chat)))

    def extend_chat(self, tokens: list[int], prompt_tokens: int,
                    messages: list[tuple[str, str]], new: list[tuple[str, str]]) -> list[int]:
        """Encode `messages` and `new` as `encode_chat` does, but as a continuation of `tokens`.

        `tokens` are a prompt of `prompt_tokens` tokens and its answer; the last of `messages` is
        this answer. Encoding its text again may give other tokens, which no cache has. So
        `tokens` are kept, and the text that the template adds after them is appended. If the
        template does not extend its own earlier text, everything is encoded again. Raises as
        `encode_chat` does.
        """
        chat, answer = self._checked([*messages, *new]), len(messages) - 1
        text, literal = self._rendered(chat)
        spoken = [message.marked if literal else message.real for message in chat[:answer + 1]]
        spoken = self.template.render(spoken[:-1]) + spoken[-1][1]
        rest = text[len(spoken):]
        # Text that is cut in front of a special token has the same tokens as the whole.
        if not text.startswith(spoken) or not rest.startswith(tuple(self._special.texts)):
            return self.check_tokens(self._ids_with_literals(text, literal))
        return self.check_tokens([
            *tokens[:prompt_tokens], *self._answer(tokens[prompt_tokens:], messages[answer][1]),
            *self._ids_with_literals(rest, literal)])

    def _answer(self, tokens: list[int], text: str) -> list[int]:
        """Return the tokens of an answer if they decode to `text`, else the tokens of `text`.

        An answer with a special token in mid-text would otherwise forge a turn.
        """
        if tokens and tokens[-1] in self._special.ids:
            tokens = tokens[:-1]  # the stop token: the template adds its own
        if self._special.ids.isdisjoint(tokens) and self.vocabulary.decode(tokens) == text:
            return tokens
        return self._plain_ids(text) if text else []

    def _checked(self, messages: Iterable[tuple[str, str]]) -> list[_Message]:
        """Return the messages, each with a mark if it may have special tokens."""
        chat, size = [], 0
        for role, content in messages:
            self._check_text('role', role)
            self._check_text('message content', content)
            # Other roles are allowed if the template names them ('tool' ...).
            known = role in ROLES or role.isidentifier() and self.template is not None and (
                f"'{role}'" in self.template.source or f'"{role}"' in self.template.source)
            if not known:
                raise _invalid(f'unknown role {role!r:.80}: use {", ".join(ROLES)}')
            size += len(content.encode())
            self._check_bytes(size)
            chat.append(_Message(role, content, _mark() if content.strip() else ''))
        if not any(message.mark for message in chat):
            raise _invalid('the messages are empty')
        if self.template is None and [message.role for message in chat] != ['user']:
            raise _invalid(
                'this model has no chat template: send one prompt, not messages, or put '
                'chat_template.jinja into the directory of the model')
        return chat

    def _rendered(self, chat: list[_Message]) -> tuple[str, dict[str, str]]:
        """Return the text of a chat, and {mark: content} for the marks in it.

        It has marks only if the contents must be encoded as text, because a special token would
        be found in them. Then they must stand in the text as they are.
        """
        real = self.template.render([message.real for message in chat])
        if not self._makes_characters and not any(
                self._special.may_be_in(message.content) for message in chat):
            return real, {}
        try:
            marked = self.template.render([message.marked for message in chat])
        except RequestError:
            marked = ''
        special = self._special.found_in
        if special(real) == special(marked) and not any(special(m.content) for m in chat):
            return real, {}
        literal = {message.mark: message.content.strip() for message in chat if message.mark}
        if _MARK.sub(lambda found: literal.get(found[0], found[0]), marked) != real:
            raise _invalid(
                'a message has a special token of this model (one of '
                f'{", ".join(self._special.texts[:4])}), or parts of one, and the chat template '
                'alters it: leave it out'[:400])
        return marked, literal

    def check_tokens(self, tokens: list[int]) -> list[int]:
        """Return `tokens` if there is at least one, and room in the context for an answer.

        Raises ``RequestError``: INVALID_REQUEST for no token; PROMPT_TOO_LONG.
        """
        if not tokens:
            raise _invalid('the prompt holds no token')
        if len(tokens) >= self._max_context:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG,
                f'the prompt is {len(tokens)} tokens long and the context holds '
                f'{self._max_context}: shorten it to at most {self._max_context - 1}')
        return tokens

    def ids(self, text: str, with_bos: bool = False) -> list[int]:
        """Return the tokens of a text of any length; special tokens in it count as such."""
        if self._backend is None:
            return list(self._tokenizer.encode(text, add_special_tokens=with_bos))
        # The batch call releases the interpreter lock while it works.
        return self._backend.encode_batch([text], add_special_tokens=with_bos)[0].ids

    def _ids_with_literals(self, text: str, literal: dict[str, str]) -> list[int]:
        if not literal:
            return self.ids(text)
        ids = []
        for piece in _MARK.split(text):  # a template may move a content, or leave it out
            if piece in literal:
                ids += self._plain_ids(literal[piece])
            elif piece:
                ids += self.ids(piece)
        return ids

    def _plain_ids(self, text: str) -> list[int]:
        ids = self._special.plain_ids(text)
        if ids is None:
            raise _invalid('a message holds a special token of this model (one of '
                           f'{", ".join(self._special.texts[:4])}): leave it out'[:400])
        return ids

    def _check_text(self, what: str, text: object) -> None:
        if not isinstance(text, str):
            raise _invalid(f'the {what} must be text, not {type(text).__name__}')
        # The length first: no other work is done on megabytes.
        self._check_bytes(len(text))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _invalid(f'the {what} is no Unicode text: a lone surrogate at position '
                           f'{error.start}') from error

    def _check_bytes(self, size: int) -> None:
        if size > self._max_bytes:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG,
                f'the prompt is {size} bytes long, more than the {self._max_context} tokens of '
                f'the context could ever hold ({self._max_bytes} bytes)')


def _mark() -> str:
    return f'\x02{secrets.token_hex(16)}\x03'


def _template_of(tokenizer) -> str | None:
    try:
        source = tokenizer.get_chat_template() if tokenizer.chat_template else None
    except ValueError:  # it has several, and none is the default
        return None
    return source if isinstance(source, str) else None


def _invalid(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)
