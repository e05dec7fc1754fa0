# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The style of all plots of the benchmarks."""

# Colours that stay apart for colour-blind readers (Okabe and Ito).
POLICY_COLORS = ('#999999', '#E69F00', '#56B4E9', '#D55E00', '#CC79A7', '#009E73', '#F0E442')
OURS = '#0072B2'
CLASS_COLORS = ('#882255', '#44AA99', '#DDCC77', '#332288', '#88CCEE')  # Paul Tol's muted ones
STYLE = {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
         'axes.grid': True, 'grid.alpha': .25, 'axes.axisbelow': True,
         'axes.titlesize': 10, 'axes.titlelocation': 'left', 'legend.frameon': False}
