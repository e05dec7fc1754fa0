// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Softmax attention of up to 8 queries over one slot's pages. Included after a simd header, once
// for each instruction set (SLICE_ISA).
//
// Keys are stored with 16 tokens in a vector, values with one token after another: neither scores
// nor outputs need sums across lanes. A key or value is read once for all queries (the heads of a
// group, and neighbouring tokens of a prefill). The sums of a query run over its tokens in order,
// independently of the other queries. The simd header defines how many sums a tile has.
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "vector_math.hpp"

namespace slice::SLICE_ISA {

constexpr int kPage = SLICE_PAGE_TOKENS;
constexpr int kQueryTile = kAttentionSums < kMaxQueries ? kAttentionSums : kMaxQueries;

SLICE_INLINE Floats load_kept(const uint16_t* p) { return load_half(p); }
SLICE_INLINE Floats load_kept(const float* p) { return load(p); }

// scores[q][t] = query q . key t, for all pages of the first `length` tokens.
template <int queries, typename Number>
static void score(const AttentionJob& job, int length) {
  for (int page = 0; page * kPage < length; ++page) {
    const Number* base = static_cast<const Number*>(job.keys);
    const Number* keys = base + job.pages[page] * job.page_stride;
    const Number* next = (page + 1) * kPage < length
        ? base + job.pages[page + 1] * job.page_stride
        : static_cast<const Number*>(job.values) + job.pages[0] * job.page_stride;
    constexpr int vectors = 2 * queries <= kAttentionSums ? 2 : 1;
    for (int first = 0; first < 2; first += vectors) {
      Floats sum[queries][vectors];
      for (int q = 0; q < queries; ++q) {
        for (int v = 0; v < vectors; ++v) sum[q][v] = zeros();
      }
      for (int d = 0; d < job.width; ++d) {
        prefetch(next + d * kPage + first * 16);
        Floats key[vectors];
        for (int v = 0; v < vectors; ++v) {
          key[v] = load_kept(keys + ((first + v) * job.width + d) * 16);
        }
#pragma GCC unroll 8
        for (int q = 0; q < queries; ++q) {
          const Floats component = all(job.query[q][d]);
          for (int v = 0; v < vectors; ++v) sum[q][v] = fma(component, key[v], sum[q][v]);
        }
      }
      for (int q = 0; q < queries; ++q) {
        float* out = job.scores + static_cast<size_t>(q) * job.score_stride + page * kPage;
        for (int v = 0; v < vectors; ++v) store(out + (first + v) * 16, sum[q][v]);
      }
    }
  }
}

// Replaces scores by exp(score - greatest), zero outside of [begin, length); returns their sum, and
// that of the sink, which may be null.
static float soften(float* scores, int begin, int length, int end, float softcap,
                    const float* sink) {
  const Floats lowest = all(-3.0e38f);
  Floats top = lowest;
  const int first = begin / 16 * 16;
  for (int t = 0; t < first; t += 16) store(scores + t, zeros());
  for (int t = first; t < length; t += 16) {
    Floats v = load(scores + t);
    if (softcap > 0.0f) {
      v = capped(v, all(softcap));
      store(scores + t, v);
    }
    if (length - t < 16) v = keep_first(v, length - t, lowest);
    if (t < begin) v = keep_first(lowest, begin - t, v);
    top = max(top, v);
  }
  const float most = max_of(top);
  const Floats greatest = all(sink && *sink > most ? *sink : most);
  Floats sum = zeros();
  int t = first;
  for (; t < length; t += 16) {
    Floats v = exp_of(sub(load(scores + t), greatest));
    if (length - t < 16) v = keep_first(v, length - t, zeros());
    if (t < begin) v = keep_first(zeros(), begin - t, v);
    store(scores + t, v);
    sum = add(sum, v);
  }
  for (; t < end; t += 16) store(scores + t, zeros());
  if (sink) sum = add(sum, keep_first(exp_of(sub(all(*sink), greatest)), 1, zeros()));
  return sum_of(sum);
}

// out[q][d ...] = sum over t of scores[q][t] * value[t][d ...], for 16 * vectors numbers.
template <int queries, int vectors, typename Number>
static void gather(const AttentionJob& job, int length, int d, const float* scale) {
  Floats sum[queries][vectors];
  for (int q = 0; q < queries; ++q) {
    for (int v = 0; v < vectors; ++v) sum[q][v] = zeros();
  }
  for (int page = 0; page * kPage < length; ++page) {
    const Number* base = static_cast<const Number*>(job.values) + d;
    const Number* values = base + job.pages[page] * job.page_stride;
    const Number* next = (page + 1) * kPage < length
        ? base + job.pages[page + 1] * job.page_stride
        : static_cast<const Number*>(job.next_keys) + d;
    const int tokens = length - page * kPage < kPage ? length - page * kPage : kPage;
    const float* scores = job.scores + page * kPage;
    for (int t = 0; t < tokens; ++t) {
      Floats value[vectors];
      for (int v = 0; v < vectors; v += 2) prefetch(next + t * job.width + v * 16);
      for (int v = 0; v < vectors; ++v) value[v] = load_kept(values + t * job.width + v * 16);
#pragma GCC unroll 8
      for (int q = 0; q < queries; ++q) {
        const Floats weight = all(scores[static_cast<size_t>(q) * job.score_stride + t]);
        for (int v = 0; v < vectors; ++v) sum[q][v] = fma(weight, value[v], sum[q][v]);
      }
    }
  }
  for (int q = 0; q < queries; ++q) {
    float out[16 * vectors];
    for (int v = 0; v < vectors; ++v) store(out + v * 16, mul(sum[q][v], all(scale[q])));
    const int room = job.head_dim - d < 16 * vectors ? job.head_dim - d : 16 * vectors;
    __builtin_memcpy(job.out[q] + d, out, sizeof(float) * static_cast<size_t>(room));
  }
}

template <int queries, typename Number>
static void attend_to(const AttentionJob& job) {
  if (job.queries != queries) {
    if constexpr (queries > 1) attend_to<queries - 1, Number>(job);
    return;
  }
  int length = 0;
  for (int q = 0; q < queries; ++q) length = job.length[q] > length ? job.length[q] : length;
  const int end = (length + kPage - 1) / kPage * kPage;
  score<queries, Number>(job, length);
  float scale[queries];
  for (int q = 0; q < queries; ++q) {
    scale[q] = 1.0f / soften(job.scores + static_cast<size_t>(q) * job.score_stride,
                             job.begin[q], job.length[q], end, job.softcap,
                             job.sinks ? &job.sink[q] : nullptr);
  }
  int d = 0;
  if constexpr (4 * queries <= kAttentionSums) {
    for (; d + 64 <= job.width; d += 64) gather<queries, 4, Number>(job, length, d, scale);
  }
  if constexpr (2 * queries <= kAttentionSums) {
    for (; d + 32 <= job.width; d += 32) gather<queries, 2, Number>(job, length, d, scale);
  }
  for (; d < job.width; d += 16) gather<queries, 1, Number>(job, length, d, scale);
}

// In tiles of about equal size.
static void attend(const AttentionJob& job) {
  const int tiles = (job.queries + kQueryTile - 1) / kQueryTile;
  const int most = (job.queries + tiles - 1) / tiles;
  AttentionJob tile = job;
  for (int first = 0; first < job.queries; first += most) {
    tile.queries = job.queries - first < most ? job.queries - first : most;
    for (int q = 0; q < tile.queries; ++q) {
      tile.query[q] = job.query[first + q];
      tile.out[q] = job.out[first + q];
      tile.begin[q] = job.begin[first + q];
      tile.length[q] = job.length[first + q];
      tile.sink[q] = job.sink[first + q];
    }
    (job.wide ? attend_to<kQueryTile, float> : attend_to<kQueryTile, uint16_t>)(tile);
  }
}

}  // namespace slice::SLICE_ISA
