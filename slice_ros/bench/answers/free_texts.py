# Copyright 2026 The slice_ros Authors
# SPDX-License-Identifier: Apache-2.0
"""Questions with a free answer: some of them quote their prompt or repeat themselves."""

TEXTS = {
    'quote': 'Repeat this text word by word: The delivery robot waits in the lobby until the lift '
             'is free, then it goes to floor two and rings the bell of office twelve.',
    'correct': 'Correct the spelling and give the text back: Teh robot goes to the kitchn and '
               'brings the red cup to the workshop. Then it charges for one hour.',
    'question': 'Explain how a lift works.',
    'story': 'Write a short story about a robot.',
    'fact': 'What is the capital of France, and why is it famous?',
    'numbers': 'List the numbers from one to fifty.',
}
