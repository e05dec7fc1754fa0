# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of the tokens of an answer, from their message."""

from dataclasses import dataclass, replace

from slice_ros import msg


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token at one place of an answer, by the model itself."""

    token: int
    logprob: float     # natural logarithm of its probability
    text: str          # with escapes for bytes that are a part of a character
    data: bytes        # its text; those of neighbours may make one character
    special: bool      # the text is a name that no answer has in it
    top: tuple['TokenLogprob', ...] = ()   # of a token of the answer: the likeliest at its place


def logprobs_behind(whole: msg.TokenLogprobs, received: int) -> msg.TokenLogprobs:
    """Return what is behind the first `received` entries."""
    begin = sum(whole.sizes[:received])
    return msg.TokenLogprobs(
        top=whole.top, tokens=whole.tokens[received:], logprobs=whole.logprobs[received:],
        special=whole.special[received:], sizes=whole.sizes[received:],
        texts=whole.texts[begin:])


def token_logprobs(message: msg.TokenLogprobs) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of tokens from their message."""
    if not message.tokens:
        return ()
    texts, entries, at = bytes(message.texts), [], 0
    for token, logprob, special, size in zip(message.tokens, message.logprobs, message.special,
                                             message.sizes):
        data = texts[at:at + size]
        at += size
        entries.append(TokenLogprob(token, logprob, data.decode(errors='backslashreplace'), data,
                                    special))
    each = 1 + message.top
    return tuple(replace(entries[n], top=tuple(entries[n + 1:n + each]))
                 for n in range(0, len(entries), each))
