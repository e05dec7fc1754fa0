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
  batch_ = batch;
  team_.run([](void* self, Member& member) { static_cast<Runner*>(self)->forward(member); }, this);
  return SLICE_OK;
}

void Runner::forward(Member& member) {
  const Batch& batch = batch_;
  const int rows = batch.rows;
  const int hidden = model_.hidden;
  Activations normed = activations(values_.get(), hidden, rows);
  Activations attended = activations(values_.get(), model_.heads * model_.head_dim, rows);
  Activations gated = activations(gated_.get(), model_.intermediate, rows);
  embed(member, batch);
  for (int i = 0; i < model_.layers; ++i) {
    const SliceLayer& layer = layers_[i];
    const int qkv_width = layer.qkv.outputs;
    normalize(member, layer.attention_norm, layer.qkv, nullptr, normed);
    multiply(member, layer.qkv, normed, qkv_.get(), qkv_width, qkv_width, Store::kWrite);
    rotate_and_keep(member, batch, i);
    if (i == model_.layers - 1 && wanted_.empty()) return;
    attend(member, batch, i);
    if (i == model_.layers - 1) {
      move_wanted(member, attended);
      normed.rows = attended.rows = gated.rows = static_cast<int>(wanted_.size());
    }
    quantize(member, layer.attention_out, attended);
    add_product(member, layer.attention_out, attended, layer.attention_out_norm, gated_.get());
    normalize(member, layer.mlp_norm, layer.gate_up, nullptr, normed);
    multiply(member, layer.gate_up, normed, gated.values, gated.value_stride, model_.intermediate,
             model_.activation == SLICE_GELU ? Store::kGeGlu : Store::kSwiGlu);
    quantize(member, layer.down, gated);
    add_product(member, layer.down, gated, layer.mlp_out_norm, values_.get());
  }
  const Activations last = activations(values_.get(), hidden, batch.outputs);
  normalize(member, model_.final_norm, model_.head, output_place_.data(), last);
  multiply(member, model_.head, last, batch.logits, model_.vocabulary, model_.vocabulary,
           Store::kWrite);
  if (model_.logit_softcap > 0) cap_logits(member, batch);
  if (batch.best_token) pick_best(member, batch);
}

void Runner::move_wanted(Member& member, const Activations& attended) {
  if (static_cast<int>(wanted_.size()) == attended.rows) return;
  const auto move = [](float* rows, int64_t stride, int64_t from, int64_t to) {
    std::copy_n(rows + from * stride, stride, rows + to * stride);
  };
  team_.share(member, 1, [&](int) {  // in order: a row that was moved is overwritten later
    for (int place = 0; place < static_cast<int>(wanted_.size()); ++place) {
      if (wanted_[place] == place) continue;
      move(hidden_.get(), model_.hidden, wanted_[place], place);
      move(attended.values, attended.value_stride, wanted_[place], place);
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
    unpack_row(model_.embedding, batch.token[row], to);
    if (model_.embedding_scale == 1.0f) return;
    for (int i = 0; i < model_.hidden; ++i) to[i] *= model_.embedding_scale;
  });
}

void Runner::normalize(Member& member, const float* weight, const SliceMatrix& next,
                       const int32_t* row_of, const Activations& to) {
  team_.share(member, to.rows, [&](int row) {
    const int64_t from = row_of ? row_of[row] : row;
    float* out = to.values + int64_t{row} * to.value_stride;
    const float* in = hidden_.get() + from * model_.hidden;
    if (weight) {
      kernels_.rms_norm(in, weight, model_.norm_eps, model_.hidden, out);
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

void Runner::multiply(Member& member, const SliceMatrix& matrix, const Activations& in, float* out,
                      int out_stride, int out_width, Store store) {
  const MatmulJob job{&matrix, &in, out, out_stride, out_width, store};
  team_.share(member, units_of(matrix.outputs),
              [&](int unit) { kernels_.matmul(job, unit, unit + 1); });
}

void Runner::add_product(Member& member, const SliceMatrix& matrix, const Activations& in,
                         const float* norm, float* scratch) {
  const int hidden = model_.hidden;
  if (!norm && model_.residual_scale == 1.0f) {
    return multiply(member, matrix, in, hidden_.get(), hidden, hidden, Store::kAdd);
  }
  multiply(member, matrix, in, scratch, hidden, hidden, Store::kWrite);
  team_.share(member, in.rows, [&](int row) {
    float* from = scratch + int64_t{row} * hidden;
    float* to = hidden_.get() + int64_t{row} * hidden;
    if (norm) kernels_.rms_norm(from, norm, model_.norm_eps, hidden, from);
    for (int i = 0; i < hidden; ++i) to[i] += model_.residual_scale * from[i];
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
