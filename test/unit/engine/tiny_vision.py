# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models that see, with random weights, in the shapes of real families."""

from functools import cache

import numpy as np
from slice_ros.engine.vision.pictures import Picture
from slice_ros.engine.vision.vision_families import VISION_FAMILIES
import tiny
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava_onevision.processing_llava_onevision import (
    LlavaOnevisionProcessor)

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
# Three tiles of a wide image, and parts of their names, are tokens of their own.
SPECIAL = ['<image>', '<fake_token_around_image>', '<global-img>', *(
    f'<row_{row}_col_{column}>' for row in (1, 2) for column in (1, 2, 3))]
IMAGE_TOKEN = 259
_TOWER = {'image_size': 32, 'patch_size': 8, 'hidden_size': 32, 'intermediate_size': 48,
          'num_hidden_layers': 2, 'num_attention_heads': 2}
_PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64], [32, 96]]
_IDEFICS3 = {'size': {'longest_edge': 64}, 'max_image_size': {'longest_edge': 32}}
_SIGLIP = _TOWER | {'model_type': 'siglip_vision_model', 'vision_use_head': False}
# By family: language model, the rest of the config, and of the image processor.
FAMILIES = {
    'idefics3': ('llama', {'vision_config': _TOWER, 'scale_factor': 2}, _IDEFICS3),
    'smolvlm': ('llama', {'vision_config': _TOWER, 'scale_factor': 2}, _IDEFICS3),
    'llava_onevision': (
        'qwen2', {'vision_config': _SIGLIP, 'image_grid_pinpoints': _PINPOINTS},
        {'size': {'height': 32, 'width': 32}, 'image_grid_pinpoints': _PINPOINTS}),
}


# Those of which the language model runs alone, and their towers.
BLIND = {
    'qwen3_5': (tiny.RECURRENT['qwen3_5_text'], {
        'depth': 1, 'hidden_size': 32, 'intermediate_size': 32, 'num_heads': 2,
        'out_hidden_size': 64}),
    'gemma3': (tiny.FAMILIES['gemma3_text'], {
        'hidden_size': 32, 'intermediate_size': 32, 'num_hidden_layers': 1,
        'num_attention_heads': 2, 'image_size': 28, 'patch_size': 14}),
}


def save_blind(path, name):
    """Write the directory of a model that sees in a way that is not known; return the model."""
    text, tower = BLIND[name]
    torch.manual_seed(7)
    made = AutoModelForImageTextToText.from_config(AutoConfig.for_model(
        name, text_config=text().to_dict(), vision_config=tower), dtype=torch.float32).eval()
    made.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return made


def config(name):
    """Return the config of a family, whose answers have no end."""
    language, more, _ = FAMILIES[name]
    shape = {key: value for key, value in tiny._SHAPE.items() if 'token_id' not in key}
    return AutoConfig.for_model(
        name, text_config=shape | {'model_type': language, 'max_position_embeddings': 512,
                                   'bos_token_id': None, 'eos_token_id': None},
        image_token_id=IMAGE_TOKEN, tie_word_embeddings=True, pad_token_id=0, **more)


def tokenizer():
    """Return the tokenizer of the other tiny models, with the tokens of images."""
    made = tiny.tokenizer()
    made.add_special_tokens({'additional_special_tokens': SPECIAL})
    made.chat_template = TEMPLATE
    assert made.convert_tokens_to_ids('<image>') == IMAGE_TOKEN
    return made


@cache
def processor(name):
    """Return the image processor of a family."""
    family = VISION_FAMILIES[name]
    return family.load_class(family.processor)(**FAMILIES[name][2])


def save(path, name):
    """Write a model directory and return the model in it."""
    torch.manual_seed(7)
    made = AutoModelForImageTextToText.from_config(config(name), dtype=torch.float32).eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.15)
        else:
            parameter.data.uniform_(0.5, 1.5)
    made.save_pretrained(path)
    tokenizer().save_pretrained(path)
    processor(name).save_pretrained(path)
    return made


def picture(seed, height=40, width=60):
    """Return a picture of its own for each seed."""
    return Picture.of(np.random.default_rng(seed).integers(
        0, 255, (height, width, 3), np.uint8))


def reference(name, tokenizer):
    """Return transformers' own processor of a family."""
    if name == 'llava_onevision':
        return _WithoutVideos(processor(name), tokenizer, None, num_image_tokens=16,
                              vision_feature_select_strategy='full')
    return Idefics3Processor(processor(name), tokenizer, image_seq_len=4)


class _WithoutVideos(LlavaOnevisionProcessor):
    """That of LLaVA-OneVision where its processor of videos cannot be imported."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return type(argument)
