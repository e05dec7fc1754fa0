// Copyright 2026 The slice_ros Authors
// SPDX-License-Identifier: Apache-2.0
//
// Ask the slice node from C++: one request with a deadline, its text as it comes, its report.
//
//   ros2 run slice_ros slice_example_cpp "A box is 0.4 m ahead. Stop or go?"

#include <chrono>
#include <cstdio>
#include <memory>

#include "rclcpp/rclcpp.hpp"
#include "rclcpp_action/rclcpp_action.hpp"
#include "slice_ros/action/generate.hpp"

using Generate = slice_ros::action::Generate;
using GoalHandle = rclcpp_action::ClientGoalHandle<Generate>;
using namespace std::chrono_literals;  // NOLINT: 5s

int main(int argc, char ** argv)
{
  const auto words = rclcpp::init_and_remove_ros_arguments(argc, argv);
  const auto node = rclcpp::Node::make_shared("slice_example_cpp");
  const auto client = rclcpp_action::create_client<Generate>(node, "slice/generate");
  if (!client->wait_for_action_server(5s)) {
    RCLCPP_ERROR(node->get_logger(), "no action slice/generate: is the slice node running?");
    return 1;
  }

  Generate::Goal goal;
  goal.prompt = words.size() > 1 ? words[1] : "A box is 0.4 m ahead. Stop or go?";
  goal.slo_class = "control";
  goal.max_tokens = 16;
  goal.deadline_ms = 500.0;  // for this request; 0 leaves that of the class
  rclcpp_action::Client<Generate>::SendGoalOptions options;
  options.feedback_callback = [](GoalHandle::SharedPtr,
      const std::shared_ptr<const Generate::Feedback> piece) {
      std::printf("%s", piece->text.c_str());
      std::fflush(stdout);
    };
  const auto sent = client->async_send_goal(goal, options);
  const auto done = rclcpp::FutureReturnCode::SUCCESS;
  if (rclcpp::spin_until_future_complete(node, sent, 2s) != done || !sent.get()) {
    RCLCPP_ERROR(node->get_logger(), "the goal was not accepted in time");
    return 1;
  }

  const auto ended = client->async_get_result(sent.get());
  if (rclcpp::spin_until_future_complete(node, ended, 5s) != done) {
    client->async_cancel_goal(sent.get());  // frees what it takes of the engine
    RCLCPP_ERROR(node->get_logger(), "no answer in time");
    return 1;
  }
  const auto result = ended.get().result;
  std::printf("\n%s: %u tokens in %.0f ms, objectives %s\n", result->finish_reason.c_str(),
    static_cast<unsigned>(result->report.output_tokens), result->report.completion_ms,
    result->report.attained ? "attained" : "missed");
  rclcpp::shutdown();
  return result->error_code == Generate::Result::NONE ? 0 : 1;
}
