# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""The families that see: which parts of transformers encode an image, and its place in a prompt.

Each function is given the vision model, which is transformers' own without its language model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from slice_ros.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    import torch
    from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel

IMAGE, IMAGE_PAD = '<image>', '<|image_pad|>'
MOST_JOINED = 256   # rows of an image that one pass of any runner has room for
_BEGIN, _SOFT, _END = '<start_of_image>', '<image_soft_token>', '<end_of_image>'   # of Gemma


@dataclass(frozen=True, slots=True)
class VisionFamily:
    """How one `model_type` of transformers sees."""

    model: str        # class of transformers.models, with its module
    processor: str    # class of its image processor on Pillow, with its module
    language: str     # attribute of the model: the language model, which is not loaded
    # Pixels of one image as the model takes them.
    process: Callable[[Callable, object], 'BatchFeature']
    # Text that stands in the prompt for an image; `token` is one row of it.
    text: Callable[['PreTrainedModel', 'BatchFeature'], str]
    # Rows [n, width] of an image, as many as `text` has `token`, made piece by piece.
    rows: Callable[['PreTrainedModel', 'BatchFeature'], Iterator['torch.Tensor']]
    # Parts of an image, whose number its time is about proportional to.
    parts: Callable[['BatchFeature'], int]
    by_part: bool = False   # each part is a piece of its rows; else all are one
    # See `SeenImage.grid`.
    grid: Callable[['PreTrainedModel', 'BatchFeature'], tuple[int, int] | None] = (
        lambda model, pixels: None)
    token: str = IMAGE   # stands for one row, and in chat templates for an image
    place: str = ''      # what stands in chat templates for an image, if that is another,
    around: str = ''     # and what stands before and behind it
    joined: bool = False   # rows of an image attend to each other, later ones too

    def spaced(self, text: str) -> str:
        """Return the text of a chat template with what stands around images."""
        if not self.around:
            return text
        return text.replace(self.place, f'{self.around}{self.place}{self.around}')

    def load_class(self, name: str) -> type:
        """Return a class by its module and name."""
        module, _, name = name.rpartition('.')
        return getattr(import_module(f'transformers.models.{module}'), name)


def _idefics3_pixels(processor: Callable, image: object) -> 'BatchFeature':
    return processor(images=[[image]], return_row_col_info=True, return_tensors='pt')


def _idefics3_text(model: 'PreTrainedModel', pixels: 'BatchFeature') -> str:
    """Return tiles row by row, then the whole image; as `replace_image_token` of its processor."""
    rows, columns = pixels['rows'][0][0], pixels['cols'][0][0]
    edge, images = '<fake_token_around_image>', IMAGE * model.image_seq_len
    tiles = ''.join(
        ''.join(f'{edge}<row_{row}_col_{column}>{images}' for column in range(1, columns + 1))
        + '\n' for row in range(1, rows + 1))
    before = f'{tiles}\n' if tiles else ''
    return f'{before}{edge}<global-img>{images}{edge}'


def _idefics3_rows(model: 'PreTrainedModel', pixels: 'BatchFeature') -> Iterator['torch.Tensor']:
    """Yield the rows of tile after tile: all at once take more memory, and no less time."""
    tiles = zip(pixels['pixel_values'].split(1, 1), pixels['pixel_attention_mask'].split(1, 1))
    for tile in tiles:
        yield model.get_image_features(*tile).pooler_output[0]


def _one_image(processor: Callable, image: object) -> 'BatchFeature':
    return processor(images=[image], return_tensors='pt')


def _onevision_text(model: 'PreTrainedModel', pixels: 'BatchFeature') -> str:
    """Return one IMAGE for each row that packing the tiles leaves."""
    import torch
    tower = model.config.vision_config
    side = tower.image_size // tower.patch_size
    tiles = torch.zeros(pixels['pixel_values'].shape[1], side * side, 1)
    _, lengths = model.pack_image_features(
        [tiles], pixels['image_sizes'], torch.zeros(1), model.config.vision_aspect_ratio)
    return IMAGE * int(lengths[0])


def _onevision_rows(model: 'PreTrainedModel', pixels: 'BatchFeature') -> Iterator['torch.Tensor']:
    yield model.get_image_features(pixels['pixel_values'], pixels['image_sizes']).pooler_output[0]


def _tiles(pixels: 'BatchFeature') -> int:
    return pixels['pixel_values'].shape[1]


def _gemma3_pixels(processor: Callable, image: object) -> 'BatchFeature':
    """Return the pixels of the whole image alone, without pan and scan."""
    return processor(images=[image], do_pan_and_scan=False, return_tensors='pt')


def _gemma3_text(model: 'PreTrainedModel', pixels: 'BatchFeature') -> str:
    if model.config.mm_tokens_per_image > MOST_JOINED:
        raise RequestError(
            ErrorCode.PROMPT_TOO_LONG,
            f'an image has {model.config.mm_tokens_per_image} tokens that attend to each other, '
            f'and {MOST_JOINED} are the most that a pass takes')
    return f'{_BEGIN}{_SOFT * model.config.mm_tokens_per_image}{_END}'


def _gemma3_rows(model: 'PreTrainedModel', pixels: 'BatchFeature') -> Iterator['torch.Tensor']:
    yield model.get_image_features(pixels['pixel_values']).pooler_output[0]


def _qwen_grid(model: 'PreTrainedModel', pixels: 'BatchFeature') -> tuple[int, int]:
    _, height, width = pixels['image_grid_thw'][0].tolist()
    merged = model.visual.spatial_merge_size
    return height // merged, width // merged


def _qwen_text(model: 'PreTrainedModel', pixels: 'BatchFeature') -> str:
    height, width = _qwen_grid(model, pixels)
    return IMAGE_PAD * (height * width)


def _qwen_rows(model: 'PreTrainedModel', pixels: 'BatchFeature') -> Iterator['torch.Tensor']:
    """Yield rows, each followed by what it adds behind the first layers."""
    import torch
    made = model.get_image_features(pixels['pixel_values'], pixels['image_grid_thw'])
    levels = getattr(made, 'deepstack_features', None) or ()
    yield torch.cat([made.pooler_output[0], *(level[0] for level in levels)], 1)


def _qwen(name: str, title: str) -> VisionFamily:
    return VisionFamily(
        f'{name}.modeling_{name}.{title}Model',
        'qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil', 'language_model',
        _one_image, _qwen_text, _qwen_rows, lambda pixels: len(pixels['pixel_values']),
        grid=_qwen_grid, token=IMAGE_PAD)


def _idefics3(name: str, title: str) -> VisionFamily:
    return VisionFamily(
        f'{name}.modeling_{name}.{title}Model',
        f'{name}.image_processing_pil_{name}.{title}ImageProcessorPil', 'text_model',
        _idefics3_pixels, _idefics3_text, _idefics3_rows, _tiles, by_part=True)


VISION_FAMILIES: dict[str, VisionFamily] = {
    'idefics3': _idefics3('idefics3', 'Idefics3'),
    'smolvlm': _idefics3('smolvlm', 'SmolVLM'),
    'llava_onevision': VisionFamily(
        'llava_onevision.modeling_llava_onevision.LlavaOnevisionModel',
        'llava_onevision.image_processing_pil_llava_onevision.LlavaOnevisionImageProcessorPil',
        'language_model', _one_image, _onevision_text, _onevision_rows, _tiles),
    'gemma3': VisionFamily(
        'gemma3.modeling_gemma3.Gemma3Model',
        'gemma3.image_processing_pil_gemma3.Gemma3ImageProcessorPil', 'language_model',
        _gemma3_pixels, _gemma3_text, _gemma3_rows, lambda pixels: len(pixels['pixel_values']),
        token=_SOFT, place=_BEGIN, around='\n\n', joined=True),
    'qwen2_vl': _qwen('qwen2_vl', 'Qwen2VL'),
    'qwen2_5_vl': _qwen('qwen2_5_vl', 'Qwen2_5_VL'),
    'qwen3_vl': _qwen('qwen3_vl', 'Qwen3VL'),
    'qwen3_vl_moe': _qwen('qwen3_vl_moe', 'Qwen3VLMoe'),
    'qwen3_5': _qwen('qwen3_5', 'Qwen3_5'),
    'qwen3_5_moe': _qwen('qwen3_5_moe', 'Qwen3_5Moe'),
}


def vision_family(config: 'PreTrainedConfig') -> VisionFamily | None:
    """Return how a model sees, None for one that does not, or not here."""
    return VISION_FAMILIES.get(config.model_type)
