// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The checks of slice_runner_create: sizes of a model, and matrices that fit them.

#include <algorithm>

#include "runner.hpp"

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

}  // namespace

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
      (model.joint_norms && (model.norms_behind_rope || model.norms_of_heads)) ||
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
         valid_bits(cache.bits) && cache.page_table && cache.slots > 0 && cache.pages_per_slot > 0 &&
         cache.pages_per_slot <= kMaxSide / SLICE_PAGE_TOKENS && cache.pages > 0;
}

}  // namespace slice
