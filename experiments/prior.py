"""What a list of words is worth to the packaged reader, and what it costs where there are no words.

    python experiments/prior.py RUN [--out CSV]

RUN is a folder of reader.py, of which the validation words are read (RUN/valid_*), and beside them 1,000 rendered codes,
strings of random characters. Each row is one way to read all of them: so many words of the list, their weight, with
test-time augmentation or without. `waics` and `exact` are in percent, `exact` of the sets whose labels have case and marks.
"""
from dataclasses import replace
from pathlib import Path

import torch
from reader import plain, validation_words

from mnsp.evaluate import score
from mnsp.lab.study import append_rows, script_options
from mnsp.prior import WordPrior, frequent_words
from mnsp.recognizer import Recognizer
from mnsp.synth import SynthWords, street_world

ways = [(0, 0.), *((60_000, weight) for weight in (.1, .2, .3, .4, .6)), *((n, .3) for n in (3_000, 10_000, 30_000, 120_000))]

def read(reader, source, words, weight, tta):
    "Readings and labels, without white space"
    prior = WordPrior(words, weight) if weight else False
    readings = reader.read([source.image(i) for i in range(len(source))], tta=tta, prior=prior)
    return [plain(r.text) for r in readings], [plain(source.label(i)) for i in range(len(source))]

class Codes:
    "Strings of random characters"
    def __init__(self, n):
        self.words = SynthWords(replace(street_world(fonts='own'), words=0., numbers=0., strings=1.), n, seed=1)
    def __len__(self): return len(self.words)
    def image(self, i): return self.words[i][0]
    def label(self, i): return self.words[i][1]

def row(reader, sets, codes, words, weight, tta):
    "What one way of reading gets right"
    found = {name: read(reader, source, words, weight, tta) for name, source in sets.items()}
    def scored(names): return score(*(sum((found[n][k] for n in names), []) for k in (0, 1)))
    cased = [name for name in found if 'MLT' not in name]
    return dict(words=len(words), weight=weight, tta=int(tta), waics=round(scored(found)['waics'], 2),
                exact=round(scored(cased)['exact'], 2), cased_waics=round(scored(cased)['waics'], 2),
                codes=round(score(*read(reader, codes, words, weight, tta))['waics'], 2))

def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('run', type=Path, help='folder of reader.py with validation words')
    given = parser.parse_args()
    torch.set_num_threads(1)
    reader, frequent = Recognizer.from_pretrained(), frequent_words(120_000)
    sets, codes = validation_words(given.run), Codes(1_000)
    for n, weight in ways:
        for tta in (False, True):
            append_rows(given.out, [found := row(reader, sets, codes, frequent[:n], weight, tta)])
            print(*found.values(), sep='\t', flush=True)

if __name__ == '__main__': main()
