# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``slice_bench images``: the time of a tile, and decode steps beside the encoding of images.

Without a model: random weights in the shape of SmolVLM-256M, whose times are those of real ones.
"""

from argparse import ArgumentParser, Namespace
import json
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Thread
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from slice_ros.engine import Engine, EngineConfig, load_engine, Sampling
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.vision.pictures import Picture

SEED = 7
SIDE = 512        # pixels of an image: one tile of SmolVLM
CONTEXT = 64      # cached tokens of the request that decodes
TOWER = {'image_size': SIDE, 'patch_size': 16, 'hidden_size': 768, 'intermediate_size': 3072,
         'num_hidden_layers': 12, 'num_attention_heads': 12}
EXTRA = ('<image>', '<fake_token_around_image>', '<global-img>')
TEMPLATE = ("{% for m in messages %}{% for p in m['content'] %}{{ '<image>' if p['type'] == "
            "'image' else p['text'] }}{% endfor %}{% endfor %}")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument('--model', default='', help='directory of a model that sees; random '
                        'weights in the shape of SmolVLM-256M if not given')
    parser.add_argument('--images', type=int, default=5, help='images that are encoded')
    parser.add_argument('--steps', type=int, default=200, help='decode steps that are timed alone')
    parser.add_argument('--json', type=Path, help='file to write the figures to')


def run(args: Namespace) -> int:
    """Measure and print a table. Raises ``ModelError``."""
    with TemporaryDirectory() as folder:
        model = args.model or str(write_random(Path(folder)))
        engine = load_engine(EngineConfig(model, 'cpu', slots=4, max_context=512))
    if engine.vision is None:
        raise ValueError(f'{model} does not see: docs/images.md has the models that do')
    alone = _steps(engine, lambda count: count < args.steps)
    dice = np.random.default_rng(SEED)
    pictures = [Picture.of(dice.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
                for _ in range(args.images)]
    seconds = []

    def encode() -> None:
        for picture in pictures:
            began = time.perf_counter()
            engine.vision.see(picture)
            seconds.append(time.perf_counter() - began)
    encoding = Thread(target=encode)
    encoding.start()
    beside = _steps(engine, lambda _: encoding.is_alive())
    encoding.join()
    quiet = []
    for picture in [Picture.of(255 - picture.pixels) for picture in pictures]:
        began = time.perf_counter()
        engine.vision.see(picture)
        quiet.append(time.perf_counter() - began)
    tokens = len(engine.vision.see(pictures[0]).rows)
    figures = {'tokens_of_an_image': tokens, 'image_s': median(quiet),
               'image_beside_steps_s': median(seconds),
               'step_ms': _spread(alone), 'step_beside_images_ms': _spread(beside)}
    _print(engine, figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + '\n')
    return 0


def write_random(folder: Path) -> Path:
    """Write a model in the shape of SmolVLM-256M, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
    source = GgufFile(find_model(''))
    source.tokenizer().save(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_special_tokens({'additional_special_tokens': list(EXTRA)})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    text = {'model_type': 'llama', 'vocab_size': len(tokenizer), 'hidden_size': 576,
            'intermediate_size': 1536, 'num_hidden_layers': 30, 'num_attention_heads': 9,
            'num_key_value_heads': 3, 'max_position_embeddings': 8192, 'eos_token_id': None,
            'bos_token_id': None}
    torch.manual_seed(SEED)
    AutoModelForImageTextToText.from_config(AutoConfig.for_model(
        'smolvlm', text_config=text, vision_config=TOWER, scale_factor=4, pad_token_id=0,
        image_token_id=tokenizer.convert_tokens_to_ids(EXTRA[0]), tie_word_embeddings=True),
        dtype=torch.float16).save_pretrained(folder)
    SmolVLMImageProcessorPil(do_image_splitting=False, size={'longest_edge': SIDE},
                             max_image_size={'longest_edge': SIDE}).save_pretrained(folder)
    return folder


def _steps(engine: Engine, more) -> list[float]:
    """Return the milliseconds of decode steps of one request, as long as `more` (count)."""
    times = []
    while more(len(times)):
        sequence = engine.open([1 + n % 250 for n in range(CONTEXT)], 256, Sampling())
        engine.step([(sequence, sequence.pending)])
        while not sequence.finish_reason and more(len(times)):
            began = time.perf_counter()
            engine.step([(sequence, sequence.pending)])
            times.append(1e3 * (time.perf_counter() - began))
        engine.close(sequence)
    return times


def _spread(times: list[float]) -> dict[str, float]:
    return {'p50': median(times), 'p99': quantiles(times, n=100)[-1], 'steps': len(times)}


def _print(engine: Engine, figures: dict) -> None:
    console = Console()
    console.print(engine.info.sentence())
    console.print(f'an image of {figures["tokens_of_an_image"]} tokens: '
                  f'{figures["image_s"]:.2f} s, beside steps '
                  f'{figures["image_beside_steps_s"]:.2f} s')
    table = Table(title='decode steps of one request, ms')
    for head in ('', 'p50', 'p99', 'steps'):
        table.add_column(head, justify='right')
    for name, key in (('alone', 'step_ms'), ('beside images', 'step_beside_images_ms')):
        spread = figures[key]
        table.add_row(name, f'{spread["p50"]:.1f}', f'{spread["p99"]:.1f}', str(spread['steps']))
    console.print(table)
