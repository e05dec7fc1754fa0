# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Bounds on attainment that no schedule can exceed, by linear programs over intervals of time.

Each request is two jobs on one machine that may be split at will: its prefill, between its arrival
and the last instant for its first token, and its decodes, between the earliest instant of its
first token and the last one for its end. An optimum of such jobs, any fraction of a request
counting, is a bound because every real schedule turns into a feasible point of it: the time of
each step is shared out among the parts of requests in it, and no attained request gets less than
the work counted here.

* A decode step over b requests is shared equally. TPOT bounds only the mean step time of a
  request, so that the least share is that of the best mixture of batch sizes whose mean time keeps
  TPOT, not the least over the sizes that keep it. Cached tokens are charged to who reads them.
* A prefill takes the fewest chunks that the engine allows.
* What the parts of a step pay once (`shared_ms`) is charged to its decodes alone, or to its
  prefills alone in proportion to their tokens of the most in one step. Each is a bound; the one
  with more work in it is used.
* Work of requests that do not attain, idle time and a policy's overhead only take time away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from slice_ros.bench.schedule.workload import Arrival
from slice_ros.scheduling.latency import LatencyModel
from slice_ros.scheduling.policy import Capacity

EXACT = 1e-9       # seconds by which sums of floats may miss a due time
PIECE = 800        # requests of one linear program: its time grows faster than their number
TOLERANCE = 1e-6   # relative error of the solver, added to the bound


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that any schedule attains, as shares of a workload."""

    requests: float
    utility: float


@dataclass(frozen=True, slots=True)
class _Job:
    """`work` seconds of request `owner` within `start` .. `end`."""

    owner: int
    work: float
    start: float
    end: float


def lp_bound(workload: Sequence[Arrival], latency: LatencyModel, capacity: Capacity,
             whole: bool = False) -> Bound:
    """Return bounds on the attainment and the utility attainment of `workload`.

    With `whole`, requests count only as a whole: tighter, but only for tens of requests. A long
    workload is bounded in pieces, each as if the others did not come.
    """
    if not workload:
        return Bound(1.0, 1.0)
    batch = min(capacity.max_batch, len(workload))
    most = sum(_most(workload[i:i + PIECE], latency, capacity, batch, whole)
               for i in range(0, len(workload), PIECE))
    total = np.array([len(workload), sum(a.slo.utility for a in workload)])
    return Bound(*(float(share) for share in np.minimum(most / total * (1 + TOLERANCE), 1)))


def _most(workload: Sequence[Arrival], latency: LatencyModel, capacity: Capacity, batch: int,
          whole: bool) -> np.ndarray:
    """Return the most requests, and the most utility, that `workload` can attain.

    At most `batch` requests are in a decode step: others could only make it longer.
    """
    plain = _Costs(latency, capacity, True, batch)
    able = [owner for owner, a in enumerate(workload) if plain.can_attain(a)]
    charged = [plain, _Costs(latency, capacity, False, batch)] if latency.shared_ms else [plain]
    jobs = max(([job for owner in able for job in costs.jobs(owner, workload[owner])]
                for costs in charged), key=lambda jobs: sum(job.work for job in jobs))
    jobs = [job for job in jobs if job.end < math.inf]  # there is time for the others afterwards
    owners = sorted({job.owner for job in jobs})
    free = sorted({*able}.difference(owners))
    most = []
    for weights in (np.ones(len(workload)), np.array([a.slo.utility for a in workload])):
        solved = _solve(jobs, owners, weights[owners], whole) if jobs else 0.0
        most.append(weights[free].sum() + solved)
    return np.array(most)


def least_work(a: Arrival, latency: LatencyModel, capacity: Capacity) -> float:
    """Return the least seconds of the engine that a request takes: prefill and decodes."""
    return sum(job.work for job in _Costs(latency, capacity, True, capacity.max_batch).jobs(0, a))


class _Costs:
    """The least work and time of each request on one engine, in seconds."""

    def __init__(self, latency: LatencyModel, capacity: Capacity, to_decodes: bool,
                 batch: int) -> None:
        """`to_decodes` charges what is paid once in a step to its decodes, else to prefills."""
        self.latency, self.chunk = latency, capacity.prefill_chunk
        self.shared = latency.shared_ms / 1e3
        steps = [latency.decode(size) for size in range(1, capacity.max_batch + 1)]
        # Where a larger batch takes less time, others may fill the step up to it.
        self.steps = np.minimum.accumulate(steps[::-1])[::-1][:batch]
        self.decodes_pay = to_decodes or not self.shared
        paid = self.steps if self.decodes_pay else np.maximum(self.steps - self.shared, 0)
        self.shares = paid / np.arange(1, batch + 1)
        sizes = np.arange(1, self.chunk + 1)
        alone = np.array([latency.prefill(int(n)) for n in sizes])
        # Seconds of a chunk of each size, and the least of them per token up to it.
        cost = np.maximum(alone - self.shared, 0)
        if not to_decodes:
            cost += sizes / self.chunk * np.minimum(alone, self.shared)
        self.token_cost = np.minimum.accumulate(cost / sizes)

    def can_attain(self, a: Arrival) -> bool:
        """Return whether `a` attains when it is alone."""
        decodes, first, last = self._alone(a)
        return (first <= a.slo.ttft + EXACT and last <= a.slo.deadline + EXACT
                and (not decodes or (last - first) / decodes <= a.slo.tpot + EXACT))

    def jobs(self, owner: int, a: Arrival) -> list[_Job]:
        """Return the work of a request that can attain, each part in its window."""
        decodes, first, last = self._alone(a)
        first_due = min(a.slo.ttft, a.slo.deadline - (last - first))
        jobs = [_Job(owner, self._prefill(a.prompt_tokens), a.time, a.time + first_due + EXACT)]
        if decodes:
            end_due = min(a.slo.deadline, first_due + decodes * a.slo.tpot)
            reads = self._reads(a, decodes)
            most = min(a.slo.tpot, (a.slo.deadline - first) / decodes) - reads / decodes
            work = decodes * self._least_share(most) + (reads if self.decodes_pay else 0)
            jobs.append(_Job(owner, work, a.time + first, a.time + end_due + EXACT))
        return jobs

    def _alone(self, a: Arrival) -> tuple[int, float, float]:
        """Return the decodes of `a`, and the seconds to its first and last token if alone."""
        decodes = min(a.output_tokens, a.max_tokens) - 1  # the prefill samples the first token
        first = self._chunks(a.prompt_tokens)
        return decodes, first, first + decodes * self.steps.min() + self._reads(a, decodes)

    def _chunks(self, tokens: int) -> float:
        """Return the seconds of the chunks of a whole prompt, as few as there can be."""
        extra = math.ceil(tokens / self.chunk) - 1
        return self.latency.prefill(tokens) + extra * self.latency.prefill_base_ms / 1e3

    def _prefill(self, tokens: int) -> float:
        if not self.shared:
            return self._chunks(tokens)
        return tokens * float(self.token_cost[min(tokens, self.chunk) - 1])

    def _reads(self, a: Arrival, decodes: int) -> float:
        """Return the seconds for the cached tokens that the decodes of `a` read, its own."""
        tokens = decodes * a.prompt_tokens + decodes * (decodes - 1) / 2
        return self.latency.decode_context_ms / 1e3 * tokens

    def _least_share(self, mean: float) -> float:
        """Return the least mean share of a step, for steps that take `mean` or less on average."""
        steps, shares = self.steps, self.shares
        quick = steps <= mean + EXACT
        if not quick.any():
            return float(shares.min())  # cannot attain; any lower bound will do
        best = float(shares[quick].min())
        for step, share in zip(steps[quick], shares[quick]):
            slow = ~quick
            weight = (mean - step) / (steps[slow] - step)  # of the slower of two batch sizes
            if weight.size:
                best = min(best, float((share + weight * (shares[slow] - share)).min()))
        return best


def _solve(jobs: Sequence[_Job], owners: Sequence[int], weights: np.ndarray, whole: bool) -> float:
    """Return the greatest sum of weights of owners whose jobs fit the time together.

    Instead of a variable for each job and interval there is one for each job and node of a binary
    tree over the intervals that its window is made of; what a node gets, it passes down.
    """
    times = np.unique([t for job in jobs for t in (job.start, job.end)])
    leaves = 1 << max(len(times) - 2, 0).bit_length()   # nodes: 1 is the root, leaves come last
    column = {owner: i for i, owner in enumerate(owners)}
    rows, columns, values = [], [], []

    def put(row: int, at: int, value: float) -> None:
        rows.append(row)
        columns.append(at)
        values.append(value)

    variables = len(owners)
    for node in range(2, 2 * leaves):           # from a parent to this node
        put(node // 2, variables, -1.0)
        put(node, variables, 1.0)
        variables += 1
    starts, ends = (np.searchsorted(times, [getattr(job, at) for job in jobs])
                    for at in ('start', 'end'))
    for number, job in enumerate(jobs):
        row = 2 * leaves + number               # all of its work is somewhere
        put(row, column[job.owner], -job.work)
        for node in _cover(int(starts[number]) + leaves, int(ends[number]) + leaves):
            put(row, variables, 1.0)
            put(node, variables, 1.0)
            variables += 1
    most = np.zeros(2 * leaves + len(jobs))     # inner nodes and jobs balance to 0
    most[leaves:leaves + len(times) - 1] = np.diff(times)
    least = np.zeros_like(most)
    least[:2 * leaves] = -np.inf
    gain, upper = np.zeros(variables), np.full(variables, np.inf)
    gain[:len(owners)], upper[:len(owners)] = -weights, 1.0
    integral = np.zeros(variables)
    integral[:len(owners)] = whole
    matrix = coo_array((values, (rows, columns)), shape=(len(most), variables)).tocsr()
    solved = milp(gain, integrality=integral, bounds=Bounds(0, upper),
                  constraints=LinearConstraint(matrix, least, most))
    if not solved.success:
        raise ValueError(f'the bound cannot be computed: {solved.message}')
    # Of a search that ends at a gap, what is proven counts, not what is found.
    return -(solved.mip_dual_bound if whole else solved.fun)


def _cover(start: int, end: int) -> list[int]:
    """Return the nodes of a binary tree whose leaves are `start` .. `end` - 1 together."""
    nodes = []
    while start < end:
        if start & 1:
            nodes.append(start)
            start += 1
        if end & 1:
            end -= 1
            nodes.append(end)
        start //= 2
        end //= 2
    return nodes
