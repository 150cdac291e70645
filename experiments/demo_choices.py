"""What makes the demo's recogniser read: each choice taken back in turn, or one added, at an equal number of steps.

    python experiments/demo_choices.py --steps 600 --seeds 0

A row per variant and seed goes to experiments/demo_choices.csv: words of the held-out set read (WAICS, percent), the
last loss, and pictures per second. No pre-training: this is about reading from scratch.
"""
from dataclasses import replace

import torch

from mnsp.charset import Charset
from mnsp.data import Cached, WordDataset, word_loader
from mnsp.evaluate import evaluate
from mnsp.finetune import ShortFirst, finetune, label_lengths
from mnsp.lab.study import append_rows, script_options
from mnsp.recognizer import Recognizer, recognizer_tiny
from mnsp.synth import SynthWords, demo_world

variants = {
    'as in the demo': {},
    'all lengths at once': dict(short_first=0.),
    'AdamW': dict(optimizer='adamw'),
    'light and dark text': dict(world=dict(dark_text=False)),
    'with CTC': dict(ctc=.5),
    'with CTC and its flat start': dict(ctc=.5, flat_start=.3),
    'averaged weights': dict(average=.99),
    'all lengths at once, with CTC': dict(short_first=0., ctc=.5),
    'all lengths at once, with CTC and its flat start': dict(short_first=0., ctc=.5, flat_start=.3),
}


def measure(name, seed, steps, words):
    "One row: train a variant from scratch, read the held-out words of its world"
    options = dict(short_first=.6, optimizer='muon', lr=2e-3, world={}) | variants[name]
    world = replace(demo_world(), **options.pop('world'))
    charset = Charset(world.alphabet)
    source = SynthWords(world, words, seed=seed, split='train')
    data = Cached(WordDataset(source, charset=charset, max_len=world.max_len + 1), workers=2)
    torch.manual_seed(seed)
    model = Recognizer(recognizer_tiny(charset=charset.chars, max_len=world.max_len + 1))
    order = dict(sampler=ShortFirst(label_lengths(data), seed)) if options['short_first'] else dict(shuffle=True)
    loader = word_loader(data, 64, seed=seed, **order)
    rows = finetune(model, loader, decay=1., warmup=.05, clip=1., steps=steps, seed=seed, bar=name, **options).history.rows
    result = evaluate(model.read_batch, {'held out': SynthWords(world, 500, seed=1, split='valid')}, bar=False)
    return dict(variant=name, seed=seed, steps=steps, read=round(result.avg, 1), loss=rows[-1]['loss'],
                pictures_per_second=round(64 * rows[-1]['step'] / rows[-1]['seconds']))


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--steps', type=int, default=600)
    parser.add_argument('--words', type=int, default=20_000, help='rendered for training')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--variants', nargs='+', choices=variants, default=list(variants))
    args = parser.parse_args()
    for seed in args.seeds:
        for name in args.variants:
            row = measure(name, seed, args.steps, args.words)
            print(row, flush=True)
            append_rows(args.out, [row])


if __name__ == '__main__': main()
