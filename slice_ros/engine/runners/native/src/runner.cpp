// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// Building a runner, and checking the arguments of a step.

#include "runner.hpp"

#include <algorithm>
#include <numeric>

namespace slice {
namespace {

bool valid_matrix(const SliceMatrix& matrix, int64_t outputs, int64_t inputs) {
  return matrix.data && reinterpret_cast<uintptr_t>(matrix.data) % 64 == 0 &&
         valid_shape(matrix.kind, matrix.outputs, matrix.inputs) && matrix.outputs == outputs &&
         matrix.inputs == inputs;
}

int64_t gate_up_outputs(const SliceModel& model, int32_t intermediate) {
  if (model.activation == SLICE_RELU2) return intermediate;
  return 2 * static_cast<int64_t>(round_up(intermediate, kBlock));
}

bool valid_mlp(const SliceModel& model, const SliceLayer& layer, int32_t intermediate) {
  return valid_matrix(layer.gate_up, gate_up_outputs(model, intermediate), model.hidden) &&
         valid_matrix(layer.down, model.hidden, intermediate);
}

bool valid_experts(const SliceModel& model, const SliceLayer& layer) {
  const bool shared = layer.gate_up.data;
  const int64_t scores = layer.router.outputs;
  if (model.chosen_experts < 1 || model.expert_intermediate < 1 || layer.router.kind != SLICE_F32 ||
      !valid_matrix(layer.router, scores, model.hidden) ||
      (scores != model.experts && !(shared && scores == int64_t{model.experts} + 1)) ||
      (shared && (model.parallel || !valid_mlp(model, layer, layer.down.inputs)))) {
    return false;
  }
  const int64_t gate_up = gate_up_outputs(model, model.expert_intermediate);
  return std::all_of(layer.expert, layer.expert + model.experts, [&](const SliceExpert& expert) {
    return valid_matrix(expert.gate_up, gate_up, model.hidden) &&
           valid_matrix(expert.down, model.hidden, model.expert_intermediate) &&
           expert.gate_up.kind == layer.expert[0].gate_up.kind &&
           expert.down.kind == layer.expert[0].down.kind;
  });
}

bool valid_delta(const SliceModel& model, const SliceDelta& delta) {
  const auto valid_dim = [](int dim) { return dim > 0 && dim <= kMaxDeltaDim && dim % 32 == 0; };
  if (delta.key_heads < 1 || delta.value_heads < 1 || delta.value_heads > kMaxSide / kMaxDeltaDim ||
      delta.value_heads % delta.key_heads != 0 || !valid_dim(delta.key_dim) ||
      !valid_dim(delta.value_dim) || delta.taps < 1 || delta.taps > kMaxTaps || !delta.conv ||
      !delta.decay || !delta.bias || !delta.norm || delta.rates.kind != SLICE_F32) {
    return false;
  }
  const int64_t gates = int64_t{delta.value_heads} * delta.value_dim;
  return valid_matrix(delta.in, delta_channels(delta) + gates, model.hidden) &&
         valid_matrix(delta.rates, 2 * delta.value_heads, model.hidden);
}

bool valid_short_conv(const SliceModel& model, const SliceShortConv& conv) {
  return conv.taps > 1 && conv.taps <= kMaxTaps && conv.conv &&
         valid_matrix(conv.in, int64_t{3} * model.hidden, model.hidden);
}

bool valid_mamba(const SliceModel& model, const SliceMamba& mamba) {
  if (mamba.heads < 1 || mamba.heads > kMaxSide / kMaxMambaDim || mamba.head_dim < 1 ||
      mamba.head_dim > kMaxMambaDim || mamba.head_dim % 16 != 0 || mamba.groups < 1 ||
      mamba.heads % mamba.groups != 0 || mamba.state < 1 || mamba.state > kMaxMambaDim ||
      mamba.state % 16 != 0 || mamba.taps < 2 || mamba.taps > kMaxTaps || !mamba.conv ||
      !mamba.decay || !mamba.bias || !mamba.skip || mamba.rates.kind != SLICE_F32) {
    return false;
  }
  const int64_t width = int64_t{mamba.heads} * mamba.head_dim;
  if (mamba.norm && (mamba.norm_parts < 1 || width % mamba.norm_parts != 0)) return false;
  return valid_matrix(mamba.in, width + mamba_channels(mamba), model.hidden) &&
         valid_matrix(mamba.rates, mamba.heads, model.hidden) &&
         valid_matrix(mamba.out, model.hidden, width);
}

// Attention, or what is in its place; a state space may be there as well, or neither.
bool valid_mixer(const SliceModel& model, const SliceLayer& layer) {
  const int64_t query_width = int64_t{model.heads} * model.head_dim;
  const int64_t qkv_width = query_width * (model.gated_attention ? 2 : 1) +
                            int64_t{2} * model.kv_heads * model.head_dim;
  const int64_t mixed = layer.delta ? int64_t{layer.delta->value_heads} * layer.delta->value_dim
                        : layer.short_conv ? model.hidden
                                           : query_width;
  const bool in_place = layer.delta || layer.short_conv;
  if (in_place && (attends(layer) || layer.mamba)) return false;
  if (layer.mamba && !valid_mamba(model, *layer.mamba)) return false;
  if (!attends(layer) && !in_place) return !layer.attention_out.data;
  return (layer.delta        ? valid_delta(model, *layer.delta)
          : layer.short_conv ? valid_short_conv(model, *layer.short_conv)
                             : valid_matrix(layer.qkv, qkv_width, model.hidden)) &&
         valid_matrix(layer.attention_out, model.hidden, mixed);
}

bool valid_layer(const SliceModel& model, const SliceLayer& layer) {
  if (layer.rope < -1 || layer.rope >= model.ropes || layer.window < 0 ||
      !valid_mixer(model, layer)) {
    return false;
  }
  const bool has_mlp = layer.expert || layer.gate_up.data || layer.down.data;
  // Side by side, there is one of each.
  if (model.parallel && (layer.mamba || !layer.attention_out.data || !has_mlp)) return false;
  return layer.expert ? valid_experts(model, layer)
                      : !has_mlp || valid_mlp(model, layer, model.intermediate);
}

bool valid_low_rank(const SliceLowRank& part, const SliceMatrix& matrix) {
  const SliceMatrix& down = part.down;
  if (!down.data) return true;
  if (!valid_matrix(down, down.outputs, matrix.inputs) || down.kind > SLICE_F16 || down.bias ||
      !part.up || !part.block) {
    return false;
  }
  for (int i = 0; i < blocks_of(matrix.outputs); ++i) {
    const int32_t* place = part.block + 3 * i;
    if (place[0] < 0 || place[1] < 0 || place[2] < 0 || place[0] > down.outputs - place[1]) {
      return false;
    }
  }
  return true;
}

bool valid_adapters(const SliceModel& model) {
  if (model.adapters == 0) return true;
  if (model.adapters < 0 || !model.low_rank) return false;
  const SliceLowRank* part = model.low_rank;
  for (int i = 0; i < model.layers; ++i) {
    const SliceLayer& layer = model.layer[i];
    for (const SliceMatrix* matrix :
         {&layer.qkv, &layer.attention_out, &layer.gate_up, &layer.down}) {
      for (int adapter = 0; adapter < model.adapters; ++adapter) {
        if (!valid_low_rank(*part++, *matrix)) return false;
      }
    }
  }
  return true;
}

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

int head_width(const SliceModel& model) {
  return static_cast<int>(round_up(static_cast<size_t>(model.head_dim), 16));
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

bool valid(const SliceModel& model, const SliceCache& cache) {
  if (!model.layer || !model.final_norm || !model.rope_cos || !model.rope_sin) return false;
  if (model.layers < 1 || model.hidden < 1 || model.kv_heads < 1 || model.head_dim < 1 ||
      model.heads < model.kv_heads || model.heads % model.kv_heads != 0 || model.intermediate < 1 ||
      model.vocabulary < 1 || model.positions < 1 || model.ropes < 1 || model.rotary_dim < 0 ||
      model.experts < 0 || model.experts > kMaxExperts || model.chosen_experts < 0 ||
      model.chosen_experts > model.experts || model.expert_intermediate < 0 ||
      model.input_levels < 0 || model.input_levels >= model.layers ||
      model.activation < SLICE_SILU || model.activation > SLICE_CLAMPED ||
      model.norm < SLICE_RMS || model.norm > SLICE_LAYER_BIASED ||
      (model.norms_behind_rope && model.joint_norms) ||
      model.rotary_dim % 2 != 0 || model.rotary_dim > model.head_dim ||
      model.head_dim > kMaxHeadWidth) {
    return false;
  }
  for (int i = 0; i < model.layers; ++i) {
    if (!valid_layer(model, model.layer[i])) return false;
    if (recurrent(model.layer[i]) && !cache.states) return false;
  }
  return valid_adapters(model) &&
         valid_matrix(model.embedding, model.vocabulary, model.hidden) &&
         valid_matrix(model.head, model.vocabulary, model.hidden) && cache.keys && cache.values &&
         cache.page_table && cache.slots > 0 && cache.pages_per_slot > 0 &&
         cache.pages_per_slot <= kMaxSide / SLICE_PAGE_TOKENS && cache.pages > 0;
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
      head_width_(head_width(model)),
      widest_(static_cast<int>(input_size(model))),
      score_stride_(cache.pages_per_slot * SLICE_PAGE_TOKENS),
      page_size_(int64_t{SLICE_PAGE_TOKENS} * head_width_),
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
