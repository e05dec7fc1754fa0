# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The bounds on attainment: hand-worked optima, every order of small sets, every policy."""

from dataclasses import replace
from itertools import combinations, product
import random
from time import process_time

import pytest
from slice_ros.bench.config_files import config_file
from slice_ros.bench.report import attainment, utility_attainment
from slice_ros.bench.schedule.lp_bound import lp_bound, PIECE
from slice_ros.bench.schedule.simulate import simulate
from slice_ros.bench.schedule.workload import Arrival, generate
from slice_ros.bench.schedule.workload_file import load_workload
from slice_ros.scheduling.latency import LatencyModel, load_profile
from slice_ros.scheduling.policy import Capacity, Policy, PrefillChunk, Step
from slice_ros.scheduling.registry import make_policy, POLICIES
from slice_ros.slo import SloClass

# l(1) = 10, l(2) = 15 and l(3) = 21 ms: the least share is 7 ms a token, at batch 3.
LATENCY = LatencyModel('convex', ((1, 10), (2, 15), (3, 21)), prefill_base_ms=20,
                       prefill_token_ms=1)
THREE = Capacity(max_batch=3)


def at(time, tpot_ms=0.0, deadline_ms=1000.0, prompt=10, output=11, ttft_ms=0.0, utility=1.0):
    slo = SloClass('a', ttft_ms, tpot_ms, deadline_ms, utility)
    return Arrival(time, slo, prompt, output, output)


def requests(work, latency=LATENCY, capacity=THREE):
    return lp_bound(work, latency, capacity).requests * len(work)


@pytest.mark.parametrize('tpot_ms, ms', [
    (0, 100),           # 30 ms and 10 decodes of 7 ms
    (21, 100),
    (18, 30 + 72.5),    # half of the steps at 21 ms, half at 15: 7.25 ms
    (14, 30 + 80),      # four in five at 15 ms, one at 10: 8 ms
    (10, 30 + 100),     # alone only
])
def test_a_token_costs_the_least_of_all_mixtures_of_batches_that_keep_tpot(tpot_ms, ms):
    assert requests([at(0.0, tpot_ms)] * 20) == pytest.approx(1000 / ms, rel=1e-4)


def test_what_no_step_can_keep_is_not_attained():
    assert requests([at(0.0, 9.9)] * 20) == 0
    assert requests([at(0.0, deadline_ms=129)] * 20) == 0      # 30 + 100 ms alone
    assert requests([at(0.0, deadline_ms=130)]) == pytest.approx(1)
    assert requests([at(0.0, ttft_ms=29)] * 20) == 0


def test_the_batch_cap_bounds_the_share():
    assert requests([at(0.0)] * 20, capacity=Capacity(max_batch=2)) == pytest.approx(
        1000 / 105, rel=1e-4)


def test_a_batch_is_no_larger_than_the_workload():
    # Two requests: 30 + 10 * 7.5 ms each, 210 ms together.
    assert requests([at(0.0, deadline_ms=210)] * 2) == pytest.approx(2)
    assert requests([at(0.0, deadline_ms=200)] * 2) == pytest.approx(200 / 105, rel=1e-4)


def test_a_larger_batch_that_takes_less_time_may_be_filled_up():
    dips = replace(LATENCY, decode_ms=((1, 10), (2, 15), (3, 12)))
    assert requests([at(0.0, deadline_ms=180)] * 2, dips) == pytest.approx(2)   # 30 + 10 * 6 ms
    assert requests([at(0.0, deadline_ms=170)] * 2, dips) < 2


def test_work_has_to_fit_its_own_window_not_only_the_whole_time():
    # From 2.0 s to 3.0 s and from 10.0 s to 11.0 s, ten requests each, however many there are.
    work = [at(2.0)] * 30 + [at(10.0)] * 5
    assert requests(work) == pytest.approx(15, rel=1e-4)


def test_first_tokens_have_windows_of_their_own():
    # Prefills of 30 ms within 100 ms: three and a third, though there is time for 33 answers.
    assert requests([at(0.0, deadline_ms=9000, ttft_ms=100)] * 30) == pytest.approx(
        100 / 30, rel=1e-4)


def test_cached_tokens_are_charged_to_who_reads_them():
    # Ten decodes read 10 + ... + 19 tokens, 145 ms at 1 ms each: 245 ms a request.
    reads = replace(LATENCY, decode_context_ms=1)
    assert requests([at(0.0)] * 20, reads) == pytest.approx(1000 / 245, rel=1e-4)


def test_a_long_prompt_takes_more_than_one_chunk():
    # 30 tokens in chunks of 10 pay the base three times: 90 ms.
    work = [at(0.0, prompt=30, output=1)] * 20
    chunks = Capacity(prefill_chunk=10)
    assert requests(work, capacity=chunks) == pytest.approx(1000 / 90, rel=1e-4)


def test_what_the_parts_of_a_step_share_is_charged_once():
    # All of a decode, 21 ms, and what a chunk of 10 tokens takes beyond the 20 ms that it shares
    # with one: 10 + 10 * 7 ms. Charged to prefills instead, it would be less.
    assert requests([at(0.0)] * 20, replace(LATENCY, shared_ms=20)) == pytest.approx(
        1000 / 80, rel=1e-4)


def test_without_objectives_all_may_attain():
    assert requests([at(0.0, deadline_ms=0, output=1000)] * 50) == pytest.approx(50)
    assert requests([at(0.0, deadline_ms=0, output=1)] * 50) == pytest.approx(50)
    assert requests([]) == 0


def test_utility_counts_the_most_useful():
    work = [at(0.0)] * 10 + [at(0.0, utility=9)] * 10
    bound = lp_bound(work, LATENCY, THREE)
    assert bound.requests == pytest.approx(.5, rel=1e-4)
    assert bound.utility == pytest.approx(.9, rel=1e-4)


def test_a_mixture_of_batches_attains_what_no_one_batch_size_could():
    """Two requests of five tokens, in 76 ms: alone all of the time they would take 80."""
    latency = LatencyModel('mixed', ((1, 10), (2, 18)))
    work = [at(0.0, 14, 76, 1, 5)] * 2
    script = iter(['b', 'b', 'b', 'a', 'ab', 'ab', 'a', 'a'])

    class Scripted(Policy):
        def plan(self, now, requests, latency):
            by_name = {r.id[-1]: r for r in requests}
            step = [by_name['01'['ab'.index(name)]] for name in next(script)]
            return Step(decode=tuple(r for r in step if r.decoding),
                        prefill=tuple(PrefillChunk(r, 1) for r in step if not r.decoding))

    assert attainment(simulate(Scripted(Capacity()), latency, work).reports) == 1
    bound = lp_bound(work, latency, Capacity(max_batch=2))
    assert bound.requests == pytest.approx(1)
    tighter = [replace(a, slo=replace(a.slo, deadline_ms=75)) for a in work]
    assert lp_bound(tighter, latency, Capacity(max_batch=2)).requests < .999


def best_order(work, latency):
    """Return the most utility of answers of one token by any set, earliest due time first."""
    most = 0.0
    for size in range(len(work) + 1):
        for chosen in combinations(sorted(work, key=lambda a: a.slo.deadline), size):
            now, fits = 0.0, True
            for a in chosen:
                now += latency.prefill(a.prompt_tokens)
                fits &= now <= a.slo.deadline + 1e-9
            if fits:
                most = max(most, sum(a.slo.utility for a in chosen))
    return most


@pytest.mark.parametrize('seed', range(12))
def test_of_prefills_that_come_at_once_the_bound_is_the_optimum(seed):
    """Every set of four, each in order of its due times: there, fluid work gains nothing."""
    draw = random.Random(seed)
    work = [at(0.0, deadline_ms=draw.choice((40, 80, 120)), prompt=draw.randint(5, 40), output=1,
               utility=draw.choice((1, 3, 10))) for _ in range(4)]
    total = sum(a.slo.utility for a in work)
    best = best_order(work, LATENCY)
    assert lp_bound(work, LATENCY, THREE, whole=True).utility * total == pytest.approx(
        best, rel=1e-4)
    assert lp_bound(work, LATENCY, THREE).utility * total >= best - 1e-6


def best_schedule(work, latency):
    """Return the most utility of answers of two tokens by any sequence of steps.

    A step is a prefill of one request or a decode of any that have been prefilled.
    """
    most = 0.0

    def go_on(now, first, last):
        nonlocal most
        ended = [i for i, a in enumerate(work) if last[i] is not None
                 and last[i] <= a.slo.deadline and first[i] <= a.slo.ttft
                 and last[i] - first[i] <= a.slo.tpot + 1e-9]
        most = max(most, sum(work[i].slo.utility for i in ended))
        for i, a in enumerate(work):
            if first[i] is None:
                end = now + latency.prefill(a.prompt_tokens)
                go_on(end, first[:i] + (end,) + first[i + 1:], last)
        running = [i for i in range(len(work)) if first[i] is not None and last[i] is None]
        for picks in product((False, True), repeat=len(running)):
            batch = [i for i, picked in zip(running, picks) if picked]
            if batch:
                end = now + latency.decode(len(batch))
                go_on(end, first, tuple(end if i in batch else t for i, t in enumerate(last)))

    nothing = (None,) * len(work)
    go_on(0.0, nothing, nothing)
    return most


@pytest.mark.parametrize('seed', range(12))
def test_the_optimum_of_every_sequence_of_steps_is_within_the_bound(seed):
    draw = random.Random(seed)
    work = [at(0.0, draw.choice((0, 10, 15, 60)), draw.choice((60, 90, 120)),
               draw.randint(1, 20), 2, draw.choice((0, 50)), draw.choice((1, 3, 10)))
            for _ in range(3)]
    best = best_schedule(work, LATENCY)
    total = sum(a.slo.utility for a in work)
    whole, parts = (lp_bound(work, LATENCY, THREE, whole=w).utility * total for w in (1, 0))
    assert best <= whole + 1e-6 and whole <= parts + 1e-6
    assert 0 < best


@pytest.mark.parametrize('name', sorted(POLICIES))
@pytest.mark.parametrize('profile', ['slice-authors-rtx4060ti', 'flat-gpu',
                                     'cpu-smollm2-135m-fp16'])
@pytest.mark.parametrize('workload, rate', [('published', 3), ('realtime_heavy', 6),
                                            ('long_prompts', 1.5)])
def test_no_policy_exceeds_it(name, profile, workload, rate):
    latency = load_profile(config_file('profiles', profile))
    for seed in (1, 2):
        work = generate(load_workload(config_file('workloads', workload)), rate, 60, seed)
        reports = simulate(make_policy(name), latency, work).reports
        bound = lp_bound(work, latency, Capacity())
        assert attainment(reports) <= bound.requests
        assert utility_attainment(reports) <= bound.utility


def test_a_long_workload_is_bounded_in_pieces():
    work = [at(100.0 * (i >= PIECE)) for i in range(PIECE + 20)]
    assert requests(work) == pytest.approx(20, rel=1e-3)   # ten of each


def test_the_time_grows_little_faster_than_the_requests():
    latency = load_profile(config_file('profiles', 'slice-authors-rtx4060ti'))
    workload = load_workload(config_file('workloads', 'published'))

    def seconds(count):
        work, before = generate(workload, 6.0, count, 1), process_time()
        lp_bound(work, latency, Capacity())
        return process_time() - before
    assert seconds(300) < 32 * seconds(75)   # about 10 times
