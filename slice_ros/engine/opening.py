# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Requests become sequences: what they ask for is checked, and made ready for their steps."""

from collections.abc import Iterable, Sequence

from slice_ros.engine.appending import lead_answer
from slice_ros.engine.chat_options import ChatOptions
from slice_ros.engine.config import EngineInfo, ResponseFormat, Sampling
from slice_ros.engine.logprobs import AnswerLogprobs, TokenTexts
from slice_ros.engine.pooling import Pooling
from slice_ros.engine.runners.runner import NO_ADAPTER
from slice_ros.engine.sequence import TokenSequence
from slice_ros.engine.text.detokenizer import checked_stops, Detokenizer
from slice_ros.engine.text.grammar import Grammars
from slice_ros.engine.text.prompt_lookup import PromptLookup
from slice_ros.engine.text.reasoning.thought import thinking_of
from slice_ros.engine.text.sampling import Sampler
from slice_ros.engine.text.tokenizer import PromptEncoder
from slice_ros.engine.vision.image_tokens import (
    IMAGE_TOKENS, joined_spans, key_and_row, placed_images, SeenImage)
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import Request
from slice_ros.slo import SloClass

_NO_OBJECTIVES = SloClass('none')


class Opener:
    """Opens sequences, in any thread. With `verifies`, they guess their next tokens.

    `jump_forward` is whether their forced tokens take no step: a benchmark compares with False.
    """

    def __init__(self, encoder: PromptEncoder, grammars: Grammars, info: EngineInfo,
                 verifies: bool) -> None:
        self._encoder, self._grammars, self._info = encoder, grammars, info
        self._verifies, self.jump_forward = verifies, True
        self._texts = TokenTexts(encoder.vocabulary)
        self._thinking = thinking_of(
            encoder, min(info.max_context, info.kv_tokens), info.vocab_size)

    def open(self, tokens: list[int], max_tokens: int, sampling: Sampling,
             stop: Iterable[str] = (), response_format: ResponseFormat | None = None,
             request: Request | None = None, adapter: str = '',
             images: Sequence[SeenImage] = (), options: ChatOptions | None = None
             ) -> TokenSequence:
        """Return a sequence that continues `tokens`; it takes no KV cache before its first step.

        Its progress is counted in `request`, or in one of its own where none is given; `adapter`
        is the name of one of the engine's, '' for none; `images` are those of the prompt. With
        `options`, those that the prompt was rendered with, the model may think first: its
        `max_tokens` are those of the answer, and the request counts the thought besides. Without,
        all is the answer. Raises ``RequestError``: INVALID_REQUEST when there is no token, a token
        is not of the vocabulary or of an image, `max_tokens` is below 1, there is no such adapter,
        a stop string, the response format or a tool is unusable, or a stop string is given with
        one of these; PROMPT_TOO_LONG. Raises ``ValueError`` when `request` has another number of
        prompt tokens.
        """
        tokens = list(self._encoder.check_tokens(tokens))
        seen = {image.key: image for image in images}
        words = _without_rows(tokens, seen) if seen else tokens
        if min(words, default=0) < 0 or max(words, default=0) >= self._info.vocab_size:
            raise _invalid(f'token ids must be from 0 to {self._info.vocab_size - 1}')
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise _invalid(
                f'max_tokens must be a whole number of at least 1, not {max_tokens!r:.80}')
        for token, _ in sampling.logit_bias:
            if token >= self._info.vocab_size:
                raise _invalid(f'logit_bias names the token {token}: the model has '
                               f'{self._info.vocab_size}')
        number = self._adapter(adapter)
        stop = checked_stops(stop)
        constraint = self._grammars.compile(response_format or ResponseFormat())
        if constraint is not None and stop:
            raise _invalid('stop strings could cut an answer out of its response_format, or a '
                           'tool call: leave either out')
        detokenizer = Detokenizer(self._encoder.vocabulary, stop)
        if request is None:
            request = Request('', _NO_OBJECTIVES, 0.0, len(tokens), max_tokens)
        elif request.prompt_tokens != len(tokens):
            raise ValueError(f'request {request.id} counts {request.prompt_tokens} prompt tokens, '
                             f'not {len(tokens)}')
        lookup = PromptLookup(tokens) if self._verifies and max_tokens > 1 else None
        thought = None
        if options is not None and self._thinking is not None:
            thought = self._thinking.begin(tokens, max_tokens, options, constraint)
        room = thought.room if thought else 0
        request.max_tokens += room
        if thought is not None and thought.inside:
            constraint = None   # until it is over
        logprobs = (None if sampling.logprobs is None
                    else AnswerLogprobs(sampling.logprobs, self._texts))
        sequence = TokenSequence(request, tokens, max_tokens + room, Sampler(sampling, words),
                                 detokenizer, constraint, lookup, adapter=number, images=seen,
                                 placed=placed_images(tokens, seen) if seen else (),
                                 joined=joined_spans(tokens, seen) if seen else (),
                                 thought=thought, logprobs=logprobs, jumps=self.jump_forward)
        if sequence.jumps:
            lead_answer(sequence, self._info.max_context)
        return sequence

    def thought_tokens(self, tokens: list[int], max_tokens: int, options: ChatOptions) -> int:
        """Return how many tokens a thought behind a prompt may have beside `max_tokens`."""
        thought = None if self._thinking is None else self._thinking.begin(
            tokens, max_tokens, options, None)
        return thought.room if thought else 0

    def _adapter(self, name: str) -> int:
        known = self._info.adapters
        if name and name not in known:
            raise _invalid(f'there is no adapter {name!r:.80}: ' + (
                f'choose one of {", ".join(known)}' if known else 'engine.adapters names none'))
        return known.index(name) if name else NO_ADAPTER

    def open_embedding(self, tokens: list[int], pooling: Pooling, request: Request
                       ) -> TokenSequence:
        """Return a sequence after whose end `pooling` has the embedding of `tokens`.

        It ends with the step that feeds its last token. Raises ``RequestError`` INVALID_REQUEST
        where the runner makes no embeddings, and as `open` does.
        """
        if not self._info.hidden:
            raise _invalid('no embeddings can be made with this model: it runs through '
                           'transformers or vLLM, see docs/models.md')
        sequence = self.open(tokens, 1, Sampling(), request=request)
        sequence.pooling = pooling
        return sequence


def _without_rows(tokens: list[int], seen: dict[int, SeenImage]) -> list[int]:
    """Return tokens without those that stand for rows of images, all of which must be known."""
    words, lengths = [], {key: image.length for key, image in seen.items()}
    for token in tokens:
        if token < IMAGE_TOKENS:
            words.append(token)
            continue
        key, row = key_and_row(token)
        if row >= lengths.get(key, 0):
            raise _invalid('a token stands for an image that is not given')
    return words


def _invalid(message: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, message)
