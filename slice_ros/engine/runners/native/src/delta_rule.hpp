// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Gated delta rule (arXiv 2412.06464), token after token. Included after a simd header, once for
// each instruction set (SLICE_ISA).
//
// Of each value head a state S [key_dim][value_dim] is kept. A token with key k, value v and query
// q, decay d and strength b changes it by S = d S + k (b (v - d S^T k))^T, and its output is S^T q.
// Keys, queries and values have gone through a convolution over the last tokens of each channel.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels.hpp"
#include "vector_math.hpp"

namespace slice::SLICE_ISA {

constexpr float kNormEps = 1e-6f;  // of queries and keys
constexpr int kStateTile = 2;      // vectors of a row of the state that are summed together

// out = silu(sum over the taps of weight * input) of 16 channels from `channel` on.
static void convolve(const DeltaJob& job, int row, int channel, float* out) {
  const SliceDelta& delta = *job.delta;
  const int before = delta.taps - 1;
  Floats sum = zeros();
  for (int tap = 0; tap < delta.taps; ++tap) {
    const int from = row - before + tap;
    const float* in = from < 0 ? job.inputs + int64_t{from + before} * job.channels
                               : job.in + int64_t{from} * job.in_stride;
    sum = fma(load(delta.conv + int64_t{tap} * job.channels + channel), load(in + channel), sum);
  }
  store(out, silu(sum));
}

// Keeps the last inputs of some channels for the next step.
static void keep_inputs(const DeltaJob& job, int first, int count) {
  const int before = job.delta->taps - 1;
  for (int i = 0; i < before; ++i) {
    const int from = i + job.rows;
    const float* in = from < before ? job.inputs + int64_t{from} * job.channels
                                    : job.in + int64_t{from - before} * job.in_stride;
    std::copy_n(in + first, count, job.inputs + int64_t{i} * job.channels + first);
  }
}

// Divides by the length, and by `divisor`.
static void normalize(float* values, int width, float divisor) {
  Floats squares = zeros();
  for (int i = 0; i < width; i += 16) squares = fma(load(values + i), load(values + i), squares);
  const Floats scale = all(1.0f / (__builtin_sqrtf(sum_of(squares) + kNormEps) * divisor));
  for (int i = 0; i < width; i += 16) store(values + i, mul(load(values + i), scale));
}

// One token of one value head, for 16 * kStateTile columns of the state.
static void advance(float* state, int key_dim, int stride, const float* key, const float* query,
                    const float* value, float decay, float strength, float* out) {
  Floats recalled[kStateTile], change[kStateTile], sum[kStateTile];
  for (int v = 0; v < kStateTile; ++v) recalled[v] = sum[v] = zeros();
  for (int i = 0; i < key_dim; ++i) {
    const Floats k = all(key[i]);
    for (int v = 0; v < kStateTile; ++v) {
      recalled[v] = fma(k, load(state + int64_t{i} * stride + 16 * v), recalled[v]);
    }
  }
  for (int v = 0; v < kStateTile; ++v) {
    const Floats error = sub(load(value + 16 * v), mul(all(decay), recalled[v]));
    change[v] = mul(all(strength), error);
  }
  for (int i = 0; i < key_dim; ++i) {
    const Floats k = all(key[i]), q = all(query[i]);
    for (int v = 0; v < kStateTile; ++v) {
      float* at = state + int64_t{i} * stride + 16 * v;
      const Floats next = fma(k, change[v], mul(all(decay), load(at)));
      store(at, next);
      sum[v] = fma(q, next, sum[v]);
    }
  }
  for (int v = 0; v < kStateTile; ++v) store(out + 16 * v, sum[v]);
}

// out = norm(out) * weight * silu(gate)
static void gate_output(const float* weight, const float* gate, float eps, int width, float* out) {
  Floats squares = zeros();
  for (int i = 0; i < width; i += 16) squares = fma(load(out + i), load(out + i), squares);
  const float mean = sum_of(squares) / static_cast<float>(width);
  const Floats scale = all(1.0f / __builtin_sqrtf(mean + eps));
  for (int i = 0; i < width; i += 16) {
    const Floats normed = mul(mul(load(out + i), scale), load(weight + i));
    store(out + i, mul(normed, silu(load(gate + i))));
  }
}

// All rows of a slot, for one key head and the value heads that use it.
static void delta_rule(const DeltaJob& job) {
  const SliceDelta& delta = *job.delta;
  const int keys = delta.key_heads * delta.key_dim;
  const int together = delta.value_heads / delta.key_heads;
  const int first_head = job.head * together;
  const int query_at = job.head * delta.key_dim;
  const int value_at = 2 * keys + first_head * delta.value_dim;
  float query[kMaxDeltaDim], key[kMaxDeltaDim], value[kMaxDeltaDim];
  for (int row = 0; row < job.rows; ++row) {
    for (int i = 0; i < delta.key_dim; i += 16) {
      convolve(job, row, query_at + i, query + i);
      convolve(job, row, keys + query_at + i, key + i);
    }
    normalize(query, delta.key_dim, __builtin_sqrtf(static_cast<float>(delta.key_dim)));
    normalize(key, delta.key_dim, 1.0f);
    const float* rates = job.rates + int64_t{row} * 2 * delta.value_heads;
    for (int n = 0; n < together; ++n) {
      const int head = first_head + n;
      for (int i = 0; i < delta.value_dim; i += 16) {
        convolve(job, row, value_at + n * delta.value_dim + i, value + i);
      }
      const float a = rates[delta.value_heads + head] + delta.bias[head];
      const float softplus = a > 20.0f ? a : std::log1p(std::exp(a));
      const float decay = std::exp(delta.decay[head] * softplus);
      const float strength = 1.0f / (1.0f + std::exp(-rates[head]));
      float* state = job.state + int64_t{n} * delta.key_dim * delta.value_dim;
      float* out = job.out + int64_t{row} * job.out_stride + head * delta.value_dim;
      for (int i = 0; i < delta.value_dim; i += 16 * kStateTile) {
        advance(state + i, delta.key_dim, delta.value_dim, key, query, value + i, decay, strength,
                out + i);
      }
      const float* gate = job.in + int64_t{row} * job.in_stride + job.channels +
                          head * delta.value_dim;
      gate_output(delta.norm, gate, job.norm_eps, delta.value_dim, out);
    }
  }
  keep_inputs(job, query_at, delta.key_dim);
  keep_inputs(job, keys + query_at, delta.key_dim);
  keep_inputs(job, value_at, together * delta.value_dim);
}

}  // namespace slice::SLICE_ISA
