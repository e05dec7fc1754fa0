# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Call a policy and check its answer, so that a fault of a policy is reported with its name."""

from collections.abc import Sequence
import math

from slice_ros.request import Request
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.prediction import Prediction

# What a policy may raise: `sys.exit` in another package must not end a thread of the node.
FAULTS = (Exception, SystemExit, GeneratorExit)


class PolicyError(Exception):
    """A policy has broken its contract; the message is a sentence with the policy's name."""


def plan_step(policy: Policy, now: float, requests: Sequence[Request],
              latency: LatencyModel) -> Step:
    """Return what `policy` plans, unchecked. Raises `PolicyError` when the policy raises."""
    try:
        return policy.plan(now, requests, latency)
    except FAULTS as error:
        raise raised(policy, error) from error


def check_step(policy: Policy, step: Step, requests: Sequence[Request]) -> None:
    """Check the `step` that `policy` returned for the live `requests`.

    Raises `PolicyError` when it is no `Step`, names a request that is not live or names one
    twice, decodes one that is not ready, prefills one that is decoding or a number of tokens
    outside ``1 .. pending``, decodes more than ``max_batch``, or when ``wake_at`` is no number.
    """
    try:
        if isinstance(step, Step):
            fault = _fault(step, policy.capacity.max_batch, set(requests))
        else:
            fault = f'returned {step!r:.80}, which is no Step'
    except FAULTS as error:   # whatever a field of it does when it is looked at
        fault = f'returned a step with a field of the wrong type ({_text(error)})'
    if fault:
        raise PolicyError(f'policy {policy.name} {fault}')


def check_capacity(policy: Policy, step: Step, requests: Sequence[Request]) -> None:
    """Check that a `step` that keeps the contract fits the engine, and does something.

    Raises `PolicyError` when it exceeds the slots, the KV tokens or the prefill chunk, or is idle
    although nothing but this step could ever change anything for the live `requests`.
    """
    fault = _over_capacity(step, policy.capacity, requests)
    if fault:
        raise PolicyError(f'policy {policy.name} {fault}')


def ask_prediction(policy: Policy, now: float, request: Request, live: Sequence[Request],
                   latency: LatencyModel) -> Prediction | None:
    """Return what `policy` predicts, or None if it cannot be asked while it plans.

    Raises `PolicyError` when the policy raises, or returns anything else.
    """
    try:
        prediction = policy.predict(now, request, live, latency)
    except FAULTS as error:
        raise raised(policy, error) from error
    if prediction is None or isinstance(prediction, Prediction) and _in_numbers(prediction):
        return prediction
    raise PolicyError(f'policy {policy.name} predicted what is no Prediction in numbers')


def capacity_ratio(policy: Policy) -> float:
    """Return the capacity ratio of a policy; NaN if it has none, or its own raises."""
    try:
        return float(policy.capacity_ratio)
    except FAULTS:
        return math.nan


def raised(policy: Policy, error: BaseException) -> PolicyError:
    """Return the fault of a policy that raised `error`."""
    return PolicyError(f'policy {policy.name} raised {type(error).__name__}: {_text(error)}')


def _text(error: BaseException) -> str:
    try:
        return f'{error!s:.200}'
    except FAULTS:
        return 'it cannot say what'


def _in_numbers(prediction: Prediction) -> bool:
    return isinstance(prediction.reason, str) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for value in (prediction.ttft, prediction.tpot, prediction.completion))


def _fault(step: Step, max_batch: int, live: set[Request]) -> str:
    """Return what is wrong with `step`, or an empty string."""
    decode, prefill = step.decode, step.prefill
    for part in ('decode', 'prefill', 'evict', 'drop'):
        if not isinstance(getattr(step, part), tuple):
            return f'returned a step whose {part} is of the wrong type: not a tuple'
    others = step.evict + step.drop
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
    tokens += sum([request.pending for request in step.decode]) + fed
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
