"""Readers that know several scales: fine-tuned at the finest or at all of them, and read at any, or coarse first.

    python experiments/scale_readers.py --data TEXTMASK POSTERS IIIT5K_train ... --keep runs/trial --seeds 0 1

The encoders are those that `mnsp_trial.py` keeps. A small reader (CTC on columns) is fine-tuned at the finest scale alone
or at a scale drawn anew for every batch; coarse tokens are enlarged to the finest grid, so that one head reads them all.
Held-out crops, whole and by the height that they have in their photograph, are then read at each scale; at the scale that
fits (the smallest at least as high as the crop); and coarse first, at the finest only where the mean log probability of the
coarse reading's columns is below a bound. `seconds` is what 1,000 words take on one core in batches of 32, the fastest of
five interleaved rounds; a word that is read twice pays twice.
"""
import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from mnsp_trial import budgets, is_there, kept_encoders, reader_options

from mnsp.evaluate import score, waics_text
from mnsp.finetune import columns
from mnsp.images import picture
from mnsp.lab.study import ColumnReader, append_rows, frozen_probe, tuned_probe
from mnsp.machine import autocast, default_device
from mnsp.pyramid import pyramid
from mnsp.surgery import encoder_of_scales

bounds = -.02, -.05, -.1, -.2, -.4
heights = {'all': (0, 10_000), 'below 16': (0, 16), '16 to 31': (16, 32), '32 and more': (32, 10_000)}

class ScaleReader(ColumnReader):
    "Reads at any scale: coarse tokens are enlarged to the finest grid"
    scale, draw = -1, None # of the next batch; a generator that draws the scale anew for each, None: always the same
    def features(self, images, scale): # uint8 [B, 3, H, W] -> [B, cols, rows·D]
        cfg = self.encoder.cfg
        small = pyramid(images, cfg.n_scales, cfg.scale_ratio)[scale]
        tokens = self.encoder(small, scale=scale)[:, 1:].transpose(1, 2).unflatten(2, cfg.grid(scale))
        if tokens.shape[2:] != cfg.grid(): tokens = F.interpolate(tokens.float(), cfg.grid(), mode='bilinear')
        return columns(F.pad(tokens.flatten(2).transpose(1, 2), (0, 0, 1, 0)), cfg.grid())
    def forward(self, images): return self.spell(self.features(images, self.scale))
    def loss(self, logits, ids):
        if self.draw and self.training: self.scale = int(self.draw.integers(3))
        return super().loss(logits, ids)

def tuned(encoder, data, study, seed, mixed):
    "A head for frozen features, then head and encoder together"
    start = frozen_probe(encoder, data.labelled, study.probe_steps, seed, study.hidden, study.flat_start)
    reader = ScaleReader(encoder_of_scales(encoder, 3), data.charset, study.hidden).to(default_device())
    for part in ('head', 'batch_norm'): getattr(reader, part).load_state_dict(getattr(start, part).state_dict())
    if mixed: reader.draw = np.random.default_rng(seed)
    return tuned_probe(reader, data.labelled, study, seed)

@torch.no_grad()
def read_at(reader, images, scale):
    "Texts, and the mean log probability of each one's columns"
    texts, sure = [], []
    for x in images.split(256):
        with autocast(default_device()): logits = reader.spell(reader.features(x.to(default_device()), scale)).float()
        texts += reader.texts(logits); sure.append(logits.log_softmax(2).amax(2).mean(1).cpu())
    return np.array(texts, dtype=object), torch.cat(sure).numpy()

@torch.no_grad()
def seconds_per_thousand(reader, images, rounds=5):
    "At each scale"
    images, took = images[:256], np.zeros((rounds, 3))
    for k in range(rounds):
        for scale in range(3):
            start = time.perf_counter()
            with autocast(default_device()):
                for x in images.split(32): reader.spell(reader.features(x.to(default_device()), scale))
            took[k, scale] = (time.perf_counter()-start)/len(images)*1000
    return took.min(0)

def rows_of(reader, words, high):
    "What is read of held-out crops in every way"
    labels = np.array([waics_text(words.label(i)) for i in range(len(words))], dtype=object)
    found = [read_at(reader, words.images, scale) for scale in range(3)]
    cost, texts = seconds_per_thousand(reader, words.images), [t for t, _ in found]
    ways = {f'scale {k}': (texts[k], np.full(len(words), cost[k])) for k in range(3)}
    fit = np.digitize(high, (8, 16), right=True)                    # scales of 8, 16 and 32 pixels
    ways['fitting'] = np.choose(fit, texts), cost[fit]
    for coarse in (0, 1):
        for bound in bounds:
            again = found[coarse][1] < bound
            ways[f'scale {coarse} first, {bound}'] = np.where(again, texts[2], texts[coarse]), cost[coarse]+again*cost[2]
    for way, (read, seconds) in ways.items():
        for group, (low, top) in heights.items():
            chosen = (high >= low) & (high < top)
            if not chosen.any(): continue
            right = score(list(read[chosen]), list(labels[chosen]))
            yield dict(read=way, height=group, words=int(chosen.sum()), waics=round(right['waics'], 2),
                       ned=round(right['ned'], 2), seconds=round(float(seconds[chosen].mean()), 3))

def main():
    parser = reader_options(__doc__, __file__, ['no pre-training', 'MAE', 'MIM + NSP, unguided', 'MNSP'], [0, 1])
    parser.add_argument('--budget', choices=['screen', 'full'], default='screen', help='of the pre-training that is kept')
    parser.add_argument('--steps', type=int, default=800, help='of fine-tuning')
    given = parser.parse_args()
    study = budgets[given.budget]
    kinds = [dict(tuned=kind) for kind in ('finest', 'mixed')]
    for about, encoder, data, facts in kept_encoders(parser, study, given, kinds):
        words = data.held_out['crops']
        high = np.array([picture(words.dataset.source, i).height for i in range(len(words))])
        for own in (about | kind for kind in kinds):
            if is_there(own, given.out): continue
            reader = tuned(encoder, data, replace(study, tune_steps=given.steps), about['seed'], own['tuned'] == 'mixed')
            append_rows(given.out, [own | dict(steps=given.steps) | row | facts for row in rows_of(reader, words, high)])
            print(*own.values(), flush=True)

if __name__ == '__main__': main()
