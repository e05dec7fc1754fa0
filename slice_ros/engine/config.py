# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the engine (model, memory) and of a request (sampling, response format)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
import json
import math
import re
from typing import NamedTuple

# Called with what is being done and the share of it that is done, from 0 to 1.
Progress = Callable[[str, float], None]

WEIGHTS = ('auto', 'fp16', 'bf16', 'fp32', 'int8', 'int4')
KV = ('auto', '16', '8')
BACKENDS = ('native', 'vllm')
DEVICES = ('auto', 'cpu', 'cuda')
ISAS = ('auto', 'portable', 'avx2', 'avxvnni', 'avx512', 'dotprod', 'i8mm')
FORMATS = ('text', 'choice', 'json_schema', 'regex')
TOOL_SYNTAXES = ('auto', 'hermes', 'llama', 'mistral', 'mistral_spaced', 'mistral_args', 'gemma',
                 'phi', 'json')
MAX_TEMPLATE_ARGUMENTS = 4096   # characters
# What every chat template is given with a request.
GIVEN = ('messages', 'tools', 'documents', 'add_generation_prompt')
MAX_BIASES = 300         # tokens of a logit bias; as OpenAI's API allows
MAX_BIAS = 100.0         # of a logit, either way: a token is banned, or taken for sure
MAX_LOGPROBS = 20        # likeliest tokens that an answer may have beside each of its own
MAX_ADAPTERS = 64
MAX_PREFIX_CACHE = 1 << 44
_ADAPTER = re.compile(r'([\w.-]{1,63})=(.+)', re.DOTALL)
_ADDRESS = re.compile(r'(?:[A-Za-z0-9][\w.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}', re.ASCII)
MAX_STOPS = 16           # stop texts of a request
MAX_STOP_BYTES = 256     # the longest of them
MAX_IMAGES = 8           # images of a request
MAX_IMAGE_BYTES = 8 << 20   # of all of them, as they are sent: so much may wait in the queue
MAX_TOOLS = 64           # tools of a request
MAX_TOOL_BYTES = 32768   # of their names, descriptions and schemas together


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Model and limits of an engine.

    Raises ``ValueError`` naming the field when a value is out of range or not one of its choices.
    """

    model: str = ''          # '' = the embedded SmolLM2; else a Hugging Face directory or a .gguf
    device: str = 'auto'     # auto | cpu | cuda
    weights: str = 'auto'    # auto | fp16 | bf16 | fp32 | int8 | int4
    kv: str = 'auto'         # auto | 16 | 8: bits of a key or value in the KV cache
    max_context: int = 2048  # tokens of one request in the KV cache; the model may limit it more
    slots: int = 32          # requests with a KV cache at once
    max_batch: int = 16      # requests in one decode step
    threads: int = 0         # 0 = torch's default
    isa: str = 'auto'        # instruction set of the native kernels; auto = the best there is
    memory_fraction: float = 0.5  # of the memory that the weights leave free, for the KV cache
    chat_template: str = ''  # file of a Jinja template in place of the model's own; '' = that
    template_arguments: str = ''  # JSON object: names that the chat template reads; '' = none
    tool_syntax: str = 'auto'     # how the model calls tools; auto = as its chat template shows
    adapters: tuple[str, ...] = ()  # NAME=DIRECTORY of each LoRA adapter that requests may name
    draft_model: str = ''    # guesses for `model`: a directory or .gguf as that; '' = none does
    draft_weights: str = 'auto'   # of the draft model
    backend: str = 'native'  # native | vllm: who computes the steps
    vllm_python: str = ''    # program of the Python that has vLLM; '' = this one
    tensor_parallel_size: int = 1   # GPUs that vLLM divides the model among
    ray_address: str = ''    # HOST:PORT of a Ray cluster that has these; '' = this machine
    prefix_cache: str = ''   # folder of computed preambles; '' = that of the user's cache
    prefix_cache_bytes: int = 0     # that they may take on disk; 0 = none is kept there

    def __post_init__(self) -> None:
        for name, choices in (('weights', WEIGHTS), ('draft_weights', WEIGHTS), ('kv', KV),
                              ('device', DEVICES), ('isa', ISAS),
                              ('tool_syntax', TOOL_SYNTAXES), ('backend', BACKENDS)):
            if getattr(self, name) not in choices:
                raise ValueError(f'{name} must be one of {", ".join(choices)}, '
                                 f'not {getattr(self, name)!r:.80}')
        for name, low, high in (('max_context', 8, 1 << 22), ('slots', 1, 4096),
                                ('max_batch', 1, 4096), ('threads', 0, 1024),
                                ('tensor_parallel_size', 1, 64),
                                ('prefix_cache_bytes', 0, MAX_PREFIX_CACHE)):
            _check_int(name, getattr(self, name), low, high)
        if self.ray_address and not _ADDRESS.fullmatch(self.ray_address):
            raise ValueError('ray_address must be HOST:PORT, such as 192.168.1.10:6379, not '
                             f'{self.ray_address!r:.80}')
        if not 0 < self.memory_fraction <= 1:
            raise ValueError(f'memory_fraction must be above 0 and at most 1, not '
                             f'{self.memory_fraction}')
        if self.draft_model and self.backend != 'native':
            raise ValueError(f'draft_model needs the backend native, not {self.backend}: leave it '
                             'empty')
        template_arguments(self.template_arguments)
        adapter_directories(self.adapters)


def adapter_directories(entries: Iterable[str]) -> dict[str, str]:
    """Return directories of adapters by name, from entries NAME=DIRECTORY.

    Raises ``ValueError`` for other entries, a name that is there twice, or too many.
    """
    found = {}
    for entry in entries:
        match = _ADAPTER.fullmatch(entry)
        if match is None or match[1] in found:
            raise ValueError('adapters must be NAME=DIRECTORY each, with different names of '
                             f'letters, digits, _ . and -, not {entry!r:.80}')
        found[match[1]] = match[2]
    if len(found) > MAX_ADAPTERS:
        raise ValueError(f'adapters has {len(found)} entries: give {MAX_ADAPTERS} at most')
    return found


def template_arguments(text: str) -> dict[str, object]:
    """Return the arguments of a chat template from a JSON object, none from ''.

    Raises ``ValueError`` when it is no object, too long, or has a name that is not free.
    """
    if not text:
        return {}
    try:
        found = json.loads(text) if len(text) <= MAX_TEMPLATE_ARGUMENTS else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError('template_arguments must be a JSON object of at most '
                         f'{MAX_TEMPLATE_ARGUMENTS} characters, such as '
                         f'{{"enable_thinking": false}}, not {text!r:.80}')
    taken = next((name for name in found if not name.isidentifier() or name in GIVEN), None)
    if taken is not None:
        raise ValueError(f'template_arguments has the name {taken!r:.80}, which is none that a '
                         'template could read, or is given by the node')
    return found


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from the logits.

    The order is: bias, repetition penalty, temperature, top-k, top-p, min-p. Raises ``ValueError``
    naming the field when a value is not finite or out of range.
    """

    temperature: float = 0.0         # 0 = greedy: the most likely token; top_k to min_p are unused
    top_k: int = 0                   # keep the k most likely; 0 = all
    top_p: float = 1.0               # keep the most likely until they sum up to this probability
    min_p: float = 0.0               # keep those at least this share of the most likely
    repetition_penalty: float = 1.0  # divides positive logits of tokens seen before; 1 = none
    seed: int | None = None          # same seed, same text; None = a fresh one per request
    logit_bias: tuple[tuple[int, float], ...] = ()   # token ids, and what is added to their logits
    logprobs: int | None = None      # report the tokens' own and so many likeliest; None = none

    def __post_init__(self) -> None:
        for name, low, high in (('temperature', 0.0, 100.0), ('top_p', 0.0, 1.0),
                                ('min_p', 0.0, 1.0), ('repetition_penalty', 0.01, 100.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f'{name} must be a number, not {value!r:.80}')
            if not math.isfinite(value) or not low <= value <= high:
                raise ValueError(f'{name} must be between {low:g} and {high:g}, not {value}')
        if self.top_p == 0:
            raise ValueError('top_p must be above 0 (1 keeps every token)')
        _check_int('top_k', self.top_k, 0, 1 << 31)
        _check_bias(self.logit_bias)
        if self.logprobs is not None:
            _check_int('logprobs', self.logprobs, 0, MAX_LOGPROBS)
        if self.seed is not None:
            _check_int('seed', self.seed, -(1 << 63), (1 << 64) - 1)


class Tool(NamedTuple):
    """A function that the model may call; checked by `read_tools` of the room `text.tools`."""

    name: str
    description: str = ''
    parameters: str = ''   # JSON schema of its arguments; '' = it has none


class ToolCall(NamedTuple):
    """A call of a tool, as the model wishes it."""

    id: str          # noqa: A003
    name: str
    arguments: str   # JSON object


class Message(NamedTuple):
    """A message of a conversation; a plain (role, content) pair will do as well."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()   # of an assistant: what it ended with
    tool_call_id: str = ''                  # of a tool: the call whose result it is
    images: tuple = ()                      # of a user: each a `Picture` or a `SeenImage`


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form that an answer must have; checked by `Engine.open`."""

    kind: str = 'text'              # text | choice | json_schema | regex
    choices: tuple[str, ...] = ()   # for choice
    grammar: str = ''               # for json_schema: JSON text; for regex: the expression
    tools: tuple[Tool, ...] = ()    # that the answer may call; for text
    tool_choice: str = 'auto'       # auto | required | name of a tool


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded, and how it runs. Sizes are in bytes."""

    model: str         # the model's own name, else its file name
    family: str        # model type: llama, qwen2, mistral ...
    device: str        # cpu | cuda:0 ...
    fills_cores: bool  # a step uses every core of the machine
    weights: str       # of the layers: fp16 | bf16 | fp32 | int8 | int4, or 'int4+int8'
    path: str          # implementation of the forward pass: 'flat batch' | 'transformers'
    kernels: str       # implementations of attention and linears, in words
    max_context: int   # tokens that one request may have in the KV cache
    slots: int         # requests with a KV cache at once
    kv_tokens: int     # tokens that all requests together may have in the KV cache
    weight_bytes: int  # with those of the draft model
    kv_bits: int       # of a key or value: 8 | 16 | 32
    kv_bytes: int      # of `kv_tokens`, and as well; on CPU, memory is taken on first use
    vocab_size: int
    threads: int = 1   # that compute a step on the CPU
    hidden: int = 0     # width of an embedding; 0 = the runner makes none
    asynchronous: bool = False  # a launched step computes by itself while the host goes on
    adapters: tuple[str, ...] = ()  # that requests may name; sequences have their numbers
    draft_model: str = ''   # the name of the one that guesses; '' = none does

    def sentence(self) -> str:
        """Return what was loaded, for the log."""
        return (f'{self.model} ({self.family}) on {self.device}: {self.path} ({self.kernels}), '
                f'{self.weight_bytes / 2**20:.0f} MiB of {self.weights} weights, at most '
                f'{self.kv_bytes / 2**20:.0f} MiB of keys and values in {self.kv_bits} bits for '
                f'{self.slots} requests of {self.max_context} tokens, {self.kv_tokens} in all')


def _check_bias(pairs: tuple[tuple[int, float], ...]) -> None:
    if len(pairs) > MAX_BIASES or len(dict(pairs)) < len(pairs):
        raise ValueError(f'logit_bias has {len(pairs)} tokens: give {MAX_BIASES}, each once')
    for token, bias in pairs:
        _check_int('a token of logit_bias', token, 0, (1 << 31) - 1)
        if not abs(bias) <= MAX_BIAS:   # NaN is no such number either
            raise ValueError(f'the logit_bias of token {token} must be between {-MAX_BIAS:g} and '
                             f'{MAX_BIAS:g}, not {bias}')


def no_progress(what: str, share: float) -> None:
    """Ignore progress."""


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f'{name} must be a whole number from {low} to {high}, not {value!r:.80}')
