// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Building a runner, and checking the arguments of a step.

#include "runner.hpp"

#include <algorithm>
#include <numeric>

namespace slice {
namespace {

int most_factors(const std::vector<SliceLowRank>& parts) {
  int most = 0;
  for (const SliceLowRank& part : parts) {
    if (part.down.data) most = std::max(most, part.down.outputs);
  }
  return most;
}

void find_runs(Adapters& rows) {
  for (int row = 0; row < static_cast<int>(rows.of_row.size()); ++row) {
    const int adapter = rows.of_row[row];
    if (adapter < 0) continue;
    const bool together = !rows.runs.empty() && rows.runs.back().adapter == adapter &&
                          rows.runs.back().first + rows.runs.back().rows == row &&
                          rows.runs.back().rows < kRunRows;
    if (together) {
      ++rows.runs.back().rows;
    } else {
      rows.runs.push_back({row, 1, adapter});
    }
  }
}

size_t input_size(const SliceModel& model) {
  return round_up(static_cast<size_t>(widest_input(model)), kGroup);
}

template <typename Number>
int most(const std::vector<SliceLayer>& layers, const Number& of) {
  int most = 0;
  for (const SliceLayer& layer : layers) most = std::max(most, of(layer));
  return most;
}

int most_phases(const std::vector<SliceLayer>& layers) {
  int phases = kPhasesAround;
  for (const SliceLayer& layer : layers) {
    phases += kPhasesPerLayer + (layer.mamba ? kPhasesOfSpace : 0);
  }
  return phases;
}

size_t expert_groups(const SliceModel& model) {
  return std::max(groups_of(model.hidden), groups_of(model.expert_intermediate));
}

}  // namespace

int widest_input(const SliceModel& model) {
  int widest = std::max({model.hidden, model.heads * model.head_dim, model.intermediate});
  for (int i = 0; i < model.layers; ++i) {
    const SliceLayer& layer = model.layer[i];
    widest = std::max({widest, layer.attention_out.inputs, layer.down.data ? layer.down.inputs : 0,
                       layer.mamba ? layer.mamba->out.inputs : 0});
  }
  return widest;
}

Runner::Runner(const SliceModel& model, const SliceCache& cache, const Kernels& kernels,
               int threads, int max_rows)
    : model_(model),
      layers_(model.layer, model.layer + model.layers),
      low_rank_(model.low_rank,
                model.low_rank + int64_t{model.layers} * SLICE_ADAPTED * model.adapters),
      cache_(cache),
      kernels_(kernels),
      max_rows_(max_rows),
      head_width_(head_width(model.head_dim)),
      widest_(static_cast<int>(input_size(model))),
      score_stride_(cache.pages_per_slot * SLICE_PAGE_TOKENS),
      page_bytes_(head_page_bytes(cache.bits, head_width_)),
      most_factors_(most_factors(low_rank_)),
      choices_(max_rows * model.chosen_experts),
      hidden_(size_t(max_rows) * model.hidden),
      values_(size_t(max_rows) * widest_),
      gated_(size_t(max_rows) * widest_),
      codes_(size_t(max_rows) * widest_ / kGroup),
      qkv_(size_t(max_rows) * most(layers_, [](const SliceLayer& layer) {
        return mixer_input(layer).outputs;
      })),
      rates_(size_t(max_rows) * most(layers_, [](const SliceLayer& layer) {
        return layer.delta   ? layer.delta->rates.outputs
               : layer.mamba ? layer.mamba->rates.outputs
                             : 0;
      })),
      streams_(size_t(max_rows) * most(layers_, [](const SliceLayer& layer) {
        return layer.mamba ? layer.mamba->in.outputs : 0;
      })),
      mixed_(size_t(max_rows) * most(layers_, [](const SliceLayer& layer) {
        return layer.mamba ? groups_of(layer.mamba->out.inputs) * kGroup : 0;
      })),
      queries_(size_t(max_rows) * model.heads * head_width_),
      scores_(size_t(threads) * kMaxQueries * score_stride_),
      factors_(size_t(max_rows) * most_factors_),
      beside_(size_t(max_rows) * most(layers_, [&](const SliceLayer& layer) {
        return model.parallel || (layer.expert && layer.gate_up.data) ? model.hidden : 0;
      })),
      scores_of_experts_(size_t(max_rows) * most(layers_, [](const SliceLayer& layer) {
        return layer.expert ? layer.router.outputs : 0;
      })),
      expert_values_(size_t(choices_) * groups_of(model.hidden) * kGroup),
      expert_gated_(size_t(choices_) * groups_of(model.expert_intermediate) * kGroup),
      expert_codes_(size_t(choices_) * expert_groups(model)),
      routing_(model.layers),
      slot_seen_(cache.slots, 0),
      team_(threads, most_phases(layers_)) {
  groups_.reserve(max_rows);
  slot_rows_.reserve(max_rows);
  int keyed = 0;
  int stateful = 0;
  for (const SliceLayer& layer : layers_) {
    key_layer_.push_back(keyed);
    state_layer_.push_back(stateful);
    keyed += attends(layer);
    stateful += recurrent(layer);
  }
  wanted_.reserve(max_rows);
  output_place_.reserve(max_rows);
  for (int i = 0; i < model.layers; ++i) {
    if (!layers_[i].expert) continue;
    Routing& to = routing_[i];
    for (auto* of : {&to.expert, &to.place, &to.row, &to.run}) of->resize(choices_);
    to.weight.resize(choices_);
    to.runs.reserve(model.experts);
  }
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
    if (batch.adapter && (batch.adapter[row] < -1 || batch.adapter[row] >= model_.adapters)) {
      return SLICE_BAD_ARGUMENT;
    }
    if (batch.token[row] < 0 || batch.token[row] >= model_.vocabulary) return SLICE_BAD_TOKEN;
    if (batch.input_row && (!batch.inputs || batch.input_row[row] < -1 ||
                            batch.input_row[row] >= batch.input_rows)) {
      return SLICE_BAD_ARGUMENT;
    }
    if (batch.rope_row && (batch.rope_row[row] < 0 || batch.rope_row[row] >= model_.positions)) {
      return SLICE_BAD_POSITION;
    }
    if (slot < 0 || slot >= cache_.slots) return SLICE_BAD_SLOT;
    if (position < 0 || position >= positions) return SLICE_BAD_POSITION;
    if (row > 0 && slot == batch.slot[row - 1]) {
      if (position != batch.position[row - 1] + 1) return SLICE_BAD_POSITION;
    } else if (slot_seen_[slot] == steps_) {
      return SLICE_BAD_SLOT;  // its rows are not neighbours: two might write one position
    }
    slot_seen_[slot] = steps_;
    if (batch.last_seen) {
      const int64_t last = int64_t{row} + batch.last_seen[row] - position;
      if (last < row || last >= batch.rows || batch.slot[last] != slot) return SLICE_BAD_POSITION;
    }
    if (!pages_present(slot, position)) return SLICE_BAD_PAGE;
  }
  return SLICE_OK;
}

void Runner::group_rows(const Batch& batch) {
  const int together = std::max(1, kMaxQueries / (model_.heads / model_.kv_heads));
  groups_.clear();
  slot_rows_.clear();
  for (int row = 0; row < batch.rows; ++row) {
    if (row > 0 && batch.slot[row] == batch.slot[row - 1]) {
      ++slot_rows_.back().rows;
    } else {
      slot_rows_.push_back({row, 1});
    }
    if (row > 0 && batch.slot[row] == batch.slot[row - 1] && groups_.back().rows < together) {
      ++groups_.back().rows;
    } else {
      groups_.push_back({row, 1});
    }
  }
}

void Runner::find_wanted(const Batch& batch) {
  if (batch.states) {
    wanted_.resize(batch.rows);
    std::iota(wanted_.begin(), wanted_.end(), 0);
    output_place_.assign(batch.output_row, batch.output_row + batch.outputs);
    return;
  }
  wanted_.assign(batch.output_row, batch.output_row + batch.outputs);
  std::sort(wanted_.begin(), wanted_.end());
  wanted_.erase(std::unique(wanted_.begin(), wanted_.end()), wanted_.end());
  output_place_.clear();
  for (int i = 0; i < batch.outputs; ++i) {
    const auto place = std::lower_bound(wanted_.begin(), wanted_.end(), batch.output_row[i]);
    output_place_.push_back(static_cast<int32_t>(place - wanted_.begin()));
  }
}

void Runner::find_adapters(const Batch& batch) {
  adapters_.runs.clear();
  wanted_adapters_.runs.clear();
  if (!batch.adapter) return;
  adapters_.of_row.assign(batch.adapter, batch.adapter + batch.rows);
  wanted_adapters_.of_row.clear();
  for (const int32_t row : wanted_) wanted_adapters_.of_row.push_back(batch.adapter[row]);
  find_runs(adapters_);
  find_runs(wanted_adapters_);
}

}  // namespace slice
