"""How far scale and layout may go before a fine-tuned reader fails: held-out crops, smaller and in other layouts.

    python experiments/layout_readers.py --data TEXTMASK POSTERS IIIT5K_train ... --keep runs/trial --seeds 0 1 2

The encoders are those that `mnsp_trial.py --budget full` keeps, and its small readers are fine-tuned on them once more, with
all labels. They read the crops shrunk to 8 to 24 pixels of height and enlarged again, filling a quarter of the frame, two
words in one frame, and under the layout families of the robustness room at severities .2 to 1 (rotation at 1 is vertical
text): a row each. The frame has 32 pixels, so a word of 64 is read as one of 32 is.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from mnsp_trial import budgets, kept_encoders, reader_options

from mnsp.evaluate import score, waics_text
from mnsp.guidance import as_uint8, frame_corners, warp
from mnsp.lab.study import append_rows, frozen_probe, tuned_probe
from mnsp.machine import default_device
from mnsp.robustness import corrupt, families
from mnsp.surgery import finest_encoder

heights, severities = (24, 16, 12, 8), (.2, .4, .6, .8, 1.)


def looks(images, labels):
    "What is changed, by how much, and the pictures and labels then"
    yield 'height', 32, images, labels
    for height in heights: # the family's severity goes in equal factors from 32 pixels to 6
        yield 'height', height, corrupt(images, 'scale', math.log(32/height)/math.log(32/6)), labels
    corners, still = frame_corners(len(images))*2, torch.zeros(len(images), 2, 2, 2)
    yield 'share of the frame', .25, as_uint8(warp(images.float(), corners, still)), labels
    pairs = torch.cat([images, images.roll(-1, 0)], 3)
    yield 'words', 2, as_uint8(F.interpolate(pairs.float(), images.shape[2:], mode='bilinear', antialias=True)), \
        labels+np.roll(labels, -1)
    for name in ('squeeze', 'rotation', 'curve', 'perspective'):
        for severity in severities: yield name, round(families[name].amount(severity), 1), corrupt(images, name, severity), labels


@torch.no_grad()
def read(reader, images): return [t for x in images.split(256) for t in reader.texts(reader(x.to(default_device())))]


def main():
    parser = reader_options(__doc__, __file__, ['MAE', 'LMIM', 'NSP only, unguided', 'MIM + NSP, unguided', 'MNSP'], [0, 1, 2])
    given, study = parser.parse_args(), budgets['full']
    for about, encoder, data, facts in kept_encoders(parser, study, given):
        words, seed = data.held_out['crops'], about['seed']
        labels = np.array([waics_text(words.label(i)) for i in range(len(words))], dtype=object)
        reader = frozen_probe(finest_encoder(encoder), data.labelled, study.probe_steps, seed, study.hidden, study.flat_start)
        tuned_probe(reader, data.labelled, study, seed)
        rows = []
        for change, amount, images, texts in looks(words.images, labels):
            right = score(read(reader, images), list(texts))
            rows.append(about | dict(change=change, amount=amount, waics=round(right['waics'], 2), ned=round(right['ned'], 2),
                                     words=len(words), **facts))
        append_rows(given.out, rows)
        print(*about.values(), {(r['change'], r['amount']): r['ned'] for r in rows}, flush=True)


if __name__ == '__main__': main()
