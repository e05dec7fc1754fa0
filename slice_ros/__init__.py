# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""slice_ros: an LLM inference server for one robot, scheduled by service-level objectives.

The rooms, from the bottom up; imports point down only (docs/architecture.md):

- ``slo``, ``errors``  objectives of a request, and the codes of a refusal
- ``request``          one generation: its state machine, progress and timestamps
- ``scheduling``       which requests take part in the next step (pure Python)
- ``engine``           the step itself: tokens in, tokens out (torch)
- ``serving``          the loop that joins the two: admit, plan, run, deliver
- ``ros``              the node
- ``client``           for planner nodes: ask the node, without the engine
- ``behaviours``       leaves of behaviour trees that ask the node
- ``gateway``          the node through HTTP, and a page to look at
- ``router``           a node that sends each request to one of several slice nodes
- ``examples``         small planner nodes to copy
- ``bench``, ``cli``   programs for people
"""

from pkgutil import extend_path

# Started in a checkout, this folder hides the installed package of the same name, the one that
# carries the generated msg/, srv/ and action/ modules and the native libraries: look there too.
__path__ = extend_path(__path__, __name__)
