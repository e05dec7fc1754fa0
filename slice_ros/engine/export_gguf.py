# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m slice_ros.engine.export_gguf FOLDER``: a GGUF file as a Hugging Face directory.

vLLM reads such directories. Weights become plain floats: no code and no scale is kept, and float32
holds each weight exactly. One part is in memory at a time, and nothing is downloaded.
"""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
import json
import math
from pathlib import Path
import shutil
import sys
import tempfile

import numpy as np
from slice_ros.engine.checkpoints.gguf_file import GgufFile
from slice_ros.engine.checkpoints.gguf_tensors import GgufTensors
from slice_ros.engine.checkpoints.hf_directory import CompleteConfig
from slice_ros.engine.checkpoints.model_path import find_model
from slice_ros.engine.models.architecture import Architecture
from slice_ros.engine.models.families import describe
from slice_ros.errors import ModelError

# Those whose export transformers was seen to compute alike; a config may lack what others need.
MODEL_TYPES = ('llama', 'mistral', 'qwen2', 'qwen3', 'gemma2', 'gemma3_text', 'smollm3', 'granite',
               'olmo2', 'exaone4', 'glm4', 'ernie4_5', 'seed_oss', 'phi3')
DTYPES = ('float32', 'float16', 'bfloat16')
PART_BYTES = 1 << 30       # of one file, unless a single tensor is larger
SPARE_BYTES = 64 << 20     # of the disk, beside the weights: the tokenizer, and what others write
OFFSET = 'norm_offset'     # in the config of a GGUF file: what its norms contain already

# Settings of configs, one or the other by family, and the part of attention whose bias they mean.
BIASES = (('attention_bias', 'q_proj'), ('use_bias', 'q_proj'), ('attention_out_bias', 'o_proj'))


def export_gguf(model: str, folder: Path, dtype: str = 'float32') -> int:
    """Write the GGUF file `model` ('' = the embedded one) to `folder`; return bytes of weights.

    `folder` must not exist; it appears when all is written. Raises ``ModelError`` for a model that
    is no GGUF file, or has experts or recurrent layers, and ``OSError`` where the disk has no
    room or the folder is there already.
    """
    source = GgufFile(_gguf(model))
    config = source.config()
    made = describe(CompleteConfig(**config))
    if not isinstance(made, Architecture):
        raise ModelError(f'{source.path} cannot be exported: {made}')
    if made.experts is not None or made.recurrence is not None:
        raise ModelError(f'{source.path} cannot be exported: it has experts or recurrent layers, '
                         'which no two programs store alike; take the original directory')
    if config['model_type'] not in MODEL_TYPES:
        raise ModelError(f'{source.path} cannot be exported: of {config["model_type"]} it is not '
                         'known whether the file says all; take the original directory')
    if folder.exists():
        raise FileExistsError(f'{folder} is there already: name a new folder')
    tensors, width = GgufTensors(source, np.float32), 4 if dtype == 'float32' else 2
    size = sum(math.prod(tensors.shape(name)) for name in tensors.names()) * width
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(parent).free < size + SPARE_BYTES:
        raise OSError(f'{parent} has no room for {size >> 20} MiB of weights')
    with tempfile.TemporaryDirectory(dir=parent, prefix='.export-') as part:
        whole = Path(part) / 'model'
        whole.mkdir()
        source.tokenizer().save(whole)
        _write_weights(whole, tensors, dtype, config.pop(OFFSET, None) is not None)
        (whole / 'config.json').write_text(json.dumps(
            _complete(config, tensors) | {'dtype': dtype}, indent=1))
        whole.rename(folder)
    return size


def _gguf(model: str) -> Path:
    path = find_model(model)
    if path.is_dir():
        raise ModelError(f'{path} is a model directory, which vLLM reads as it is')
    return path


def _complete(config: dict, tensors: GgufTensors) -> dict:
    """Return a config that says what is only seen in the tensors, and the class of the model.

    By that class vLLM finds its own.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    biases = {setting: f'model.layers.0.self_attn.{part}.bias' in tensors
              for setting, part in BIASES}
    return {'pad_token_id': None} | config | biases | {
        'architectures': [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config['model_type']]]}


def _write_weights(folder: Path, tensors: GgufTensors, dtype: str, shift: bool) -> None:
    """Write the tensors in parts, and where each of them is; with `shift`, norms less one."""
    import torch
    from safetensors.torch import save_file
    parts, place, total = list(_parts(tensors)), {}, 0
    for number, names in enumerate(parts, 1):
        file = f'model-{number:05}-of-{len(parts):05}.safetensors'
        part = {}
        for name in names:
            values = tensors.floats(name).astype(np.float32, copy=False)
            if shift and values.ndim == 1 and name.endswith('norm.weight'):
                values = values - np.float32(1)
            part[name] = torch.from_numpy(np.ascontiguousarray(values)).to(getattr(torch, dtype))
            total += part[name].nbytes
            place[name] = file
        save_file(part, folder / file, {'format': 'pt'})
    (folder / 'model.safetensors.index.json').write_text(json.dumps(
        {'metadata': {'total_size': total}, 'weight_map': place}, indent=1))


def _parts(tensors: GgufTensors) -> Iterator[list[str]]:
    """Yield the names of the tensors of each file."""
    names, size = [], 0
    for name in tensors.names():
        more = 4 * math.prod(tensors.shape(name))   # as they are read
        if names and size + more > PART_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    yield names


def main(argv: Sequence[str] | None = None) -> int:
    """Export the model that the arguments name; return the exit status."""
    parser = ArgumentParser(prog='python -m slice_ros.engine.export_gguf',
                            description='Write a GGUF file as a directory that vLLM reads.')
    parser.add_argument('folder', type=Path, help='the directory to make')
    parser.add_argument('--model', default='', help='a .gguf file (default: the embedded model)')
    parser.add_argument('--dtype', choices=DTYPES, default='float32')
    args = parser.parse_args(argv)
    try:
        size = export_gguf(args.model, args.folder, args.dtype)
    except (ModelError, OSError) as error:
        print(f'export_gguf: {error}', file=sys.stderr)
        return 2
    print(f'{args.folder}: {size >> 20} MiB of {args.dtype} weights')
    return 0


if __name__ == '__main__':
    sys.exit(main())
