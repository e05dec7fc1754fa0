# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Models that think, and answers that say what a test wants them to."""

from collections import deque

import numpy as np
from slice_ros.engine import EngineConfig, load_engine, ResponseFormat, Sampling
from slice_ros.engine.chat_options import ChatOptions
import tiny
from tokenizers import AddedToken

TURNS = ("{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
         "{{ m.content.split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}")
# As Qwen3 and SmolLM3: the model begins a thought, unless an empty one is in its prompt.
SWITCHED = TURNS + ('{% if enable_thinking is defined and not enable_thinking %}'
                    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}")
OPENED = TURNS + "{{ '<think>\n' }}{% endif %}"     # as DeepSeek-R1
SILENT = TURNS + '{% endif %}'                      # no tag in it but that of the history
ASKED = [('user', 'Is there a wall?')]
STOP = 258


def thinker(path, template, tags='tokens'):
    """Return an engine with the tokenizer of bytes; its tags are 'tokens', 'special' or 'text'."""
    tiny.save(path, tiny.llama())
    made = tiny.tokenizer()
    if tags != 'text':
        made.backend_tokenizer.add_tokens([
            AddedToken(tag, special=tags == 'special', normalized=False)
            for tag in ('<think>', '</think>')])
    made.chat_template = template
    made.save_pretrained(path)
    return load_engine(EngineConfig(str(path), weights='fp32', max_context=256, slots=4,
                                    threads=1))


class Script:
    """In place of a sampler: says a text, where the mask allows it, and then ends the answer."""

    plain_greedy = False

    def __init__(self, engine, text, stop=STOP):
        self._next = deque([*engine._encoder.ids(text), *[stop] * 300])

    def choose(self, logits):
        token = self._next.popleft()
        return token if logits[token] > -np.inf else int(logits.argmax())

    def accept(self, token):
        pass

    def skip(self):
        pass


def begun(engine, says=None, options=ChatOptions(), max_tokens=100, wanted=ResponseFormat(),
          stop=(), asked=ASKED):
    """Return a sequence that says a text, or what the model samples where that is None."""
    sequence = engine.open(engine.encode_chat(asked, (), options), max_tokens, Sampling(), stop,
                           wanted, None, '', (), options)
    if says is not None:
        sequence.sampler = Script(engine, says)
        sequence.lookup = None
    return sequence


def finish(engine, sequence, jump=True):
    """Return the outputs of an answer up to its end."""
    sequence.jumps, outputs = jump, []
    while not sequence.finish_reason:
        outputs += engine.step([(sequence, sequence.pending)])
    engine.close(sequence)
    assert ''.join(output.text for output in outputs) == sequence.text
    assert ''.join(output.reasoning for output in outputs) == sequence.reasoning
    return outputs
