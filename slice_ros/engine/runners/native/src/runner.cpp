// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Building a runner, and checking the arguments of a step.

#include "runner.hpp"

#include <algorithm>

namespace slice {
namespace {

bool valid_matrix(const SliceMatrix& matrix, int64_t outputs, int64_t inputs) {
  return matrix.data && reinterpret_cast<uintptr_t>(matrix.data) % 64 == 0 &&
         valid_shape(matrix.kind, matrix.outputs, matrix.inputs) && matrix.outputs == outputs &&
         matrix.inputs == inputs;
}

bool valid_layer(const SliceModel& model, const SliceLayer& layer) {
  const int64_t query_width = int64_t{model.heads} * model.head_dim;
  const int64_t qkv_width = query_width + int64_t{2} * model.kv_heads * model.head_dim;
  const int64_t gate_up = 2 * static_cast<int64_t>(round_up(model.intermediate, kBlock));
  return layer.rope >= -1 && layer.rope < model.ropes && layer.window >= 0 &&
         valid_matrix(layer.qkv, qkv_width, model.hidden) &&
         valid_matrix(layer.attention_out, model.hidden, query_width) &&
         valid_matrix(layer.gate_up, gate_up, model.hidden) &&
         valid_matrix(layer.down, model.hidden, model.intermediate);
}

size_t input_size(const SliceModel& model) {
  return round_up(static_cast<size_t>(widest_input(model)), kGroup);
}

int head_width(const SliceModel& model) {
  return static_cast<int>(round_up(static_cast<size_t>(model.head_dim), 16));
}

}  // namespace

int widest_input(const SliceModel& model) {
  return std::max({model.hidden, model.heads * model.head_dim, model.intermediate});
}

bool valid(const SliceModel& model, const SliceCache& cache) {
  if (!model.layer || !model.final_norm || !model.rope_cos || !model.rope_sin) return false;
  if (model.layers < 1 || model.hidden < 1 || model.kv_heads < 1 || model.head_dim < 1 ||
      model.heads < model.kv_heads || model.heads % model.kv_heads != 0 || model.intermediate < 1 ||
      model.vocabulary < 1 || model.positions < 1 || model.ropes < 1 || model.rotary_dim < 0 ||
      model.activation < SLICE_SILU || model.activation > SLICE_GELU ||
      model.rotary_dim % 2 != 0 || model.rotary_dim > model.head_dim || model.head_dim > kMaxHeadWidth) {
    return false;
  }
  for (int i = 0; i < model.layers; ++i) {
    if (!valid_layer(model, model.layer[i])) return false;
  }
  return valid_matrix(model.embedding, model.vocabulary, model.hidden) &&
         valid_matrix(model.head, model.vocabulary, model.hidden) && cache.keys && cache.values &&
         cache.page_table && cache.slots > 0 && cache.pages_per_slot > 0 &&
         cache.pages_per_slot <= kMaxSide / SLICE_PAGE_TOKENS && cache.pages > 0;
}

Runner::Runner(const SliceModel& model, const SliceCache& cache, const Kernels& kernels,
               int threads, int max_rows)
    : model_(model),
      layers_(model.layer, model.layer + model.layers),
      cache_(cache),
      kernels_(kernels),
      max_rows_(max_rows),
      head_width_(head_width(model)),
      widest_(static_cast<int>(input_size(model))),
      score_stride_(cache.pages_per_slot * SLICE_PAGE_TOKENS),
      page_size_(int64_t{SLICE_PAGE_TOKENS} * head_width_),
      hidden_(size_t(max_rows) * model.hidden),
      values_(size_t(max_rows) * widest_),
      gated_(size_t(max_rows) * widest_),
      codes_(size_t(max_rows) * widest_ / kGroup),
      qkv_(size_t(max_rows) * layers_[0].qkv.outputs),
      queries_(size_t(max_rows) * model.heads * head_width_),
      scores_(size_t(threads) * kMaxQueries * score_stride_),
      slot_seen_(cache.slots, 0),
      team_(threads, model.layers * kPhasesPerLayer + kPhasesAround) {
  groups_.reserve(max_rows);
  wanted_.reserve(max_rows);
  output_place_.reserve(max_rows);
}

bool Runner::pages_present(int slot, int position) const {
  const int32_t* pages = cache_.page_table + int64_t{slot} * cache_.pages_per_slot;
  for (int page = 0; page <= position / SLICE_PAGE_TOKENS; ++page) {
    if (pages[page] < 0 || pages[page] >= cache_.pages) return false;
  }
  return true;
}

int32_t Runner::check(const Batch& batch) {
  if (batch.rows < 1 || !batch.token || !batch.slot || !batch.position || batch.outputs < 0) {
    return SLICE_BAD_ARGUMENT;
  }
  if (batch.rows > max_rows_ || batch.outputs > batch.rows) return SLICE_TOO_MANY_ROWS;
  if (batch.outputs > 0 && (!batch.output_row || !batch.logits)) return SLICE_BAD_ARGUMENT;
  for (int i = 0; i < batch.outputs; ++i) {
    if (batch.output_row[i] < 0 || batch.output_row[i] >= batch.rows) return SLICE_BAD_ARGUMENT;
  }
  ++steps_;
  const int positions = std::min(model_.positions, cache_.pages_per_slot * SLICE_PAGE_TOKENS);
  for (int row = 0; row < batch.rows; ++row) {
    const int slot = batch.slot[row];
    const int position = batch.position[row];
    if (batch.token[row] < 0 || batch.token[row] >= model_.vocabulary) return SLICE_BAD_TOKEN;
    if (slot < 0 || slot >= cache_.slots) return SLICE_BAD_SLOT;
    if (position < 0 || position >= positions) return SLICE_BAD_POSITION;
    if (row > 0 && slot == batch.slot[row - 1]) {
      if (position != batch.position[row - 1] + 1) return SLICE_BAD_POSITION;
    } else if (slot_seen_[slot] == steps_) {
      return SLICE_BAD_SLOT;  // its rows are not neighbours: two might write one position
    }
    slot_seen_[slot] = steps_;
    if (!pages_present(slot, position)) return SLICE_BAD_PAGE;
  }
  return SLICE_OK;
}

void Runner::group_rows(const Batch& batch) {
  const int together = std::max(1, kMaxQueries / (model_.heads / model_.kv_heads));
  groups_.clear();
  for (int row = 0; row < batch.rows; ++row) {
    if (row > 0 && batch.slot[row] == batch.slot[row - 1] && groups_.back().rows < together) {
      ++groups_.back().rows;
    } else {
      groups_.push_back({row, 1});
    }
  }
}

void Runner::find_wanted(const Batch& batch) {
  wanted_.assign(batch.output_row, batch.output_row + batch.outputs);
  std::sort(wanted_.begin(), wanted_.end());
  wanted_.erase(std::unique(wanted_.begin(), wanted_.end()), wanted_.end());
  output_place_.clear();
  for (int i = 0; i < batch.outputs; ++i) {
    const auto place = std::lower_bound(wanted_.begin(), wanted_.end(), batch.output_row[i]);
    output_place_.push_back(static_cast<int32_t>(place - wanted_.begin()));
  }
}

}  // namespace slice
