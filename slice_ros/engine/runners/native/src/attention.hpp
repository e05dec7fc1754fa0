// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Softmax attention of up to 8 queries over one slot's pages. Included after a simd header, once
// for each instruction set (SLICE_ISA).
//
// Keys are stored with 16 tokens in a vector, values with one token after another: neither scores
// nor outputs need sums across lanes. A key or value is read once for all queries (the heads of a
// group, and neighbouring tokens of a prefill). The sums of a query run over its tokens in order,
// independently of the other queries. The simd header defines how many sums a tile has.
//
// 8 bit codes become floats as they are read. A scale multiplies a sum over the 32 codes of a key,
// and the weight of 32 codes of a value, so that it costs little.
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "kv_page.hpp"
#include "vector_math.hpp"

namespace slice::SLICE_ISA {

constexpr int kQueryTile = kAttentionSums < kMaxQueries ? kAttentionSums : kMaxQueries;

SLICE_INLINE Floats load_kept(const uint16_t* p) { return load_half(p); }
SLICE_INLINE Floats load_kept(const float* p) { return load(p); }
SLICE_INLINE Floats load_kept(const int8_t* p) { return load_signed(p); }

template <typename Number>
constexpr bool is_code = sizeof(Number) == 1;
// Numbers that have one scale, or that are prefetched together: a whole cache line.
constexpr int kScaled = kGroup;
constexpr int kLine = 64;

template <typename Number>
SLICE_INLINE const Number* page_of(const void* pool, const AttentionJob& job, int page) {
  const auto* bytes = static_cast<const uint8_t*>(pool) + job.pages[page] * job.page_stride;
  return reinterpret_cast<const Number*>(bytes);
}

// The scales of 32 tokens, of group `group` of the numbers of each.
SLICE_INLINE const uint16_t* scales_of(const int8_t* codes, int width, int group) {
  return reinterpret_cast<const uint16_t*>(codes + number_bytes(8, width)) + group * kPage;
}

// sum[q][v] += the products of numbers [begin, end) of the queries and of vector `first` + v of the
// keys of a page.
template <int queries, int vectors, typename Number>
SLICE_INLINE void add_scores(const AttentionJob& job, const Number* keys, const Number* next,
                               int first, int begin, int end, Floats (&sum)[queries][vectors]) {
  constexpr int together = is_code<Number> ? kLine / 16 : 1;  // rows of 16 tokens in a prefetch
  for (int d = begin; d < end; d += together) {
    prefetch(next + d * kPage + first * 16);
    if (vectors == 2 && is_code<Number>) prefetch(next + d * kPage + kLine);
#pragma GCC unroll 4
    for (int i = 0; i < together; ++i) {
      Floats key[vectors];
      for (int v = 0; v < vectors; ++v) {
        key[v] = load_kept(keys + ((first + v) * job.width + d + i) * 16);
      }
#pragma GCC unroll 8
      for (int q = 0; q < queries; ++q) {
        const Floats component = all(job.query[q][d + i]);
        for (int v = 0; v < vectors; ++v) sum[q][v] = fma(component, key[v], sum[q][v]);
      }
    }
  }
}

template <int queries, int vectors>
SLICE_INLINE void clear(Floats (&sum)[queries][vectors]) {
  for (int q = 0; q < queries; ++q) {
    for (int v = 0; v < vectors; ++v) sum[q][v] = zeros();
  }
}

// scores[q][t] = query q . key t, for all pages of the first `length` tokens.
template <int queries, typename Number>
static void score(const AttentionJob& job, int length) {
  for (int page = 0; page * kPage < length; ++page) {
    const Number* keys = page_of<Number>(job.keys, job, page);
    const Number* next = (page + 1) * kPage < length ? page_of<Number>(job.keys, job, page + 1)
                                                     : page_of<Number>(job.values, job, 0);
    constexpr int vectors = 2 * queries <= kAttentionSums ? 2 : 1;
    for (int first = 0; first < 2; first += vectors) {
      Floats total[queries][vectors];
      clear(total);
      if constexpr (is_code<Number>) {
        for (int d = 0; d < job.width; d += kScaled) {
          Floats sum[queries][vectors];
          clear(sum);
          const uint16_t* scales = scales_of(keys, job.width, d / kScaled) + first * 16;
          prefetch(scales_of(next, job.width, d / kScaled));
          add_scores(job, keys, next, first, d, std::min(d + kScaled, job.width), sum);
          for (int v = 0; v < vectors; ++v) {
            const Floats scale = load_half(scales + v * 16);
            for (int q = 0; q < queries; ++q) total[q][v] = fma(sum[q][v], scale, total[q][v]);
          }
        }
      } else {
        add_scores(job, keys, next, first, 0, job.width, total);
      }
      for (int q = 0; q < queries; ++q) {
        float* out = job.scores + static_cast<size_t>(q) * job.score_stride + page * kPage;
        for (int v = 0; v < vectors; ++v) store(out + (first + v) * 16, total[q][v]);
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

// weights[q][t] = scores[q][t] times the scale of value t, for the 32 tokens of a page.
template <int queries>
SLICE_INLINE void scale_weights(const AttentionJob& job, const uint16_t* scales, int page,
                                float (&weights)[queries][kPage]) {
  for (int q = 0; q < queries; ++q) {
    const float* from = job.scores + static_cast<size_t>(q) * job.score_stride + page * kPage;
    for (int t = 0; t < kPage; t += 16) {
      store(weights[q] + t, mul(load(from + t), load_half(scales + t)));
    }
  }
}

// sum[q][v] += weights[q][t] * vector v of value t, for the tokens of a page. The sums are copied to
// registers: beside another array the compiler would leave them in memory.
template <int queries, int vectors, typename Number>
SLICE_INLINE void add_values(const Number* values, const Number* next, int width,
                             const float* weights, size_t stride, int tokens,
                             Floats (&total)[queries][vectors]) {
  Floats sum[queries][vectors];
#pragma GCC unroll 8
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[q][v] = total[q][v];
  }
  for (int t = 0; t < tokens; ++t) {
    Floats value[vectors];
    for (int v = 0; v < vectors; v += 2) prefetch(next + t * width + v * 16);
    for (int v = 0; v < vectors; ++v) value[v] = load_kept(values + t * width + v * 16);
#pragma GCC unroll 8
    for (int q = 0; q < queries; ++q) {
      const Floats weight = all(weights[q * stride + t]);
      for (int v = 0; v < vectors; ++v) sum[q][v] = fma(weight, value[v], sum[q][v]);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) total[q][v] = sum[q][v];
  }
}

// out[q][d ...] = sum over t of scores[q][t] * value[t][d ...], for 16 * vectors numbers; of codes,
// these have one scale.
template <int queries, int vectors, typename Number>
static void gather(const AttentionJob& job, int length, int d, const float* scale) {
  Floats sum[queries][vectors];
  for (int q = 0; q < queries; ++q) {
    for (int v = 0; v < vectors; ++v) sum[q][v] = zeros();
  }
  for (int page = 0; page * kPage < length; ++page) {
    const Number* values = page_of<Number>(job.values, job, page);
    const Number* next = (page + 1) * kPage < length
        ? page_of<Number>(job.values, job, page + 1)
        : static_cast<const Number*>(job.next_keys);
    const int tokens = length - page * kPage < kPage ? length - page * kPage : kPage;
    const float* weights = job.scores + page * kPage;
    size_t stride = static_cast<size_t>(job.score_stride);
    float scaled[queries][kPage];
    if constexpr (is_code<Number>) {
      scale_weights<queries>(job, scales_of(values, job.width, d / kScaled), page, scaled);
      prefetch(scales_of(next, job.width, d / kScaled));
      weights = scaled[0];
      stride = kPage;
    }
    add_values<queries, vectors>(values + d, next + d, job.width, weights, stride, tokens, sum);
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
  if constexpr (4 * queries <= kAttentionSums && !is_code<Number>) {
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
    const auto run = job.bits == 32   ? attend_to<kQueryTile, float>
                     : job.bits == 16 ? attend_to<kQueryTile, uint16_t>
                                      : attend_to<kQueryTile, int8_t>;
    run(tile);
  }
}

}  // namespace slice::SLICE_ISA
