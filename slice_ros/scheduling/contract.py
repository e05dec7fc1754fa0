# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Call a policy and check its answer, so that a fault of a policy is reported with its name."""

from collections.abc import Sequence

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.prediction import Prediction


class PolicyError(Exception):
    """A policy has broken its contract; the message is a sentence with the policy's name."""


def plan_step(policy: Policy, now: float, requests: Sequence[Request],
              latency: LatencyModel) -> Step:
    """Return what `policy` plans, unchecked. Raises `PolicyError` when the policy raises."""
    try:
        return policy.plan(now, requests, latency)
    except Exception as error:
        raise _raised(policy, error) from error


def check_step(policy: Policy, step: Step, requests: Sequence[Request]) -> None:
    """Check the `step` that `policy` returned for the live `requests`.

    Raises `PolicyError` when it is no `Step`, names a request that is not live or names one
    twice, decodes one that is not ready, prefills one that is decoding or a number of tokens
    outside ``1 .. pending``, exceeds the capacity (batch, slots, KV tokens, prefill chunk), does
    nothing although a request could run, or when ``wake_at`` is no number.
    """
    if not isinstance(step, Step):
        raise PolicyError(f'policy {policy.name} returned {step!r:.80}, which is no Step')
    try:
        fault = (_fault(step, policy.capacity.max_batch, set(requests))
                 or _over_capacity(step, policy.capacity, requests))
    except (AttributeError, TypeError) as error:
        fault = f'returned a step with a field of the wrong type ({error})'
    if fault:
        raise PolicyError(f'policy {policy.name} {fault}')


def ask_prediction(policy: Policy, now: float, request: Request, live: Sequence[Request],
                   latency: LatencyModel) -> Prediction | None:
    """Return what `policy` predicts, or None if it cannot be asked while it plans.

    Raises `PolicyError` when the policy raises, or returns anything else.
    """
    try:
        prediction = policy.predict(now, request, live, latency)
    except Exception as error:
        raise _raised(policy, error) from error
    if not (prediction is None or isinstance(prediction, Prediction)):
        raise PolicyError(
            f'policy {policy.name} predicted {prediction!r:.80}, which is no Prediction')
    return prediction


def _raised(policy: Policy, error: Exception) -> PolicyError:
    return PolicyError(f'policy {policy.name} raised {type(error).__name__}: {error}')


def _fault(step: Step, max_batch: int, live: set[Request]) -> str:
    """Return what is wrong with `step`, or an empty string."""
    decode, prefill, others = step.decode, step.prefill, step.evict + step.drop
    if not (isinstance(decode, tuple) and isinstance(prefill, tuple)):
        return 'returned a step whose decode or prefill is not a tuple'
    if len(decode) > max_batch:
        return f'decodes {len(decode)} requests, over {max_batch}'
    named = {*decode, *others}
    for request in decode:
        if not request.ready:
            return _not_ready(request, live)
    for chunk in prefill:
        if not isinstance(chunk, PrefillChunk):
            return f'prefills {chunk!r:.80}, which is no PrefillChunk'
        request, tokens = chunk.request, chunk.tokens
        if request not in live:
            return _not_live(request)
        if request.decoding:
            return f'prefills {request.id}, which is decoding'
        if not (isinstance(tokens, int) and 1 <= tokens <= request.pending):
            return f'feeds {tokens!r:.80} of {request.pending} tokens of {request.id}'
        named.add(request)
    if not named <= live:
        return _not_live(next(iter(named - live)))
    if len(named) != len(decode) + len(prefill) + len(others):
        return 'names a request twice in one step'
    wake_at = step.wake_at
    if wake_at is not None and not (isinstance(wake_at, (int, float)) and wake_at == wake_at):
        return f'returned a step with wake_at={wake_at!r:.80}, which is no number'
    return ''


def _over_capacity(step: Step, capacity: Capacity, requests: Sequence[Request]) -> str:
    """Return which capacity the step exceeds, or that it is idle for no reason."""
    cached = [request.cached for request in requests if request.cached]
    slots, tokens, fed = len(cached), sum(cached), 0
    for request in step.evict + step.drop:
        slots -= request.cached > 0
        tokens -= request.cached
    for chunk in step.prefill:
        slots += not chunk.request.cached
        fed += chunk.tokens
    tokens += len(step.decode) + fed
    if fed > capacity.prefill_chunk:
        return f'prefills {fed} tokens, over {capacity.prefill_chunk}'
    if slots > capacity.slots:
        return f'uses {slots} KV slots, over {capacity.slots}'
    if tokens > capacity.kv_tokens:
        return f'uses {tokens} tokens of KV cache, over {capacity.kv_tokens}'
    if (step.idle and step.wake_at is None and not (step.drop or step.evict)
            and not any(request.gated for request in requests)):
        return f'does nothing, and {len(requests)} requests wait for it'
    return ''


def _not_ready(request: Request, live: set[Request]) -> str:
    if request not in live:
        return _not_live(request)
    if not request.decoding:
        return f'decodes {request.id} before its prefill'
    return f'decodes {request.id}, which rate control has gated'


def _not_live(request: Request) -> str:
    return f'names {request.id}, which is not live ({request.state.value})'
