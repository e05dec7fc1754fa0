# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Write data/smollm2_greedy.json: what transformers itself, in float32, answers to five prompts.

Run it again when the embedded model changes: ``python test/unit/engine/make_reference.py`` with
``accelerate`` installed (transformers needs it to read GGUF weights; nothing else here does).
"""

import json
from pathlib import Path

from slice_ros.engine.checkpoints.model_path import find_model
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 48
CHATS = (
    'List ten things that a household robot should check before it starts to move.',
    'Explain step by step how to get from the kitchen to the charging station.',
    'Tell me a short story about a robot that learns to paint.',
)
PROMPTS = (
    'The three laws of robotics are',
    'def bubble_sort(items):\n    """Sort a list in place."""\n',
)


def main() -> None:
    """Generate and write."""
    path = find_model('')
    where = {'pretrained_model_name_or_path': str(path.parent), 'gguf_file': path.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    rows = []
    for text, chat in [(t, True) for t in CHATS] + [(t, False) for t in PROMPTS]:
        if chat:
            ids = tokenizer.apply_chat_template(
                [{'role': 'user', 'content': text}], add_generation_prompt=True,
                return_dict=True)['input_ids']
        else:
            ids = tokenizer(text)['input_ids']
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=TOKENS,
            do_sample=False)
        new = out[0, len(ids):].tolist()
        rows.append({'text': text, 'chat': chat, 'prompt': ids, 'tokens': new,
                     'answer': tokenizer.decode(new, skip_special_tokens=True)})
        print(len(new), repr(rows[-1]['answer']))
    target = Path(__file__).parent / 'data' / 'smollm2_greedy.json'
    target.write_text(json.dumps({'model': path.name, 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
