# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""A live request as the serving loop keeps it, and a step that has been computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TYPE_CHECKING

from slice_ros.errors import ErrorCode
from slice_ros.request import Request
from slice_ros.scheduling.draft_trials import NOTHING, Spent
from slice_ros.scheduling.drafts import Drafts, MAX_DRAFT
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Step
from slice_ros.serving.delivery import Delivery
from slice_ros.serving.sessions import Turn
from slice_ros.serving.stats import StepRecord

if TYPE_CHECKING:
    from slice_ros.engine import Engine, Output, TokenSequence


# Arguments of `LatencyModel.step`.
Shape = tuple[int, int, list[tuple[int, int]], int]


@dataclass(eq=False, slots=True)
class Job:
    """A live request: its progress, its tokens in the engine, and where they go."""

    request: Request
    sequence: 'TokenSequence'
    on_output: Callable[[Delivery], bool | None]
    turn: Turn | None = None
    encoding: bool = False         # its images have no rows yet: no step can take it
    deliveries: int = 0            # made so far
    prefixes_seen: int = -1        # value of `Loop.prefixes` at the last look into the cache

    def delivery(self, output: 'Output | None', tokens: int, reason: str | None = None,
                 error: ErrorCode = ErrorCode.NONE, message: str = ''
                 ) -> tuple[Callable[[Delivery], bool | None], Delivery]:
        """Return what `DeliveryThread.put` takes: the token number `tokens`, or the end.

        `output` is what the token released; None for an end without one.
        """
        request = self.request
        at = request.ended_at if error else request.last_token_at
        calls = self.sequence.tool_calls if reason else ()
        text, reasoning, logprobs = ('', '', ()) if output is None else (
            output.text, output.reasoning, output.logprobs)
        delivery = Delivery(request, self.deliveries, text, reason, error, message,
                            tokens, at, calls, reasoning, logprobs)
        self.deliveries += 1
        return self.on_output, delivery


def begin_cached(step: Step, adopt: Callable[[Request], int]) -> Step:
    """Have requests that a step begins and prefills whole adopt what is cached of their prompts.

    When they arrived, there may have been no slot for it, or nothing cached yet. `adopt` returns
    how many tokens a request has adopted; these are left out of its chunk.
    """
    begun = [chunk.request for chunk in step.prefill
             if not chunk.request.cached and chunk.tokens == chunk.request.pending]
    if not sum([adopt(request) for request in begun]):
        return step
    return replace(step, prefill=tuple(
        replace(chunk, tokens=min(chunk.tokens, chunk.request.pending)) for chunk in step.prefill))


def with_whole_images(step: Step, jobs: dict[str, Job]) -> Step:
    """Have no chunk of a step part an image whose rows attend to each other.

    One chunk at most becomes longer, by less than an image, for which `EngineInfo.kv_tokens`
    leaves room; other chunks that would have to wait for the next step.
    """
    if not any([jobs[chunk.request.id].sequence.joined for chunk in step.prefill]):
        return step
    chunks, longer = [], False
    for chunk in step.prefill:
        tokens = jobs[chunk.request.id].sequence.chunk(chunk.tokens)
        if tokens <= chunk.tokens or not longer:
            longer = longer or tokens > chunk.tokens
            chunks.append(replace(chunk, tokens=tokens))
    return replace(step, prefill=tuple(chunks))


def work_of(step: Step, jobs: dict[str, Job]) -> dict[Job, int]:
    """Return how many pending tokens a step feeds of each job that takes part."""
    work = {jobs[r.id]: r.pending for r in step.decode}
    work.update((jobs[chunk.request.id], chunk.tokens) for chunk in step.prefill)
    return work


def with_drafts(step: Step, jobs: dict[str, Job], drafts: Drafts, engine: 'Engine',
                latency: LatencyModel, now: float
                ) -> tuple[dict['TokenSequence', Sequence[int]], Shape, Spent]:
    """Return the draft tokens that a step feeds, its shape with them, and a draft model's time."""
    model = engine.draft_model
    chosen = drafts.choose(
        step, [job.request for job in jobs.values()],
        lambda request: engine.draft(jobs[request.id].sequence, MAX_DRAFT), latency, now,
        model and model.guesses_for(lambda request: jobs[request.id].sequence, MAX_DRAFT))
    *parts, further = step.shape
    return ({jobs[request.id].sequence: tokens for request, tokens in chosen.items()},
            (*parts, further + sum(map(len, chosen.values()))),
            model.take_spent() if model else NOTHING)


class ComputedStep(NamedTuple):
    """A step whose requests have advanced, and whose tokens wait to be delivered; seconds."""

    at: float       # when the engine had computed it
    plan: float     # duration of the plan
    took: float     # duration of the forward pass, with the time yielded before it
    shape: Shape   # with its draft tokens
    outputs: list[tuple[Job, 'Output']]            # jobs that have new tokens
    drafting: Spent = NOTHING   # by a draft model, before the pass

    def record(self, deliver: float, predicted: float) -> StepRecord:
        """Return what is counted of the step; seconds, `predicted` those of the forward pass."""
        return StepRecord(self.at, self.plan, self.took + self.drafting.took, deliver,
                          predicted + self.drafting.predicted, len(self.outputs))
