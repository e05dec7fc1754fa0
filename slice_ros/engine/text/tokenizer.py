# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts to token ids: bounded before any work is done, and safe from forged chat roles."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from slice_ros.engine.chat_options import ChatOptions
from slice_ros.engine.config import Message, Tool
from slice_ros.engine.text.chat_rendering import ChatRendering, MARK, MarkedMessage
from slice_ros.engine.text.chat_template import ChatTemplate
from slice_ros.engine.text.reasoning.think_tags import find_tags
from slice_ros.engine.text.special_tokens import SpecialTokens
from slice_ros.engine.text.tools.syntaxes import choose_syntax
from slice_ros.engine.text.tools.tool_prompts import dressed
from slice_ros.engine.text.tools.tool_schemas import check_calls, check_tools
from slice_ros.engine.text.vocabulary import Vocabulary
from slice_ros.errors import ErrorCode, RequestError

NO_OPTIONS = ChatOptions()
ROLES = ('system', 'user', 'assistant', 'tool')


class PromptEncoder:
    """Encodes prompts and chats with a Hugging Face tokenizer. Thread-safe.

    Text with more bytes than `max_context` tokens can have is refused by its length alone.
    `template` is None for a model without one; `arguments` are names that it may read. `syntax` is
    how the model calls tools: of TOOL_SYNTAXES at first, then as it was found; `tags` are those of
    its thoughts, None where it has none. With an `image_token`, which the template writes for
    each, messages may have images; `spaced` returns its text with what stands around these.
    """

    def __init__(self, tokenizer, max_context: int,
                 arguments: Mapping[str, object] = MappingProxyType({}),
                 syntax: str = 'auto', image_token: int | None = None,
                 spaced: Callable[[str], str] = str) -> None:
        self._tokenizer, self._image_token, self._spaced = tokenizer, image_token, spaced
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
        self.syntax = choose_syntax(source, syntax)
        self.template = source if source is None else ChatTemplate(
            source, {**arguments, **tokenizer.special_tokens_map}, self._max_bytes,
            image_token is not None)
        self.tags = find_tags(source, names)
        self._rendering = None if self.template is None else ChatRendering(
            self.template, self._special, self.tags, tokenizer.special_tokens_map)

    def encode(self, prompt: str) -> list[int]:
        """Encode a raw prompt; special tokens in it are encoded as special tokens.

        One that begins with the token of the beginning already gets no second one.
        Raises ``RequestError``: INVALID_REQUEST when it is empty or no Unicode text,
        PROMPT_TOO_LONG when it does not fit the context.
        """
        self._check_text('prompt', prompt)
        if not prompt:
            raise _invalid('the prompt is empty')
        self._check_bytes(len(prompt.encode()))
        ids = self.ids(prompt, with_bos=True)
        twice = ids[:1] == ids[1:2] and self._special.begins(prompt, ids[0])
        return self.check_tokens(ids[1:] if twice else ids)

    def encode_chat(self, messages: Iterable[Message | tuple[str, str]],
                    tools: Sequence[Tool] = (), options: ChatOptions = NO_OPTIONS) -> list[int]:
        """Encode messages with the chat template, up to where the model goes on.

        `tools` are those that the answer may call. A special token written in a content is encoded
        as text and opens no turn. Raises ``RequestError``: INVALID_REQUEST for an unknown role, no
        message, messages that the template refuses (with its own sentence) or fails on, a special
        token in a content that the template alters, or in tools and calls, and for tools, calls
        and results that `tool_schemas` refuses, reasoning that the model has not, and template
        arguments that the template does not read; PROMPT_TOO_LONG. A model without a template
        takes one message of a user, as `encode` does.
        """
        chat, shown = self._checked(messages, tools)
        if options.reasoning == 'on' and self.tags is None:
            raise _invalid('reasoning is on, but this model has no thoughts that could be '
                           'parted from answers: leave it out')
        if self.template is None:
            return self.encode(chat[0].content)
        ids = self._ids_with_literals(*self._rendering.rendered(chat, shown, options))
        return self.check_tokens(self._with_images(ids, chat))

    def extend_chat(self, tokens: list[int], prompt_tokens: int,
                    messages: list[Message | tuple[str, str]],
                    new: list[Message | tuple[str, str]], tools: Sequence[Tool] = (),
                    options: ChatOptions = NO_OPTIONS) -> list[int]:
        """Encode `messages` and `new` as `encode_chat` does, but as a continuation of `tokens`.

        `tokens` are a prompt of `prompt_tokens` tokens, made with the same `tools` and `options`,
        and its answer, of which a thought is left out; the last of `messages` is this answer.
        Encoding its text again may give other tokens, which no cache has. So `tokens` are kept,
        and the text that the template adds after them is appended. If the template does not extend
        its own earlier text, everything is encoded again. Raises as `encode_chat` does.
        """
        chat, shown = self._checked([*messages, *new], tools)
        text, literal = self._rendering.rendered(chat, shown, options)
        answer = len(self._dressed(messages, tools)[0]) - 1
        spoken = [message.marked if literal else message.real for message in chat[:answer + 1]]
        last, calls = chat[answer].real, chat[answer].real.tool_calls
        spoken = self._rendering.render(spoken[:-1], shown, options) + self.syntax.said(
            spoken[-1].content, calls)
        rest = text[len(spoken):]
        # Text that is cut in front of a special token has the same tokens as the whole.
        if (not text.startswith(spoken) or not rest.startswith(tuple(self._special.texts))
                or self._special.found_in(self.syntax.said('', calls))):
            return self.check_tokens(
                self._with_images(self._ids_with_literals(text, literal), chat))
        said = self._answer(tokens[prompt_tokens:], self.syntax.said(last.content, calls))
        later = self._with_images(self._ids_with_literals(rest, literal), chat[answer + 1:])
        return self.check_tokens([*tokens[:prompt_tokens], *said, *later])

    def _with_images(self, ids: list[int], chat: list[MarkedMessage]) -> list[int]:
        """Return ids in which each image token is what stands for the next image of `chat`."""
        images = [image for message in chat for image in message.real.images]
        if not images:
            return ids
        places = [at for at, token in enumerate(ids) if token == self._image_token]
        if len(places) != len(images):
            raise _invalid(f'the chat template has a place for {len(places)} of {len(images)} '
                           'images: leave out the others')
        made, begin = [], 0
        for at, image in zip(places, images):
            made += [*ids[begin:at], *image.ids]
            begin = at + 1
        return made + ids[begin:]

    def _answer(self, tokens: list[int], text: str) -> list[int]:
        """Return the tokens of an answer if they decode to `text`, else the tokens of `text`.

        An answer with a special token in mid-text would otherwise forge a turn.
        """
        if tokens and tokens[-1] in self._special.ids:
            tokens = tokens[:-1]  # the stop token: the template adds its own
        if self._special.ids.isdisjoint(tokens) and self.vocabulary.decode(tokens) == text:
            return tokens
        return self._plain_ids(text) if text else []

    def _checked(self, messages: Iterable[Message | tuple[str, str]], tools: Sequence[Tool]
                 ) -> tuple[list[MarkedMessage], list[dict]]:
        """Return messages for the template, with marks, and the tools that it shows itself."""
        given, size = [], 0
        for message in messages:
            message = Message(*message)
            self._check_text('role', message.role)
            self._check_text('message content', message.content)
            # Other roles are allowed if the template names them ('ipython' ...).
            known = message.role in ROLES or (
                message.role.isidentifier() and self.template is not None and (
                    f"'{message.role}'" in self.template.source
                    or f'"{message.role}"' in self.template.source))
            if not known:
                raise _invalid(f'unknown role {message.role!r:.80}: use {", ".join(ROLES)}')
            size += len(message.content.encode())
            size += sum(len(call.arguments) for call in message.tool_calls)
            self._check_bytes(size)
            given.append(message)
        check_calls(given)
        check_tools(tools)
        made, shown = self._dressed(given, tools)
        if not any(message.content.strip() or message.images for message in given):
            raise _invalid('the messages are empty')
        if self._image_token is None and any(message.images for message in given):
            raise _invalid('this model sees no images: docs/images.md has those that do')
        if self.template is None and ([message.role for message in made] != ['user']
                                      or made[0].images):
            raise _invalid(
                'this model has no chat template: send one prompt, not messages or tools, or name '
                'a file of one in engine.chat_template')
        return [MarkedMessage.of(message) for message in made], shown

    def _dressed(self, messages: Iterable[Message | tuple[str, str]], tools: Sequence[Tool]
                 ) -> tuple[list[Message], list[dict]]:
        return dressed([Message(*message) for message in messages], tools, self.syntax,
                       self.template.source if self.template else '')

    def refuse_images(self) -> None:
        """Refuse messages with images from now on."""
        self._image_token = None

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
        text = self._spaced(text)   # contents with special tokens are marks in it
        if not literal:
            return self.ids(text)
        ids = []
        for piece in MARK.split(text):  # a template may move a content, or leave it out
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


def _template_of(tokenizer) -> str | None:
    try:
        source = tokenizer.get_chat_template() if tokenizer.chat_template else None
    except ValueError:  # it has several, and none is the default
        return None
    return source if isinstance(source, str) else None


def _invalid(sentence: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, sentence)
