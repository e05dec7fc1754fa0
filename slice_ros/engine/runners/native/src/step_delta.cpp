// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Layers that keep a state of each slot in place of keys and values.

#include <algorithm>

#include "runner.hpp"

namespace slice {
namespace {
constexpr int kConvChannels = 256;  // of a short convolution that one thread computes together
}  // namespace

int delta_channels(const SliceDelta& delta) {
  return 2 * delta.key_heads * delta.key_dim + delta.value_heads * delta.value_dim;
}

int64_t delta_numbers(const SliceDelta& delta) {
  return int64_t{delta.value_heads} * delta.key_dim * delta.value_dim +
         int64_t{delta.taps - 1} * delta_channels(delta);
}

void Runner::advance_states(Member& member, const Batch& batch, int layer) {
  const SliceDelta& delta = *layers_[layer].delta;
  const int64_t numbers = delta_numbers(delta);
  const int64_t of_slot = int64_t{state_layer_[layer]} * cache_.slots;
  const int width = delta.value_heads * delta.value_dim;
  const Activations to = activations(values_.get(), width, batch.rows);
  const int heads = delta.key_heads;
  team_.share(member, static_cast<int>(slot_rows_.size()) * heads, [&](int item) {
    const RowGroup& group = slot_rows_[item / heads];
    const int64_t each = int64_t{delta.value_heads} / heads * delta.key_dim * delta.value_dim;
    float* inputs = cache_.states + (of_slot + batch.slot[group.first]) * numbers;
    DeltaJob job;
    job.delta = &delta;
    job.head = item % heads;
    job.rows = group.rows;
    job.channels = delta_channels(delta);
    job.in_stride = delta.in.outputs;
    job.in = qkv_.get() + int64_t{group.first} * job.in_stride;
    job.rates = rates_.get() + int64_t{group.first} * delta.rates.outputs;
    job.inputs = inputs;
    job.state = inputs + int64_t{delta.taps - 1} * job.channels + job.head * each;
    job.norm_eps = model_.norm_eps;
    job.out_stride = to.value_stride;
    job.out = to.values + int64_t{group.first} * to.value_stride;
    if (batch.position[group.first] == 0) forget(job, each);
    kernels_.delta_rule(job);
  });
}

void Runner::forget(const DeltaJob& job, int64_t numbers) {
  const SliceDelta& delta = *job.delta;
  const int keys = delta.key_heads * delta.key_dim;
  const int values = delta.value_heads / delta.key_heads * delta.value_dim;
  std::fill_n(job.state, numbers, 0.0f);
  for (int i = 0; i < delta.taps - 1; ++i) {
    float* inputs = job.inputs + int64_t{i} * job.channels;
    std::fill_n(inputs + job.head * delta.key_dim, delta.key_dim, 0.0f);
    std::fill_n(inputs + keys + job.head * delta.key_dim, delta.key_dim, 0.0f);
    std::fill_n(inputs + 2 * keys + job.head * values, values, 0.0f);
  }
}

void Runner::convolve(Member& member, const Batch& batch, int layer) {
  const SliceShortConv& conv = *layers_[layer].short_conv;
  const int64_t numbers = int64_t{conv.taps - 1} * model_.hidden;
  const int64_t of_slot = int64_t{state_layer_[layer]} * cache_.slots;
  const int parts = (model_.hidden + kConvChannels - 1) / kConvChannels;
  team_.share(member, static_cast<int>(slot_rows_.size()) * parts, [&](int item) {
    const RowGroup& group = slot_rows_[item / parts];
    const int channel = item % parts * kConvChannels;
    convolve_slot(conv, group, batch.position[group.first] == 0, channel,
                  std::min(kConvChannels, model_.hidden - channel),
                  cache_.states + (of_slot + batch.slot[group.first]) * numbers + channel);
  });
}

void Runner::convolve_slot(const SliceShortConv& conv, const RowGroup& group, bool first,
                           int channel, int channels, float* inputs) {
  const int hidden = model_.hidden;
  const int before = conv.taps - 1;
  const Activations to = activations(values_.get(), hidden, batch_.rows);
  if (first) {
    for (int i = 0; i < before; ++i) std::fill_n(inputs + int64_t{i} * hidden, channels, 0.0f);
  }
  for (int row = group.first; row < group.first + group.rows; ++row) {
    const float* b = qkv_.get() + int64_t{row} * conv.in.outputs + channel;
    const float* c = b + hidden;
    const float* x = c + hidden;
    float* out = to.values + int64_t{row} * to.value_stride + channel;
    for (int i = 0; i < channels; ++i) {
      float sum = 0;
      for (int tap = 0; tap < before; ++tap) {
        float* kept = inputs + int64_t{tap} * hidden + i;
        sum += conv.conv[int64_t{tap} * hidden + channel + i] * *kept;
        if (tap > 0) kept[-hidden] = *kept;
      }
      const float input = b[i] * x[i];
      sum += conv.conv[int64_t{before} * hidden + channel + i] * input;
      inputs[int64_t{before - 1} * hidden + i] = input;
      out[i] = c[i] * sum;
    }
  }
}

}  // namespace slice
