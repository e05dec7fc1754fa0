# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench``, also ``python -m slice_ros.bench``: every figure this package reports."""

from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
import sys

from slice_ros.errors import ModelError, RequestError
from slice_ros.scheduling.contract import PolicyError

# Each module has add_arguments(parser) and run(args). Only the one that is asked for is loaded:
# simulating needs no torch.
SUBCOMMANDS = {
    'simulate': ('schedule.sweep', 'policies against workloads on a latency model'),
    'regimes': ('regimes.regimes_bench', 'the default policy against all others, in every regime'),
    'sensitivity': ('regimes.sensitivity', 'the default policy, each constant halved and doubled'),
    'plan': ('schedule.plan', 'what one plan costs, up to thousands of live requests'),
    'admission': ('schedule.admission_bench', 'whether refusals are right, by replay'),
    'links': ('schedule.links_bench', 'what the link between GPUs that divide a model costs'),
    'serve': ('schedule.serve', 'the same on the real engine, in real time'),
    'engine': ('engine.engine_bench', 'decode step and prefill times of the engine'),
    'perplexity': ('quantised.perplexity_bench', 'each quantisation beside llama.cpp'),
    'adapters': ('adapters_bench', 'what a LoRA adapter adds to a step'),
    'kv': ('quantised.kv_bench', 'a KV cache of 8 bits beside one of 16'),
    'images': ('images_bench', 'what encoding an image takes, and does to steps'),
    'gpu': ('gpu.gpu_bench', 'checks, tests and step times of a CUDA GPU, in nine minutes'),
    'ros': ('ros.ros_bench', 'delivery and class isolation over real topics'),
    'gateway': ('gateway_bench', 'how much later a text comes by HTTP than by the action'),
    'doors': ('doors_bench', 'control beside dialogues by HTTP and questions about a camera'),
    'abuse': ('ros.abuse', 'what hostile inputs do to the node and to other callers'),
    'soak': ('ros.soak', 'thousands of mixed requests, cancels and kills'),
    'router': ('router_bench', 'two nodes behind a router, one of which is killed'),
    'reports': ('ros.reports', 'figures of recorded slo_reports: a bag or JSON lines'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand of `argv` (default: ``sys.argv``) and return the exit status.

    What is wrong is printed as one sentence, with status 2.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = ArgumentParser(prog='slice_bench',
                            description='Print the figures that this package reports.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for name, (module, help_text) in SUBCOMMANDS.items():
        command = commands.add_parser(name, help=help_text, description=help_text)
        if name in argv[:1]:
            loaded = import_module(f'slice_ros.bench.{module}')
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    args = parser.parse_args(argv)
    try:
        return args.run(args) or 0
    except (ValueError, OSError, ModelError, RequestError, PolicyError) as error:
        print(f'slice_bench: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
