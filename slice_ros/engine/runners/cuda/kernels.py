# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""All of a decode step on a GPU except matrix products: five fused Triton kernels.

Every kernel reads the positions and pages of its rows on the device, so that a step can be
recorded once and replayed for any requests. Imported only where Triton is installed.
"""

from slice_ros.engine.kv.slots import PAGE_TOKENS
import torch
import triton
import triton.language as tl

_TILE_BYTES = 1 << 14  # of keys that a program reads together: see `tile_keys`
_STAGES = 5            # of attention: two tiles are being loaded, and the pages of two more
_LEAST_ROWS = 16       # of a matrix product in Triton, in every direction
_CHUNK_ROWS = 32       # tokens by heads of a group, of a prefill chunk, in a program
_COLUMNS = 1024        # of the feed-forward layer, by one program


@triton.jit
def _rope_and_store(qkv, cos, sin, positions, places, queries, cache, heads, kv_heads, room,
                    DIM: tl.constexpr, HALF: tl.constexpr):
    # Program (row, head): rotate queries and keys, store keys and values at the row's place.
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    position, place = tl.load(positions + row).to(tl.int64), tl.load(places + row).to(tl.int64)
    at = tl.arange(0, HALF)
    inside = at < DIM // 2
    source = qkv + (row * (heads + 2 * kv_heads) + head) * DIM
    low = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(source + DIM // 2 + at, mask=inside, other=0.0).to(tl.float32)
    if head < heads + kv_heads:
        angle = position * DIM + at
        # The first half of the sines is negated: "rotate half" is a swap of halves.
        turned = (low * tl.load(cos + angle, mask=inside, other=0.0)
                  + high * tl.load(sin + angle, mask=inside, other=0.0))
        high = (high * tl.load(cos + angle + DIM // 2, mask=inside, other=0.0)
                + low * tl.load(sin + angle + DIM // 2, mask=inside, other=0.0))
        low = turned
    if head < heads:
        target = queries + (row * heads + head) * DIM
    else:
        target = cache + ((head - heads) * room.to(tl.int64) + place) * DIM
    tl.store(target + at, low.to(target.dtype.element_ty), mask=inside)
    tl.store(target + DIM // 2 + at, high.to(target.dtype.element_ty), mask=inside)


@triton.jit
def _attend_split(queries, cache, positions, pages, part, most, total, kv_heads, room, columns,
                  scale, GROUP: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr,
                  DIM: tl.constexpr, WIDE: tl.constexpr, PAGE: tl.constexpr, KEYS: tl.constexpr,
                  SPLITS: tl.constexpr):
    # Program (tile of tokens, key-value head, split): a share of the keys of one request, for all
    # heads of a group and TOKENS neighbouring tokens. Pages are by tile where TOKENS is 1, else
    # all tiles are of one request.
    tile, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    member, at = tl.arange(0, ROWS), tl.arange(0, WIDE)
    mine = member < TOKENS * GROUP
    row = tile * TOKENS + member // GROUP
    position = tl.load(positions + row, mask=mine, other=0)
    length = tl.max(position, 0) + 1
    share = tl.cdiv(tl.cdiv(length, SPLITS), KEYS) * KEYS
    begin = split * share
    end = tl.minimum(begin + share, length)
    if TOKENS == 1:
        pages += tile * columns
    heads = kv_heads * GROUP
    head = row * heads + kv_head * GROUP + member % GROUP
    ours = mine[:, None] & (at[None, :] < DIM)
    query = tl.load(queries + head[:, None] * DIM + at[None, :], mask=ours, other=0.0)
    keys = cache + kv_head * room.to(tl.int64) * DIM
    values = keys + kv_heads * room.to(tl.int64) * DIM
    best = tl.full([ROWS], float('-inf'), tl.float32)
    whole = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, WIDE], tl.float32)
    for first in range(begin, end, KEYS):
        # KEYS divides PAGE: these keys are in one page.
        page = tl.load(pages + first // PAGE).to(tl.int64)
        number = first + tl.arange(0, KEYS)
        place = page * PAGE + number % PAGE
        seen = (number[:, None] < end) & (at[None, :] < DIM)
        key = tl.load(keys + place[:, None] * DIM + at[None, :], mask=seen, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision='ieee').to(tl.float32) * scale
        known = (number[None, :] < end) & (number[None, :] <= position[:, None])
        score = tl.where(known, score, float('-inf'))
        top = tl.maximum(best, tl.max(score, 1))
        against = tl.where(top == float('-inf'), 0.0, top)  # a token that knows none of the keys
        weight = tl.exp(score - against[:, None])
        fade = tl.exp(best - against)
        whole = whole * fade + tl.sum(weight, 1)
        value = tl.load(values + place[:, None] * DIM + at[None, :], mask=seen, other=0.0)
        mixed = mixed * fade[:, None] + tl.dot(weight.to(value.dtype), value,
                                               input_precision='ieee')
        best = top
    to = head * SPLITS + split
    tl.store(part + to[:, None] * DIM + at[None, :], mixed, mask=ours)
    tl.store(most + to, best, mask=mine)
    tl.store(total + to, whole, mask=mine)


@triton.jit
def _join_splits(part, most, total, out, DIM: tl.constexpr, WIDE: tl.constexpr,
                 SPLITS: tl.constexpr):
    # Program (row and head): sum of the shares of `_attend_split`, weighted by their scores.
    head = tl.program_id(0).to(tl.int64)
    split, at = tl.arange(0, SPLITS), tl.arange(0, WIDE)
    best = tl.load(most + head * SPLITS + split)
    weight = tl.exp(best - tl.max(best, 0))   # 0 for a share without a key
    whole = tl.sum(weight * tl.load(total + head * SPLITS + split), 0)
    inside = at < DIM
    mixed = tl.load(part + (head * SPLITS + split[:, None]) * DIM + at[None, :],
                    mask=inside[None, :], other=0.0)
    mixed = tl.sum(mixed * weight[:, None], 0) / whole
    tl.store(out + head * DIM + at, mixed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_and_norm(h, delta, norm, out, hidden, eps, WIDE: tl.constexpr):
    # Program (row): h += delta, out = RMS norm of h.
    row, at = tl.program_id(0).to(tl.int64), tl.arange(0, WIDE)
    inside = at < hidden
    x = tl.load(h + row * hidden + at, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(delta + row * hidden + at, mask=inside, other=0.0).to(tl.float32)
    x = x.to(h.dtype.element_ty)
    tl.store(h + row * hidden + at, x, mask=inside)
    x = x.to(tl.float32)
    x = x / tl.sqrt(tl.sum(x * x, 0) / hidden + eps)
    x *= tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * hidden + at, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _silu_and_mul(gate_up, out, intermediate, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = at < intermediate
    gate = tl.load(gate_up + 2 * row * intermediate + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + (2 * row + 1) * intermediate + at, mask=inside, other=0.0)
    x = gate / (1 + tl.exp(-gate)) * up.to(tl.float32)
    tl.store(out + row * intermediate + at, x.to(out.dtype.element_ty), mask=inside)


def rope_and_store(qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor,
                   positions: torch.Tensor, places: torch.Tensor, cache: torch.Tensor, heads: int
                   ) -> torch.Tensor:
    """Return rotated queries [rows, heads, dim]; store keys and values in the cache.

    `qkv` is [rows, (heads + 2 * kv_heads) * dim], `cos` and `sin` [context, 1, dim] with the
    first half of the sines negated, `cache` [2 * kv_heads, pages, PAGE_TOKENS, dim].
    """
    rows, (both, pages, _, dim) = len(qkv), cache.shape
    queries = cache.new_empty(rows, heads, dim)
    _rope_and_store[(rows, heads + both)](
        qkv, cos, sin, positions, places, queries, cache, heads, both // 2, pages * PAGE_TOKENS,
        DIM=dim, HALF=triton.next_power_of_2(dim // 2))
    return queries


def tile_keys(wide: int, dtype: torch.dtype) -> int:
    """Return how many keys of `wide` numbers a program of `attend` reads together.

    Two tiles of keys and two of values are loaded or used at a time. With the operands of the
    products they must fit into the smallest shared memory of a program, 99 KiB.
    """
    fitting = _TILE_BYTES // (wide * dtype.itemsize)
    return max(min(fitting, PAGE_TOKENS), _LEAST_ROWS)


def attend(queries: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor,
           pages: torch.Tensor, splits: int) -> torch.Tensor:
    """Return attention [rows, heads * dim] of each row over positions 0 .. its own.

    `pages` [rows, pages of a slot] are their pages in `cache`. `splits`, a power of 2, is how many
    programs share the keys of a row.
    """
    return _attend(queries, cache, positions, pages, splits, 1)


def attend_chunk(queries: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor,
                 pages: torch.Tensor) -> torch.Tensor:
    """Return attention as `attend`, of neighbouring tokens of one request with these `pages`.

    Their number is a power of 2. Those behind the end of the chunk have position 0.
    """
    group = queries.shape[1] // (cache.shape[0] // 2)
    tokens = min(max(_CHUNK_ROWS // triton.next_power_of_2(group), 1), len(queries))
    return _attend(queries, cache, positions, pages, 1, tokens)


def _attend(queries: torch.Tensor, cache: torch.Tensor, positions: torch.Tensor,
            pages: torch.Tensor, splits: int, tokens: int) -> torch.Tensor:
    rows, heads, dim = queries.shape
    kv_heads, room = cache.shape[0] // 2, cache.shape[1] * PAGE_TOKENS
    group, wide = heads // kv_heads, max(triton.next_power_of_2(dim), 16)
    part = queries.new_empty(rows * heads, splits, dim, dtype=torch.float32)
    # Separate tensors: Triton compiles again for a pointer that is no multiple of 16 bytes.
    most, total = part.new_empty(rows * heads, splits), part.new_empty(rows * heads, splits)
    _attend_split[(rows // tokens, kv_heads, splits)](
        queries, cache, positions, pages, part, most, total, kv_heads, room, pages.shape[-1],
        dim ** -0.5, GROUP=group, TOKENS=tokens,
        ROWS=max(triton.next_power_of_2(tokens * group), _LEAST_ROWS), DIM=dim,
        WIDE=wide, PAGE=PAGE_TOKENS, KEYS=tile_keys(wide, cache.dtype), SPLITS=splits,
        num_stages=_STAGES)
    out = queries.new_empty(rows, heads * dim)
    _join_splits[(rows * heads,)](part, most, total, out, DIM=dim, WIDE=wide, SPLITS=splits)
    return out


def add_and_norm(h: torch.Tensor, delta: torch.Tensor, norm: torch.Tensor, eps: float
                 ) -> torch.Tensor:
    """Add `delta` to `h` [rows, hidden] in place; return its RMS norm times `norm`, as `delta`."""
    rows, hidden = h.shape
    out, wide = torch.empty_like(delta), triton.next_power_of_2(hidden)
    _add_and_norm[(rows,)](h, delta, norm, out, hidden, eps, WIDE=wide,
                           num_warps=max(4, min(wide // 512, 16)))
    return out


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """Return silu(gate) * up [rows, intermediate] of `gate_up` [rows, 2 * intermediate]."""
    rows, intermediate = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, intermediate)
    _silu_and_mul[(rows, triton.cdiv(intermediate, _COLUMNS))](
        gate_up, out, intermediate, COLUMNS=_COLUMNS)
    return out
