"""Two hundred labels and three thousand pictures without: what does each round of self-training bring?

    python experiments/self_training.py [--seeds 0 1] [--steps 600]

Dates and lot numbers as an ink-jet prints them on packages, in dots, which the packaged reader has not learnt. Each stage is a
command of `mnsp`, as in the tutorial on self-training; what it reads of 400 words apart goes to self_training.csv. Every
fine-tuning starts from the packaged reader and takes equally many steps; `mnsp data label` keeps what is read with confidence
from .9. `all labelled` is what labels for all pictures would have given. `from nothing`: a small encoder is pre-trained on all
pictures, and learns to read from the 200 labels alone.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mnsp.evaluate import evaluate
from mnsp.images import Source
from mnsp.lab.study import append_rows, script_options
from mnsp.reading import Recognizer, packaged_weights
from mnsp.sources import open_source
from mnsp.stores import convert
from mnsp.synth import background

mono = Path(matplotlib.get_data_path())/'fonts/ttf/DejaVuSansMono.ttf'

def printed(rng):
    "A lot number, a date, a time, a weight"
    def some(chars, n): return ''.join(rng.choice(list(chars), n))
    digits, letters = '0123456789', 'ABCDEFGHJKLMNPRSTUVWXYZ'
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), rng.integers(25, 32)
    return str(rng.choice([
        f'LOT{some(digits, 4)}', some(letters, 1)+some(digits, 4)+some(letters, 1), some(letters, 2)+some(digits, 3),
        f'{day:02}.{month:02}.{year}', f'EXP{month:02}/{year}', f'{rng.integers(24):02}:{rng.integers(60):02}',
        some(digits[1:], 1)+'50ML', some(digits[1:], 2)+'0G']))

def dots(text, rng, pitch=7):
    "Ink, 0..1, [H, W]: letters of 11 rows, bent and slanted, some dots missing"
    drawn = Image.new('1', (7*len(text), 11))
    ImageDraw.Draw(drawn).text((0, -1), text, 1, ImageFont.truetype(str(mono), 11))
    h, w = np.asarray(drawn).shape
    ink = Image.new('L', (pitch*w+60, pitch*h+40))
    slant, missing, bend, size = rng.uniform(-.12, .12), rng.uniform(0, .12), rng.uniform(0, 6.), rng.uniform(2., 3.6)
    for y, x in np.argwhere(np.asarray(drawn)):
        if rng.random() < missing: continue
        at = 30+pitch*(x+slant*(h-y))+rng.normal(0, .5), 20+pitch*y+bend*np.sin(x/9)+rng.normal(0, .5)
        ImageDraw.Draw(ink).circle(at, size*rng.uniform(.8, 1.2), 255)
    return np.asarray(ink.filter(ImageFilter.GaussianBlur(rng.uniform(.6, 1.8))), np.float32)/255

class Packages(Source):
    "What an ink-jet printed on packages"
    labelled = True
    def __init__(self, n, seed, labelled=True): self.n, self.seed, self.labelled = n, seed, labelled
    def __len__(self): return self.n
    def name(self, i): return f'package-{i}'
    def label(self, i): return printed(np.random.default_rng((self.seed, i))) if self.labelled else None
    def image(self, i, size=None):
        rng = np.random.default_rng((self.seed, i))
        ink, paper = dots(printed(rng), rng)[..., None], rng.uniform(.15, .95)
        tone = rng.uniform()
        if abs(tone-paper) < .25: tone = (paper+.45) % 1
        picture = background(ink.shape[:2], paper, rng.uniform(.05, .5), rng)*(1-ink)+tone*ink
        im = Image.fromarray((255*picture.clip(0, 1)).astype(np.uint8))
        return im.resize((int(im.width*.5*rng.uniform(.7, 1.2)), 48))

def mnsp(*command):
    subprocess.run([sys.executable, '-m', 'mnsp', *map(str, command)], check=True)

def stages(steps, seed):
    "Commands, in this folder; the name of each stage and its weights"
    def finetuned(out, *data, start=('--reader', 'packaged')):
        mnsp('finetune', '--data', *data, *start, '--valid', 'valid', '--valid-every', 50, '--steps', steps, '--batch-size', 32,
             '--out', out, '--seed', seed, '--workers', 0)
        return out
    def labelled(k, reader):
        mnsp('data', 'label', 'many', '--weights', reader, '--out', f'round{k}', '--least', .9)
        return finetuned(f'reader{k}', 'few', '--data', f'round{k}/labels.json')
    def labels(k): return 200+len(open_source(f'round{k}/labels.json'))
    yield 'packaged', packaged_weights(), 0
    yield '200 labels', (best := finetuned('few', 'few')), 200
    yield 'round 1', (best := labelled(1, best)), labels(1)
    yield 'all labelled', finetuned('known', 'few', '--data', 'all'), 3200
    yield 'round 2', labelled(2, best), labels(2)
    mnsp('pretrain', '--data', 'few', '--data', 'many', '--out', 'pretrained', '--steps', 2*steps, '--seed', seed, '--workers', 0)
    yield 'from nothing', finetuned('scratch', 'few', start=('--encoder', 'pretrained/encoder')), 200

def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--steps', type=int, default=600)
    given = parser.parse_args()
    given.out = given.out.resolve()
    test = Packages(400, seed=9)
    for seed in given.seeds:
        folder = Path(tempfile.mkdtemp())
        os.chdir(folder)
        sets = dict(few=Packages(200, (seed, 1)), many=Packages(3000, (seed, 2), False), all=Packages(3000, (seed, 2)),
                    valid=Packages(100, (seed, 3)))
        for name, source in sets.items(): convert(source, name)
        for stage, weights, labels in stages(given.steps, seed):
            found = evaluate(Recognizer.from_pretrained(weights).read_batch, {'test': test}, bar=False).sets['test']
            right = right_labels(stage.replace('round ', 'round')) if stage.startswith('round') else None
            row = dict(stage=stage, seed=seed, steps=0 if stage == 'packaged' else given.steps, labels=labels, right=right,
                       **{k: round(found[k], 2) for k in ('exact', 'waics', 'ned')})
            print(row, flush=True)
            append_rows(given.out, [row])
        shutil.rmtree(folder)

def right_labels(folder):
    "Percent of the labels made that are right"
    made, truth = open_source(f'{folder}/labels.json'), open_source('all')
    known = {truth.name(i): truth.label(i) for i in range(len(truth))}
    return round(100*np.mean([known[made.name(i)] == made.label(i) for i in range(len(made))]), 1)

if __name__ == '__main__': main()
