# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tokens of a step become those of their sequences: thought, text, and where they end."""

from collections.abc import Iterable, Iterator, Sequence
import time

from slice_ros.engine.sequence import Output, TokenSequence
from slice_ros.engine.text.choice import NO_TOKEN
from slice_ros.engine.text.reasoning.thought import Thought
from slice_ros.engine.text.sampling import Ranked
from slice_ros.errors import ErrorCode, RequestError
from slice_ros.request import MAX_FORCED

MAX_JUMP_S = 5e-3  # processor time after which a jump ends; a token takes about 0.1 ms of it


def append_token(sequence: TokenSequence, row: tuple[int, Ranked | None],
                 stop_tokens: frozenset[int], max_context: int) -> Output:
    """Add a token, which the request counts already; return the text that it releases.

    While the model thinks, another token may follow than was sampled. A stop token, and what a
    stop text cuts off, has no log-probability.
    """
    (token, ranked), thought, logprobs = row, sequence.thought, sequence.logprobs
    if logprobs is not None:
        logprobs.expect(ranked)
    if thought is not None:
        token = thought.take(token, stop_tokens)
    sequence.tokens.append(token)
    sequence.sampler.accept(token)
    early = []   # tokens before it that could have been the start tag of a thought
    if thought is not None:
        if (output := _append_thought(sequence, thought, token, max_context)) is not None:
            if logprobs is not None and not thought.early:
                logprobs.forget()
            return output
        sequence.request.answer()
        early, thought.early = thought.early[:-1], []
    stopped = token in stop_tokens
    ended = _is_full(sequence, max_context)
    if sequence.constraint is not None:
        return _append_constrained(sequence, token, stopped, ended)
    text, found = '', False
    for pushed in early if stopped else [*early, token]:
        released, found = sequence.detokenizer.push(pushed)
        text += released
        if logprobs is not None:
            logprobs.push(len(released), sequence.detokenizer.withheld)
        if found:
            break
    if found:
        sequence.finish_reason = 'stop'
    elif stopped or ended:
        sequence.finish_reason = 'stop' if stopped else 'length'
        text += sequence.detokenizer.flush()
    ranks = () if logprobs is None else logprobs.take(found, sequence.finish_reason is not None)
    if thought is not None:
        before, text = text, thought.without_blanks(text)
        ranks = ranks if text or not before else ()
    sequence.pieces.append(text)
    return Output(sequence, token, sequence.generated, text, sequence.finish_reason,
                  logprobs=ranks)


def _append_thought(sequence: TokenSequence, thought: Thought, token: int, max_context: int
                    ) -> Output | None:
    """Return the output of a token of the thought; None for one of the answer."""
    request = sequence.request
    if not thought.taken and not thought.early:
        return None   # the answer has begun before
    if not thought.early:
        request.think()
    if thought.over:   # what the thought has left is not the answer's
        unused = thought.room - request.thought
        sequence.limit -= unused
        request.max_tokens -= unused
        if thought.taken:
            sequence.constraint = thought.then
    elif thought.inside:
        sequence.constraint = None   # until it is over
    ended = _is_full(sequence, max_context)
    if not thought.taken or ended and thought.early:
        thought.over = True
        return None
    if ended:
        sequence.finish_reason = 'length' if thought.then is None else 'error'
    error = None if thought.then is None or not ended else _incomplete(
        sequence, thought.then.form)
    sequence.pieces.append('')
    return Output(sequence, token, sequence.generated, '', sequence.finish_reason, error,
                  thought.piece)


def _is_full(sequence: TokenSequence, max_context: int) -> bool:
    return (len(sequence.tokens) >= max_context
            or sequence.request.generated >= sequence.limit)


def append_confirmed(sequence: TokenSequence, draft: Sequence[int],
                     rows: Iterable[tuple[int, Ranked | None]],
                     stop_tokens: frozenset[int], max_context: int) -> Iterator[Output]:
    """Add the tokens of those rows that follow right guesses: rows[i] is behind draft[i].

    They are what steps of their own would have given. What was computed behind a wrong guess is
    written over by the next step.
    """
    sequence.request.drafted += len(draft)
    for guess, row in zip(draft, rows):
        if sequence.finish_reason:
            return
        right = sequence.tokens[-1] == guess and row[0] != NO_TOKEN
        sequence.request.look_at(right)
        if not right:
            return
        yield append_token(sequence, row, stop_tokens, max_context)


def lead_answer(sequence: TokenSequence, max_context: int) -> None:
    """Give a new sequence the tokens that its answer must begin with.

    They are fed behind the prompt, so that the first token that is sampled is the first that could
    be another. `append_lead` gives them out.
    """
    if (sequence.constraint is None or sequence.thought is not None
            or sequence.logprobs is not None):
        return
    room = min(MAX_FORCED, sequence.limit - 1, max_context - len(sequence.tokens) - 1)
    sequence.lead = sequence.constraint.lead(room, MAX_JUMP_S)
    sequence.request.lead = len(sequence.lead)
    for token, _ in sequence.lead:
        sequence.tokens.append(token)
        sequence.sampler.skip()
        sequence.sampler.accept(token)


def append_lead(sequence: TokenSequence) -> Iterator[Output]:
    """Give out the tokens that an answer begins with; its request counts them as generated."""
    lead, sequence.lead = sequence.lead, ()
    for number, (token, text) in enumerate(lead, 1):
        sequence.pieces.append(text)
        yield Output(sequence, token, number, text, None)


def append_forced(sequence: TokenSequence, stop_tokens: frozenset[int], max_context: int
                  ) -> Iterator[Output]:
    """Add the tokens that follow the last one because its format, or its thought, allows no other.

    Sampling would choose them: only the steps of their own are left out (jump-forward).
    """
    began = time.thread_time()
    for _ in range(MAX_FORCED if sequence.jumps else 0):
        if sequence.finish_reason or time.thread_time() - began > MAX_JUMP_S:
            return
        token = sequence.forced()
        if token is None:
            return
        sequence.request.jump()
        sequence.sampler.skip()
        yield append_token(sequence, (token, None), stop_tokens, max_context)


def _append_constrained(sequence: TokenSequence, token: int, stopped: bool, ended: bool) -> Output:
    answer, text, error = sequence.constraint, '', None
    stopped = stopped and not answer.error
    if not stopped:
        text = answer.accept(token)
    if answer.error:
        sequence.finish_reason = 'error'
        error = RequestError(
            ErrorCode.INVALID_REQUEST,
            f'{answer.form}: the answer cannot go on in it: {answer.error}')
    elif stopped or answer.over:
        sequence.finish_reason = 'stop'
    elif ended:
        sequence.finish_reason = 'length' if answer.complete else 'error'
        if not answer.complete:
            error = _incomplete(sequence, answer.form)
    text += answer.flush() if sequence.finish_reason else ''
    sequence.pieces.append(text)
    ranks = ()
    if (logprobs := sequence.logprobs) is not None:
        if not stopped and not answer.error:
            logprobs.push()
        ranks = logprobs.take(ended=True)   # no stop text can cut them off
    return Output(sequence, token, sequence.generated, text, sequence.finish_reason, error,
                  logprobs=ranks)


def _incomplete(sequence: TokenSequence, form: str) -> RequestError:
    return RequestError(
        ErrorCode.FORMAT_INCOMPLETE, f'the answer was not whole in its {form} after '
        f'{sequence.generated} tokens: raise max_tokens, or ask for less')
