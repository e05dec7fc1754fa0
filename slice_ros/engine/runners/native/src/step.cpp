// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// One forward pass, phase by phase. Every member of the team runs forward(); a phase distributes
// its rows, outputs or heads over the members, and ends when all of them are done.

#include <algorithm>

#include "runner.hpp"

namespace slice {

int32_t Runner::step(const Batch& batch) {
  team_.settle();
  const int32_t error = check(batch);
  if (error != SLICE_OK) return error;
  group_rows(batch);
  find_wanted(batch);
  find_adapters(batch);
  batch_ = batch;
  team_.run([](void* self, Member& member) { static_cast<Runner*>(self)->forward(member); }, this);
  return SLICE_OK;
}

void Runner::forward(Member& member) {
  const Batch& batch = batch_;
  const int rows = batch.rows;
  const int hidden = model_.hidden;
  Activations normed = activations(values_.get(), hidden, rows);
  embed(member, batch);
  for (int i = 0; i < model_.layers; ++i) {
    const SliceLayer& layer = layers_[i];
    if (batch.input_row && 0 < i && i <= model_.input_levels) add_level(member, batch, i);
    const SliceMatrix none{};
    const SliceMatrix& out = layer.attention_out;
    const SliceMatrix& space_out = layer.mamba ? layer.mamba->out : none;
    Activations attended = activations(values_.get(), out.inputs, rows);
    Activations mixed = activations(mixed_.get(), space_out.inputs, rows);
    mix(member, batch, i, normed);
    if (i == model_.layers - 1 && wanted_.empty()) return;
    if (attends(layer)) attend(member, batch, i);
    if (i == model_.layers - 1) {
      move_wanted(member, attended, mixed);
      normed.rows = attended.rows = mixed.rows = static_cast<int>(wanted_.size());
    }
    if (out.data) {
      quantize(member, out, attended);
      add_product(member, out, i * SLICE_ADAPTED + 1, attended, layer.attention_out_norm,
                  gated_.get(), model_.parallel ? beside_.get() : nullptr);
    }
    if (space_out.data) {
      quantize(member, space_out, mixed);
      add_product(member, space_out, -1, mixed, layer.attention_out_norm, gated_.get());
    }
    if (layer.expert) {
      add_experts(member, i, normed);
    } else if (layer.gate_up.data) {
      add_mlp(member, i, normed);
    }
    if (model_.parallel) add_beside(member, normed.rows);
  }
  if (batch.states) write_states(member, batch);
  if (batch.outputs == 0) return;
  const Activations last = activations(values_.get(), hidden, batch.outputs);
  normalize(member, model_.final_norm, model_.head, output_place_.data(), last);
  multiply(member, model_.head, -1, last, batch.logits, model_.vocabulary, model_.vocabulary,
           Store::kWrite);
  if (model_.logit_softcap > 0) cap_logits(member, batch);
  if (batch.best_token) pick_best(member, batch);
}

void Runner::mix(Member& member, const Batch& batch, int layer, const Activations& normed) {
  const SliceLayer& weights = layers_[layer];
  const SliceMatrix& in = mixer_input(weights);
  const auto rates = [&](const SliceMatrix& matrix) {
    multiply(member, matrix, -1, normed, rates_.get(), matrix.outputs, matrix.outputs,
             Store::kWrite);
  };
  if (!in.data && !weights.mamba) return;
  const bool first = in.data && (is_quantized(in.kind) || !weights.mamba);
  normalize(member, weights.attention_norm, first ? in : weights.mamba->in, nullptr, normed);
  if (in.data) {
    multiply(member, in, layer * SLICE_ADAPTED, normed, qkv_.get(), in.outputs, in.outputs,
             Store::kWrite);
  }
  if (weights.mamba) {
    const SliceMatrix& streams = weights.mamba->in;
    multiply(member, streams, -1, normed, streams_.get(), streams.outputs, streams.outputs,
             Store::kWrite);
    rates(weights.mamba->rates);
    advance_spaces(member, batch, layer);
  }
  if (weights.delta) {
    rates(weights.delta->rates);
    advance_states(member, batch, layer);
  } else if (weights.short_conv) {
    convolve(member, batch, layer);
  } else if (attends(weights)) {
    rotate_and_keep(member, batch, layer);
  }
}

void Runner::add_mlp(Member& member, int layer, const Activations& normed) {
  const SliceLayer& weights = layers_[layer];
  const int place = layer * SLICE_ADAPTED;
  const Activations gated = activations(gated_.get(), model_.intermediate, normed.rows);
  normalize(member, weights.mlp_norm, weights.gate_up, nullptr, normed);
  multiply(member, weights.gate_up, place + 2, normed, gated.values, gated.value_stride,
           model_.intermediate, mlp_store());
  quantize(member, weights.down, gated);
  add_product(member, weights.down, place + 3, gated, weights.mlp_out_norm, values_.get());
}

Store Runner::mlp_store() const {
  switch (model_.activation) {
    case SLICE_GELU:
      return Store::kGeGlu;
    case SLICE_CLAMPED:
      return Store::kClamped;
    case SLICE_RELU2:
      return Store::kSquaredRelu;
    default:
      return Store::kSwiGlu;
  }
}

void Runner::norm_row(const float* in, const float* weight, float* out) const {
  if (model_.norm == SLICE_RMS) {
    return kernels_.rms_norm(in, weight, model_.norm_eps, model_.hidden, out);
  }
  const float* bias = model_.norm == SLICE_LAYER_BIASED ? weight + model_.hidden : nullptr;
  kernels_.layer_norm(in, weight, bias, model_.norm_eps, model_.hidden, out);
}

void Runner::move_wanted(Member& member, const Activations& attended, const Activations& mixed) {
  if (static_cast<int>(wanted_.size()) == attended.rows) return;
  const auto move = [](float* rows, int64_t stride, int64_t from, int64_t to) {
    std::copy_n(rows + from * stride, stride, rows + to * stride);
  };
  team_.share(member, 1, [&](int) {  // in order: a row that was moved is overwritten later
    for (int place = 0; place < static_cast<int>(wanted_.size()); ++place) {
      if (wanted_[place] == place) continue;
      move(hidden_.get(), model_.hidden, wanted_[place], place);
      move(attended.values, attended.value_stride, wanted_[place], place);
      move(mixed.values, mixed.value_stride, wanted_[place], place);
    }
  });
}

Activations Runner::activations(float* values, int inputs, int rows) const {
  const int groups = groups_of(inputs);
  return {values, codes_.get(), groups * kGroup, groups, rows};
}

void Runner::embed(Member& member, const Batch& batch) {
  team_.share(member, batch.rows, [&](int row) {
    float* to = hidden_.get() + int64_t{row} * model_.hidden;
    if (batch.input_row && batch.input_row[row] >= 0) {
      std::copy_n(input_of(batch, row, 0), model_.hidden, to);
      return;
    }
    unpack_row(model_.embedding, batch.token[row], to);
    if (model_.embedding_scale == 1.0f) return;
    for (int i = 0; i < model_.hidden; ++i) to[i] *= model_.embedding_scale;
  });
}

void Runner::add_level(Member& member, const Batch& batch, int level) {
  team_.share(member, batch.rows, [&](int row) {
    if (batch.input_row[row] < 0) return;
    const float* from = input_of(batch, row, level);
    float* to = hidden_.get() + int64_t{row} * model_.hidden;
    for (int i = 0; i < model_.hidden; ++i) to[i] += from[i];
  });
}

const float* Runner::input_of(const Batch& batch, int row, int level) const {
  const int64_t part = int64_t{batch.input_row[row]} * (1 + model_.input_levels) + level;
  return batch.inputs + part * model_.hidden;
}

void Runner::normalize(Member& member, const float* weight, const SliceMatrix& next,
                       const int32_t* row_of, const Activations& to) {
  team_.share(member, to.rows, [&](int row) {
    const int64_t from = row_of ? row_of[row] : row;
    float* out = to.values + int64_t{row} * to.value_stride;
    const float* in = hidden_.get() + from * model_.hidden;
    if (weight) {
      norm_row(in, weight, out);
    } else {
      std::copy_n(in, model_.hidden, out);
    }
    if (is_quantized(next.kind)) kernels_.quantize(out, model_.hidden, to, row);
  });
}

void Runner::quantize(Member& member, const SliceMatrix& next, const Activations& in) {
  if (!is_quantized(next.kind)) return;
  team_.share(member, in.rows, [&](int row) {
    kernels_.quantize(in.values + int64_t{row} * in.value_stride, next.inputs, in, row);
  });
}

void Runner::multiply(Member& member, const SliceMatrix& matrix, int place, const Activations& in,
                      float* out, int out_stride, int out_width, Store store) {
  const AdaptedRows adapted = lower(member, place, in);
  const MatmulJob job{&matrix, &in, out, out_stride, out_width, store, adapted,
                      model_.gate_scale, model_.gate_limit};
  team_.share(member, units_of(matrix.outputs),
              [&](int unit) { kernels_.matmul(job, unit, unit + 1); });
}

AdaptedRows Runner::lower(Member& member, int place, const Activations& in) {
  const Adapters& rows = in.rows == batch_.rows ? adapters_ : wanted_adapters_;
  if (place < 0 || rows.runs.empty()) return {};
  const SliceLowRank* part = low_rank_.data() + int64_t{place} * model_.adapters;
  int units = 0;
  for (const AdapterRun& run : rows.runs) {
    if (part[run.adapter].down.data) {
      units = std::max(units, units_of(part[run.adapter].down.outputs));
    }
  }
  if (units == 0) return {};
  team_.share(member, static_cast<int>(rows.runs.size()) * units, [&](int item) {
    const AdapterRun& run = rows.runs[item / units];
    const SliceMatrix& down = part[run.adapter].down;
    const int unit = item % units;
    if (!down.data || unit >= units_of(down.outputs)) return;
    const Activations from{in.values + int64_t{run.first} * in.value_stride, nullptr,
                           in.value_stride, in.groups, run.rows};
    const MatmulJob job{&down, &from, factors_.get() + int64_t{run.first} * most_factors_,
                        most_factors_, down.outputs, Store::kWrite, {}};
    kernels_.matmul(job, unit, unit + 1);
  });
  return {rows.of_row.data(), part, factors_.get(), most_factors_};
}

void Runner::add_product(Member& member, const SliceMatrix& matrix, int place,
                         const Activations& in, const float* norm, float* scratch,
                         float* beside) {
  const int hidden = model_.hidden;
  if (!norm && model_.residual_scale == 1.0f) {
    return multiply(member, matrix, place, in, beside ? beside : hidden_.get(), hidden, hidden,
                    beside ? Store::kWrite : Store::kAdd);
  }
  multiply(member, matrix, place, in, scratch, hidden, hidden, Store::kWrite);
  team_.share(member, in.rows, [&](int row) {
    float* from = scratch + int64_t{row} * hidden;
    float* to = (beside ? beside : hidden_.get()) + int64_t{row} * hidden;
    if (beside) std::fill_n(to, hidden, 0.0f);
    if (norm) norm_row(from, norm, from);
    for (int i = 0; i < hidden; ++i) to[i] += model_.residual_scale * from[i];
  });
}

void Runner::add_beside(Member& member, int rows) {
  const int hidden = model_.hidden;
  team_.share(member, rows, [&](int row) {
    const float* from = beside_.get() + int64_t{row} * hidden;
    float* to = hidden_.get() + int64_t{row} * hidden;
    for (int i = 0; i < hidden; ++i) to[i] += from[i];
  });
}

void Runner::write_states(Member& member, const Batch& batch) {
  team_.share(member, batch.rows, [&](int row) {
    const float* in = hidden_.get() + int64_t{row} * model_.hidden;
    float* out = batch.states + int64_t{row} * model_.hidden;
    if (model_.final_norm) {
      norm_row(in, model_.final_norm, out);
    } else {
      std::copy_n(in, model_.hidden, out);
    }
  });
}

void Runner::cap_logits(Member& member, const Batch& batch) {
  team_.share(member, batch.outputs, [&](int row) {
    kernels_.softcap(batch.logits + int64_t{row} * model_.vocabulary, model_.vocabulary,
                     model_.logit_softcap);
  });
}

void Runner::pick_best(Member& member, const Batch& batch) {
  team_.share(member, batch.outputs, [&](int row) {
    const float* logits = batch.logits + int64_t{row} * model_.vocabulary;
    batch.best_token[row] = kernels_.arg_max(logits, model_.vocabulary);
  });
}

}  // namespace slice
