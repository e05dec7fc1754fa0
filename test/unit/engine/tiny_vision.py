# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models that see, with random weights, in the shapes of real families."""

from functools import cache

import numpy as np
from slice_ros.engine.vision.pictures import Picture
from slice_ros.engine.vision.vision_families import VISION_FAMILIES
import tiny
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, LlamaConfig
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava_onevision.processing_llava_onevision import (
    LlavaOnevisionProcessor)

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ 'IMAGE' }}{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
# Three tiles of a wide image, and parts of their names, are tokens of their own.
SPECIAL = ['<image>', '<fake_token_around_image>', '<global-img>', *(
    f'<row_{row}_col_{column}>' for row in (1, 2) for column in (1, 2, 3)), '<|image_pad|>',
           '<start_of_image>', '<image_soft_token>', '<end_of_image>']
FIRST_SPECIAL = 259
SQUARE = 10   # pixels
_TOWER = {'image_size': 32, 'patch_size': 8, 'hidden_size': 32, 'intermediate_size': 48,
          'num_hidden_layers': 2, 'num_attention_heads': 2}
_PINPOINTS = [[32, 32], [32, 64], [64, 32], [64, 64], [32, 96]]
_IDEFICS3 = {'size': {'longest_edge': 64}, 'max_image_size': {'longest_edge': 32}}
_SIGLIP = _TOWER | {'model_type': 'siglip_vision_model', 'vision_use_head': False}
_QWEN_TOWER = {'depth': 2, 'hidden_size': 32, 'intermediate_size': 48, 'num_heads': 2,
               'patch_size': 8, 'out_hidden_size': 64}
_PATCHES = {'patch_size': 8, 'size': {'shortest_edge': 16 * 16, 'longest_edge': 96 * 96}}


def _turned(*sections, **more):
    """Return rope parameters of positions with three numbers."""
    return {'rope_parameters': {'rope_type': 'default', 'rope_theta': 10000.0,
                                'mrope_section': list(sections), **more}}


# By family: language model, the rest of the config, and of the image processor.
FAMILIES = {
    'idefics3': ({'model_type': 'llama'}, {'vision_config': _TOWER, 'scale_factor': 2}, _IDEFICS3),
    'smolvlm': ({'model_type': 'llama'}, {'vision_config': _TOWER, 'scale_factor': 2}, _IDEFICS3),
    'llava_onevision': (
        {'model_type': 'qwen2'}, {'vision_config': _SIGLIP, 'image_grid_pinpoints': _PINPOINTS},
        {'size': {'height': 32, 'width': 32}, 'image_grid_pinpoints': _PINPOINTS}),
    # An image has more rows than its windows have tokens.
    'gemma3': (
        {**tiny.FAMILIES['gemma3_text']().to_dict(), 'sliding_window': 11},
        {'vision_config': _SIGLIP | {'image_size': 64}, 'mm_tokens_per_image': 16},
        {'size': {'height': 64, 'width': 64}}),
    'qwen2_vl': (
        {'model_type': 'qwen2_vl_text', **_turned(2, 3, 3)},
        {'vision_config': {'depth': 2, 'embed_dim': 32, 'hidden_size': 64, 'num_heads': 2,
                           'patch_size': 8}}, _PATCHES),
    'qwen2_5_vl': (
        {'model_type': 'qwen2_5_vl_text', **_turned(2, 3, 3)},
        {'vision_config': _QWEN_TOWER | {'window_size': 32, 'fullatt_block_indexes': [1]}},
        _PATCHES),
    'qwen3_vl': (
        {'model_type': 'qwen3_vl_text', 'head_dim': 24, **_turned(4, 4, 4)},
        {'vision_config': _QWEN_TOWER | {'num_position_embeddings': 16,
                                         'deepstack_visual_indexes': [0, 1]}}, _PATCHES),
    'qwen3_vl_moe': (
        {'model_type': 'qwen3_vl_moe_text', 'head_dim': 24, 'num_experts': 6,
         'num_experts_per_tok': 2, 'moe_intermediate_size': 40, 'mlp_only_layers': [0],
         **_turned(4, 4, 4)},
        {'vision_config': _QWEN_TOWER | {'num_position_embeddings': 16,
                                         'deepstack_visual_indexes': [0, 1]}}, _PATCHES),
    'qwen3_5': (
        {**tiny.RECURRENT['qwen3_5_text']().to_dict(), 'head_dim': 32,
         **_turned(2, 1, 1, partial_rotary_factor=0.25)},
        {'vision_config': _QWEN_TOWER | {'num_position_embeddings': 16}}, _PATCHES),
    'qwen3_5_moe': (
        {**tiny.RECURRENT['qwen3_5_moe_text']().to_dict(), 'head_dim': 32,
         **_turned(2, 1, 1, partial_rotary_factor=0.25)},
        {'vision_config': _QWEN_TOWER | {'num_position_embeddings': 16}}, _PATCHES),
}


# Those of which the language model runs alone, and their towers.
BLIND = {
    'llava': (LlamaConfig(**tiny._SHAPE), {
        'model_type': 'clip_vision_model', 'hidden_size': 32, 'intermediate_size': 32,
        'num_hidden_layers': 1, 'num_attention_heads': 2, 'image_size': 28, 'patch_size': 14}),
}


def save_blind(path, name):
    """Write the directory of a model that sees in a way that is not known; return the model."""
    text, tower = BLIND[name]
    torch.manual_seed(7)
    made = AutoModelForImageTextToText.from_config(AutoConfig.for_model(
        name, text_config=text.to_dict(), vision_config=tower), dtype=torch.float32).eval()
    made.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return made


def config(name):
    """Return the config of a family, whose answers have no end."""
    language, more, _ = FAMILIES[name]
    shape = {key: value for key, value in tiny._SHAPE.items() if 'token_id' not in key}
    return AutoConfig.for_model(
        name, text_config=shape | {'max_position_embeddings': 512, 'bos_token_id': None,
                                   'eos_token_id': None} | language,
        image_token_id=image_token(name), tie_word_embeddings=True, pad_token_id=0, **more)


def language(name):
    """Return the config of the language model of a family."""
    made = config(name).text_config
    made.tie_word_embeddings = True
    return made


def image_token(name):
    """Return the id of the token that stands for a row of an image."""
    return FIRST_SPECIAL + SPECIAL.index(VISION_FAMILIES[name].token)


def place(name):
    """Return what stands for an image in chat templates of a family."""
    return VISION_FAMILIES[name].place or VISION_FAMILIES[name].token


def tokenizer(name):
    """Return the tokenizer of the other tiny models, with the tokens of images."""
    made = tiny.tokenizer()
    made.add_special_tokens({'additional_special_tokens': SPECIAL})
    made.chat_template = TEMPLATE.replace('IMAGE', place(name))
    assert made.convert_tokens_to_ids(SPECIAL[0]) == FIRST_SPECIAL
    return made


@cache
def processor(name):
    """Return the image processor of a family."""
    family = VISION_FAMILIES[name]
    return family.load_class(family.processor)(**FAMILIES[name][2])


def save(path, name):
    """Write a model directory and return the model in it."""
    torch.manual_seed(8)
    made = AutoModelForImageTextToText.from_config(config(name), dtype=torch.float32).eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.15)
        else:
            parameter.data.uniform_(0.5, 1.5)
    made.save_pretrained(path)
    tokenizer(name).save_pretrained(path)
    processor(name).save_pretrained(path)
    return made


def picture(seed, height=40, width=60):
    """Return a picture of its own for each seed, of squares that no tower overlooks."""
    squares = np.random.default_rng(seed).integers(
        0, 255, (height // SQUARE + 1, width // SQUARE + 1, 3), np.uint8)
    return Picture.of(squares.repeat(SQUARE, 0).repeat(SQUARE, 1)[:height, :width])


def inputs(name, text, pictures):
    """Return what transformers' `generate` takes, of a text with the image token of the family."""
    if VISION_FAMILIES[name].token == '<image>':
        return reference(name, tokenizer(name))(text=[text], images=pictures or None,
                                                return_tensors='pt')
    if name == 'gemma3':   # as its processor, which knows special tokens of its tokenizer alone
        rows = f'<start_of_image>{"<image_soft_token>" * 16}<end_of_image>'
        ids = tokenizer(name)(text.replace('<start_of_image>', f'\n\n{rows}\n\n'),
                              return_tensors='pt')
        pixels = {'pixel_values': processor(name)(images=pictures, return_tensors='pt')[
            'pixel_values']} if pictures else {}
        return {**ids, **pixels, 'token_type_ids': (ids['input_ids'] == image_token(name)).int()}
    # The processors of Qwen's models need torchvision.
    pixels = processor(name)(images=pictures, return_tensors='pt') if pictures else {}
    for _, height, width in pixels.get('image_grid_thw', torch.empty(0, 3)).tolist():
        text = text.replace('<|image_pad|>', '<|row|>' * (height * width // 4), 1)
    ids = tokenizer(name)(text.replace('<|row|>', '<|image_pad|>'), return_tensors='pt')
    return {**ids, **pixels,
            'mm_token_type_ids': (ids['input_ids'] == image_token(name)).int()}


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
