"""How much of its reading a trained recogniser loses on guidance views, and to which operation.

    mnsp demo --out demo_out
    python experiments/guidance_readable.py --weights demo_out --steps 1500

Held-out rendered words of the demo, as they are and as views; a row each goes to experiments/guidance_readable.csv.
`alone`: that operation of medium on every word, nothing else. `without`: medium lacking it.

The demo's reader knows dark, upright words alone and stumbles over whatever is new to it, readable or not. So with
`--steps` it is then trained on for so many steps, on medium views of the demo's training words, and asked again.
"""
from dataclasses import replace

import torch

from mnsp.data import Cached, WordDataset, word_loader
from mnsp.demo import held_out_words
from mnsp.evaluate import is_waics
from mnsp.files import write_rows
from mnsp.finetune import finetune
from mnsp.guidance import GuidanceView, Strength, levels
from mnsp.hub import load_model
from mnsp.lab.study import script_options
from mnsp.synth import SynthWords, demo_world

medium = levels['medium']
nothing = Strength(*[None] * 11, jitter_p=0., grey_p=0., at_least=0)
changes = {name: {name: getattr(medium, name)} for name in medium.operations()}
changes |= {'jitter': dict(jitter_p=1.), 'grey': dict(grey_p=1.)}


def strengths():
    "Every row's name and its `Strength`; None: the picture as it is"
    yield 'plain', None
    yield from levels.items()
    yield 'medium without the guard', replace(medium, readable=None)
    for name, change in changes.items():
        yield f'{name} alone', replace(nothing, **change, at_least=int(name in medium.operations()))
    for name, change in changes.items():
        yield f'medium without {name}', replace(medium, **{k: getattr(nothing, k) for k in change})


def read_share(model, images, texts, strength, seed):
    "Words read right (WAICS, percent)"
    if strength: images = GuidanceView(strength)(images, torch.Generator().manual_seed(seed))
    readings = [text for part in images.split(250) for text, _ in model.read_batch(part)]
    return 100 * sum(map(is_waics, readings, texts)) / len(texts)


def show_views_to(model, steps, words, seed):
    "Train a reader on, on medium views of words that are not held out"
    source = SynthWords(demo_world(), words, seed=seed, split='train')
    data = Cached(WordDataset(source, charset=model.charset, max_len=model.cfg.max_len), workers=2)
    loader = word_loader(data, 64, shuffle=True, seed=seed)
    finetune(model, loader, lr=1e-3, decay=1., optimizer='muon', augment=GuidanceView('medium'), steps=steps, seed=seed,
             bar='shown medium views')
    model.eval()


def rows(model, reader, args):
    "A row per view, printed as it comes"
    source = held_out_words(args.words)['rendered']
    dataset = WordDataset(source, model.cfg.encoder.img_size)
    images, texts = torch.stack([dataset[i][0] for i in range(len(source))]), [*map(source.label, range(len(source)))]
    for name, strength in strengths():
        waics = round(read_share(model, images, texts, strength, args.seed), 1)
        print(f'{reader:24} {name:30} {waics:5.1f}', flush=True)
        yield dict(reader=reader, steps_shown=args.steps if reader != 'demo' else 0, view=name, words=len(texts),
                   waics=waics)


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--weights', required=True, help='folder of a recogniser, as `mnsp demo` writes it')
    parser.add_argument('--steps', type=int, default=0, help='to train it on, on medium views, before it is asked again')
    parser.add_argument('--words', type=int, default=1000, help='held-out words to read')
    parser.add_argument('--training-words', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    model = load_model(args.weights, 'Recognizer')
    table = [*rows(model, 'demo', args)]
    if args.steps:
        show_views_to(model, args.steps, args.training_words, args.seed)
        table += rows(model, 'shown medium views', args)
    write_rows(args.out, table)


if __name__ == '__main__': main()
