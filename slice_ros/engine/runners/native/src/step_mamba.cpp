// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The state space of Mamba-2 in a step: the convolution over blocks of channels, then the states
// of the heads, then gates and norm over rows.

#include <algorithm>

#include "runner.hpp"

namespace slice {
namespace {
constexpr int kChannels = 128;  // of the convolution that one thread computes together
}  // namespace

int mamba_channels(const SliceMamba& mamba) {
  return mamba.heads * mamba.head_dim + 2 * mamba.groups * mamba.state;
}

int64_t mamba_numbers(const SliceMamba& mamba) {
  return int64_t{mamba.heads} * mamba.state * mamba.head_dim +
         int64_t{mamba.taps - 1} * mamba_channels(mamba);
}

MambaJob Runner::mamba_job(const Batch& batch, int layer, const RowGroup& group) const {
  const SliceMamba& mamba = *layers_[layer].mamba;
  const Activations to = activations(mixed_.get(), mamba.out.inputs, batch.rows);
  const int64_t of_slot = int64_t{state_layer_[layer]} * cache_.slots + batch.slot[group.first];
  MambaJob job;
  job.mamba = &mamba;
  job.channels = mamba_channels(mamba);
  job.in_stride = mamba.in.outputs;
  job.in = streams_.get() + int64_t{group.first} * job.in_stride;
  job.rates = rates_.get() + int64_t{group.first} * mamba.heads;
  job.inputs = cache_.states + of_slot * mamba_numbers(mamba);
  job.state = job.inputs + int64_t{mamba.taps - 1} * job.channels;
  job.norm_eps = model_.norm_eps;
  job.out_stride = to.value_stride;
  job.out = to.values + int64_t{group.first} * to.value_stride;
  job.rows = group.rows;
  return job;
}

void Runner::advance_spaces(Member& member, const Batch& batch, int layer) {
  const SliceMamba& mamba = *layers_[layer].mamba;
  const int channels = mamba_channels(mamba);
  const int parts = (channels + kChannels - 1) / kChannels;
  const int slots = static_cast<int>(slot_rows_.size());
  team_.share(member, slots * parts, [&](int item) {
    const RowGroup& group = slot_rows_[item / parts];
    const MambaJob job = mamba_job(batch, layer, group);
    const int channel = item % parts * kChannels;
    const int count = std::min(kChannels, channels - channel);
    for (int tap = 0; tap < mamba.taps - 1 && batch.position[group.first] == 0; ++tap) {
      std::fill_n(job.inputs + int64_t{tap} * channels + channel, count, 0.0f);
    }
    kernels_.mamba_convolve(job, channel, count);
  });
  team_.share(member, slots * mamba.heads, [&](int item) {
    const RowGroup& group = slot_rows_[item / mamba.heads];
    const MambaJob job = mamba_job(batch, layer, group);
    const int head = item % mamba.heads;
    const int64_t numbers = int64_t{mamba.state} * mamba.head_dim;
    if (batch.position[group.first] == 0) {
      std::fill_n(job.state + head * numbers, numbers, 0.0f);
    }
    kernels_.mamba_advance(job, head);
  });
  team_.share(member, batch.rows, [&](int row) {
    kernels_.mamba_gate(mamba_job(batch, layer, {row, 1}), 0);
  });
}

}  // namespace slice
