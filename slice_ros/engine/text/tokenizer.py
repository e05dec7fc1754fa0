# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts to token ids: bounded before any work is done, and safe from forged chat roles."""

from collections.abc import Iterable
from functools import cached_property
import re
import secrets

from jinja2 import TemplateError
from slice_ros.engine.text.vocabulary import Vocabulary
from slice_ros.errors import ErrorCode, RequestError

ROLES = ('system', 'user', 'assistant')
_MARK = re.compile('(\x02[0-9a-f]{32}\x03)')   # replaces a text that has special tokens


class PromptEncoder:
    """Encodes prompts and chats with a Hugging Face tokenizer. Thread-safe.

    Text with more bytes than `max_context` tokens can have is refused by its length alone, so
    that megabytes of text cost nothing.
    """

    def __init__(self, tokenizer, max_context: int) -> None:
        self._tokenizer = tokenizer
        self._max_context = max_context
        vocabulary = tokenizer.get_vocab()
        self._max_bytes = max_context * max((len(t.encode()) for t in vocabulary), default=1)
        self.vocabulary = Vocabulary(tokenizer)
        self._special = list(self.vocabulary.special.values())
        self._special_ids = frozenset(self.vocabulary.special)
        self._backend = getattr(tokenizer, 'backend_tokenizer', None)
        if self._backend is not None:
            self._backend.no_padding()
            self._backend.no_truncation()
            self._backend.encode_special_tokens = False

    def encode(self, prompt: str) -> list[int]:
        """Encode a raw prompt; special tokens in it are encoded as special tokens.

        Raises ``RequestError``: INVALID_REQUEST when it is empty or no Unicode text,
        PROMPT_TOO_LONG when it does not fit the context.
        """
        self._check_text('prompt', prompt)
        if not prompt:
            raise RequestError(ErrorCode.INVALID_REQUEST, 'the prompt is empty')
        self._check_bytes(len(prompt.encode()))
        return self.check_tokens(self.ids(prompt, with_bos=True))

    def encode_chat(self, messages: Iterable[tuple[str, str]]) -> list[int]:
        """Encode (role, content) messages with the chat template, up to the start of the answer.

        A special token written in a content is encoded as text and opens no turn. Raises
        ``RequestError``: INVALID_REQUEST for an unknown role, no message, messages that the
        template refuses (with its own sentence), or a model without template; PROMPT_TOO_LONG.
        """
        chat, literal = self._checked(messages)
        return self.check_tokens(self._ids_with_literals(self._rendered(chat), literal))

    def extend_chat(self, tokens: list[int], prompt_tokens: int,
                    messages: list[tuple[str, str]], new: list[tuple[str, str]]) -> list[int]:
        """Encode `messages` and `new` as `encode_chat` does, but as a continuation of `tokens`.

        `tokens` are a prompt of `prompt_tokens` tokens and its answer; the last of `messages` is
        this answer. Encoding its text again may give other tokens, which no cache has. So
        `tokens` are kept, and the text that the template adds after them is appended. If the
        template does not extend its own earlier text, everything is encoded again. Raises as
        `encode_chat` does.
        """
        chat, literal = self._checked([*messages, *new])
        text, answer = self._rendered(chat), len(messages) - 1
        spoken = self._rendered(chat[:answer]) + chat[answer]['content']
        rest = text[len(spoken):]
        # Text that is cut in front of a special token has the same tokens as the whole.
        if not text.startswith(spoken) or not rest.startswith(tuple(self._special)):
            return self.check_tokens(self._ids_with_literals(text, literal))
        return self.check_tokens([
            *tokens[:prompt_tokens], *self._answer(tokens[prompt_tokens:], messages[answer][1]),
            *self._ids_with_literals(rest, literal)])

    def _answer(self, tokens: list[int], text: str) -> list[int]:
        """Return the tokens of an answer if they decode to `text`, else the tokens of `text`.

        An answer with a special token in mid-text would otherwise forge a turn.
        """
        if tokens and tokens[-1] in self._special_ids:
            tokens = tokens[:-1]  # the stop token: the template adds its own
        if self._special_ids.isdisjoint(tokens) and self.vocabulary.decode(tokens) == text:
            return tokens
        mark = _mark()
        return self._ids_with_literals(mark, {mark: text}) if text else []

    def _checked(self, messages: Iterable[tuple[str, str]]
                 ) -> tuple[list[dict[str, str]], dict[str, str]]:
        """Return the chat, and {mark: content} for each content that has special tokens.

        The mark replaces the content in the chat.
        """
        template = self._tokenizer.get_chat_template() if self._tokenizer.chat_template else None
        if template is None:
            raise RequestError(ErrorCode.INVALID_REQUEST,
                               'this model has no chat template: send a prompt, not messages')
        chat, literal, size = [], {}, 0
        for role, content in messages:
            self._check_text('role', role)
            self._check_text('message content', content)
            # Other roles are allowed if the template names them ('tool' ...).
            known = role in ROLES or role.isidentifier() and (
                f"'{role}'" in template or f'"{role}"' in template)
            if not known:
                raise RequestError(ErrorCode.INVALID_REQUEST,
                                   f'unknown role {role!r:.80}: use {", ".join(ROLES)}')
            size += len(content.encode())
            self._check_bytes(size)
            if any(token in content for token in self._special):
                mark = _mark()
                literal[mark], content = content, mark
            chat.append({'role': role, 'content': content})
        if not any(m['content'].strip() for m in chat):
            raise RequestError(ErrorCode.INVALID_REQUEST, 'the messages are empty')
        return chat, literal

    def _rendered(self, chat: list[dict[str, str]]) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise RequestError(ErrorCode.INVALID_REQUEST,
                               f'the chat template refuses these messages: {error}') from error

    def check_tokens(self, tokens: list[int]) -> list[int]:
        """Return `tokens` if there is at least one, and room in the context for an answer.

        Raises ``RequestError``: INVALID_REQUEST for no token; PROMPT_TOO_LONG.
        """
        if not tokens:
            raise RequestError(ErrorCode.INVALID_REQUEST, 'the prompt holds no token')
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

    @cached_property
    def _plain(self):
        """A copy that encodes special tokens as text. Made on first use: it takes tens of MB."""
        copy = type(self._backend).from_str(self._backend.to_str())
        copy.encode_special_tokens = True
        return copy

    def _ids_with_literals(self, text: str, literal: dict[str, str]) -> list[int]:
        if not literal:
            return self.ids(text)
        if self._backend is None:
            raise RequestError(
                ErrorCode.INVALID_REQUEST, 'a message holds a special token of this model '
                f'(one of {", ".join(self._special[:4])}): leave it out'[:400])
        ids = []
        for piece in _MARK.split(text):  # a template may move a content, or leave it out
            if piece in literal:
                ids += self._plain.encode_batch([literal[piece]], add_special_tokens=False)[0].ids
            elif piece:
                ids += self.ids(piece)
        return ids

    def _check_text(self, what: str, text: object) -> None:
        if not isinstance(text, str):
            raise RequestError(ErrorCode.INVALID_REQUEST,
                               f'the {what} must be text, not {type(text).__name__}')
        # The length first: no other work is done on megabytes.
        self._check_bytes(len(text))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f'the {what} is no Unicode text: a lone surrogate at position {error.start}'
            ) from error

    def _check_bytes(self, size: int) -> None:
        if size > self._max_bytes:
            raise RequestError(
                ErrorCode.PROMPT_TOO_LONG,
                f'the prompt is {size} bytes long, more than the {self._max_context} tokens of '
                f'the context could ever hold ({self._max_bytes} bytes)')


def _mark() -> str:
    return f'\x02{secrets.token_hex(16)}\x03'
