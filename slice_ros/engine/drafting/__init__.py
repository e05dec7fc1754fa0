# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Guesses of what a sequence goes on with: looked up in its own tokens, or by a draft model.

`lookups` has those of prompt lookup, `draft_model` the smaller model that reads along, `pairs`
what the two models of a pair must have in common. A guess is never an answer: the engine feeds it
behind the last token, and its own model decides.
"""
