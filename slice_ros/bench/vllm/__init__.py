# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM beside our engine in real time: ``slice_bench serve --peer vllm``.

`vllm_peer` starts it and reads what it measured; `vllm_load` and `scripted_answers` run in vLLM's
own Python, as does `plan_costs`, which serves without a model.
"""
