"""How far scale and layout may go before a fine-tuned reader fails: held-out crops, smaller and in other layouts.

    python experiments/layout_readers.py --data TEXTMASK POSTERS IIIT5K_train ... --keep runs/trial --seeds 0 1 2

The encoders are those that `mnsp_trial.py --budget full` keeps, and its small readers are fine-tuned on them once more, with
all labels. They read the crops shrunk to 8 to 24 pixels of height and enlarged again, filling a quarter of the frame, two
words in one frame, and under the layout families of the robustness room at severities .2 to 1 (rotation at 1 is vertical
text): a row each. The frame has 32 pixels, so a word of 64 is read as one of 32 is.
"""
import math
import shlex

import numpy as np
import torch
import torch.nn.functional as F
from mnsp_trial import arms, budgets

from mnsp.evaluate import score, waics_text
from mnsp.guidance import as_uint8, frame_corners, warp
from mnsp.lab.study import (
    Arm,
    StudyData,
    _asked,
    append_rows,
    frozen_probe,
    kept_or_pretrained,
    read_rows,
    script_options,
    tuned_probe,
)
from mnsp.machine import default_device, this_commit
from mnsp.robustness import corrupt, families
from mnsp.sources import open_source
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
    parser = script_options(__doc__, __file__)
    parser.add_argument('--data', nargs='+', required=True, help='as for mnsp_trial.py')
    parser.add_argument('--keep', required=True, help='where mnsp_trial.py kept its encoders')
    parser.add_argument('--arms', nargs='+', default=['MAE', 'LMIM', 'NSP only, unguided', 'MIM + NSP, unguided', 'MNSP'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    study, device = budgets['full'], default_device()
    for seed in given.seeds:
        data = StudyData(study, seed, crops=[open_source(p) for p in given.data])
        words = data.held_out['crops']
        labels = np.array([waics_text(words.label(i)) for i in range(len(words))], dtype=object)
        for name in given.arms:
            if any((r['arm'], r['seed']) == (name, seed) for r in read_rows(given.out)): continue
            arm = arms(study.size)[name]
            encoder, *_ = kept_or_pretrained(name, arm if isinstance(arm, Arm) else Arm(arm), data, study, seed, keep=given.keep)
            reader = frozen_probe(finest_encoder(encoder).to(device), data.labelled, study.probe_steps, seed, study.hidden,
                                  study.flat_start)
            tuned_probe(reader, data.labelled, study, seed)
            facts = dict(words=len(words), commit=this_commit(), device=device.type,
                         command=f'{_asked(parser, given)} --arms {shlex.quote(name)} --seeds {seed}')
            rows = []
            for change, amount, images, texts in looks(words.images, labels):
                right = score(read(reader, images), list(texts))
                rows.append(dict(arm=name, seed=seed, change=change, amount=amount, waics=round(right['waics'], 2),
                                 ned=round(right['ned'], 2), **facts))
            append_rows(given.out, rows)
            print(name, seed, {(r['change'], r['amount']): r['ned'] for r in rows}, flush=True)


if __name__ == '__main__': main()
