// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The state space of Mamba-2 (arXiv 2405.21060), token after token. Included after a simd header,
// once for each instruction set (SLICE_ISA).
//
// Of each head a state S [state][head_dim] is kept. A token with value x, time step t and the B
// and C of its group changes it by S = exp(t A) S + B (t x)^T, and its output is S^T C + D x.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels.hpp"
#include "rows.hpp"
#include "vector_math.hpp"

namespace slice::SLICE_ISA {

constexpr int kSpaceTile = 2;  // vectors of a row of the state that are summed together

// Channels become silu(sum over the taps of weight * input + bias); their last inputs are kept.
static void mamba_convolve(const MambaJob& job, int first, int count) {
  const SliceMamba& mamba = *job.mamba;
  const int before = mamba.taps - 1;
  const int gates = mamba.heads * mamba.head_dim;
  for (int channel = first; channel < first + count; channel += 16) {
    Floats weight[kMaxTaps], kept[kMaxTaps];
    for (int tap = 0; tap < mamba.taps; ++tap) {
      weight[tap] = load(mamba.conv + int64_t{tap} * job.channels + channel);
    }
    for (int tap = 0; tap < before; ++tap) {
      kept[tap] = load(job.inputs + int64_t{tap} * job.channels + channel);
    }
    const Floats bias = mamba.conv_bias ? load(mamba.conv_bias + channel) : zeros();
    for (int row = 0; row < job.rows; ++row) {
      float* at = job.in + int64_t{row} * job.in_stride + gates + channel;
      kept[before] = load(at);
      Floats sum = bias;
      for (int tap = 0; tap < mamba.taps; ++tap) sum = fma(weight[tap], kept[tap], sum);
      store(at, silu(sum));
      for (int tap = 0; tap < before; ++tap) kept[tap] = kept[tap + 1];
    }
    for (int tap = 0; tap < before; ++tap) {
      store(job.inputs + int64_t{tap} * job.channels + channel, kept[tap]);
    }
  }
}

static float time_step(const MambaJob& job, int row, int head) {
  const SliceMamba& mamba = *job.mamba;
  const float rate = job.rates[int64_t{row} * mamba.heads + head] + mamba.bias[head];
  const float softplus = rate > 20.0f ? rate : std::log1p(std::exp(rate));
  return std::min(std::max(softplus, mamba.least_step), mamba.most_step);
}

// All rows for 16 * vectors columns of the state of a head, which stay in the first level cache.
template <int vectors>
static void advance_columns(const MambaJob& job, int head, int column) {
  const SliceMamba& mamba = *job.mamba;
  const int width = mamba.heads * mamba.head_dim;
  const int group = head / (mamba.heads / mamba.groups);
  const int place = head * mamba.head_dim + column;
  float* state = job.state + int64_t{head} * mamba.state * mamba.head_dim + column;
  for (int row = 0; row < job.rows; ++row) {
    const float* values = job.in + int64_t{row} * job.in_stride + width;
    const float* b = values + width + group * mamba.state;
    const float* c = b + mamba.groups * mamba.state;
    const float step = time_step(job, row, head);
    const Floats decay = all(std::exp(step * mamba.decay[head]));
    Floats change[vectors], sum[vectors];
    for (int v = 0; v < vectors; ++v) {
      change[v] = mul(all(step), load(values + place + 16 * v));
      sum[v] = zeros();
    }
    for (int i = 0; i < mamba.state; ++i) {
      const Floats b_i = all(b[i]), c_i = all(c[i]);
      for (int v = 0; v < vectors; ++v) {
        float* at = state + int64_t{i} * mamba.head_dim + 16 * v;
        const Floats next = fma(b_i, change[v], mul(decay, load(at)));
        store(at, next);
        sum[v] = fma(c_i, next, sum[v]);
      }
    }
    float* out = job.out + int64_t{row} * job.out_stride + place;
    for (int v = 0; v < vectors; ++v) {
      store(out + 16 * v, fma(all(mamba.skip[head]), load(values + place + 16 * v), sum[v]));
    }
  }
}

static void mamba_advance(const MambaJob& job, int head) {
  int column = 0;
  for (; column + 16 * kSpaceTile <= job.mamba->head_dim; column += 16 * kSpaceTile) {
    advance_columns<kSpaceTile>(job, head, column);
  }
  for (; column < job.mamba->head_dim; column += 16) advance_columns<1>(job, head, column);
}

static void norm_parts(const MambaJob& job, float* out) {
  const SliceMamba& mamba = *job.mamba;
  const int width = mamba.heads * mamba.head_dim / mamba.norm_parts;
  for (int part = 0; part < mamba.norm_parts; ++part) {
    float* at = out + part * width;
    rms_norm(at, mamba.norm + part * width, job.norm_eps, width, at);
  }
}

// out = norm(out * silu(gates)), or norm(out) * silu(gates)
static void mamba_gate(const MambaJob& job, int row) {
  const SliceMamba& mamba = *job.mamba;
  const float* gates = job.in + int64_t{row} * job.in_stride;
  float* out = job.out + int64_t{row} * job.out_stride;
  if (mamba.norm && mamba.norm_first) norm_parts(job, out);
  for (int i = 0; i < mamba.heads * mamba.head_dim; i += 16) {
    store(out + i, mul(load(out + i), silu(load(gates + i))));
  }
  if (mamba.norm && !mamba.norm_first) norm_parts(job, out);
}

}  // namespace slice::SLICE_ISA
