// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
// The MLP of a layer with experts: a router scores the experts for each token, and the token goes
// through the best. Tokens of one expert are computed together, so that its weights are read once.
// The result of a token depends on no other: its experts are added in the order of their scores.

#include <algorithm>
#include <cmath>
#include <limits>

#include "runner.hpp"

namespace slice {
namespace {

constexpr float kLeastSum = 1e-20f;  // of scores that are shared: sigmoids may all be zero

float sigmoid(float score) { return 1.0f / (1.0f + std::exp(-score)); }

// Replaces scores by their exponentials, the greatest of which is 1; returns the sum.
float exponentials(float* score, int count) {
  const float most = *std::max_element(score, score + count);
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += score[i] = std::exp(score[i] - most);
  return sum;
}

// The first of the highest scores, with a bias added to each where there is one.
int highest(const float* score, const float* bias, int count) {
  const auto biased = [&](int i) { return bias ? score[i] + bias[i] : score[i]; };
  int best = 0;
  for (int i = 1; i < count; ++i) {
    if (biased(i) > biased(best)) best = i;
  }
  return best;
}

}  // namespace

void Runner::add_experts(Member& member, int layer, const Activations& normed) {
  const SliceLayer& weights = layers_[layer];
  Routing& routing = routing_[layer];
  const int chosen = model_.chosen_experts;
  const SliceMatrix& next = weights.expert[0].gate_up;
  normalize(member, weights.mlp_norm, weights.router, nullptr, normed);
  const int scores = weights.router.outputs;
  multiply(member, weights.router, -1, normed, scores_of_experts_.get(), scores, scores,
           Store::kWrite);
  if (weights.gate_up.data) compute_shared(member, weights, normed);
  team_.share(member, normed.rows, [&](int row) { choose_experts(weights, routing, row); });
  team_.share(member, 1, [&](int) { group_by_expert(routing, normed.rows); });
  team_.share(member, normed.rows * chosen, [&](int place) {
    const ExpertRun& run = routing.runs[routing.run[place]];
    const Activations to = expert_rows(expert_values_.get(), model_.hidden, run);
    const int row = place - run.first;
    float* out = to.values + int64_t{row} * to.value_stride;
    std::copy_n(normed.values + int64_t{routing.row[place]} * normed.value_stride, model_.hidden,
                out);
    if (is_quantized(next.kind)) kernels_.quantize(out, model_.hidden, to, row);
  });
  multiply_experts(member, layer, false);
  team_.share(member, normed.rows * chosen, [&](int place) {
    if (!is_quantized(weights.expert[0].down.kind)) return;
    const ExpertRun& run = routing.runs[routing.run[place]];
    const Activations in = expert_rows(expert_gated_.get(), model_.expert_intermediate, run);
    const int row = place - run.first;
    kernels_.quantize(in.values + int64_t{row} * in.value_stride, model_.expert_intermediate, in,
                      row);
  });
  multiply_experts(member, layer, true);
  team_.share(member, normed.rows, [&](int row) {
    add_choices(weights, routing, row, normed.values + int64_t{row} * normed.value_stride);
  });
}

void Runner::compute_shared(Member& member, const SliceLayer& layer, const Activations& normed) {
  const int hidden = model_.hidden;
  const int width = layer.down.inputs;
  const Activations gated = activations(gated_.get(), width, normed.rows);
  quantize(member, layer.gate_up, normed);
  multiply(member, layer.gate_up, -1, normed, gated.values, gated.value_stride, width,
           mlp_store());
  quantize(member, layer.down, gated);
  multiply(member, layer.down, -1, gated, beside_.get(), hidden, hidden, Store::kWrite);
}

float Runner::shared_weight(const SliceLayer& layer, int row) const {
  const int scores = layer.router.outputs;
  if (scores == model_.experts) return 1.0f;
  const float score = scores_of_experts_.get()[int64_t{row} * scores + model_.experts];
  return sigmoid(score);
}

void Runner::choose_experts(const SliceLayer& layer, Routing& routing, int row) {
  const int chosen = model_.chosen_experts;
  float* score = scores_of_experts_.get() + int64_t{row} * layer.router.outputs;
  float sum = 1;  // what scores are divided by where they are not shared
  if (model_.sigmoid_scores) {
    for (int i = 0; i < model_.experts; ++i) score[i] = sigmoid(score[i]);
  } else {
    sum = exponentials(score, model_.experts);
  }
  int32_t* expert = routing.expert.data() + int64_t{row} * chosen;
  float* weight = routing.weight.data() + int64_t{row} * chosen;
  float shared = kLeastSum;
  for (int rank = 0; rank < chosen; ++rank) {
    const int best = highest(score, layer.choice_bias, model_.experts);
    expert[rank] = best;
    weight[rank] = score[best];
    shared += score[best];
    score[best] = -std::numeric_limits<float>::infinity();
  }
  for (int rank = 0; rank < chosen; ++rank) {
    weight[rank] = weight[rank] / (model_.share_scores ? shared : sum) * model_.expert_scale;
  }
}

void Runner::group_by_expert(Routing& routing, int rows) {
  const int choices = rows * model_.chosen_experts;
  std::vector<int32_t> next(model_.experts + 1, 0);
  for (int i = 0; i < choices; ++i) ++next[routing.expert[i] + 1];
  routing.runs.clear();
  for (int i = 0; i < model_.experts; ++i) {
    if (next[i + 1] > 0) routing.runs.push_back({i, next[i], next[i + 1]});
    next[i + 1] += next[i];
  }
  for (int i = 0; i < choices; ++i) {
    const int place = next[routing.expert[i]]++;
    routing.place[i] = place;
    routing.row[place] = i / model_.chosen_experts;
  }
  for (int run = 0; run < static_cast<int>(routing.runs.size()); ++run) {
    const ExpertRun& one = routing.runs[run];
    std::fill_n(routing.run.begin() + one.first, one.rows, run);
  }
}

Activations Runner::expert_rows(float* values, int inputs, const ExpertRun& run) const {
  const int groups = groups_of(inputs);
  const int64_t stride = int64_t{groups} * kGroup;
  return {values + run.first * stride, expert_codes_.get() + int64_t{run.first} * groups,
          static_cast<int>(stride), groups, run.rows};
}

void Runner::multiply_experts(Member& member, int layer, bool down) {
  const SliceExpert* expert = layers_[layer].expert;
  const Routing& routing = routing_[layer];
  const int units = units_of(down ? expert[0].down.outputs : expert[0].gate_up.outputs);
  team_.share(member, static_cast<int>(routing.runs.size()) * units, [&](int item) {
    const ExpertRun& run = routing.runs[item / units];
    const Activations values = expert_rows(expert_values_.get(), model_.hidden, run);
    const Activations gated = expert_rows(expert_gated_.get(), model_.expert_intermediate, run);
    const MatmulJob job =
        down ? MatmulJob{&expert[run.expert].down, &gated, values.values, values.value_stride,
                         model_.hidden, Store::kWrite, {}}
             : MatmulJob{&expert[run.expert].gate_up, &values, gated.values, gated.value_stride,
                         model_.expert_intermediate, mlp_store(), {}, model_.gate_scale,
                         model_.gate_limit};
    kernels_.matmul(job, item % units, item % units + 1);
  });
}

void Runner::add_choices(const SliceLayer& layer, const Routing& routing, int row, float* sum) {
  const int hidden = model_.hidden;
  const int64_t stride = int64_t{groups_of(hidden)} * kGroup;
  std::fill_n(sum, hidden, 0.0f);
  if (layer.gate_up.data) {
    const float* shared = beside_.get() + int64_t{row} * hidden;
    const float weight = shared_weight(layer, row);
    for (int i = 0; i < hidden; ++i) sum[i] = weight * shared[i];
  }
  for (int rank = 0; rank < model_.chosen_experts; ++rank) {
    const int64_t choice = int64_t{row} * model_.chosen_experts + rank;
    const float* from = expert_values_.get() + routing.place[choice] * stride;
    const float weight = routing.weight[choice];
    for (int i = 0; i < hidden; ++i) sum[i] += weight * from[i];
  }
  if (layer.mlp_out_norm) norm_row(sum, layer.mlp_out_norm, sum);
  float* to = hidden_.get() + int64_t{row} * hidden;
  for (int i = 0; i < hidden; ++i) to[i] += model_.residual_scale * sum[i];
}

}  // namespace slice
