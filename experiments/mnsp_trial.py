"""A trial in which scales have room: 4 x 8 patches, pyramids of 8 x 16, 4 x 8 and 2 x 4 tokens, each arm with and without guide.

    python experiments/mnsp_trial.py --data TEXTMASK POSTERS IIIT5K_train ... --keep runs/trial      # the screen, one seed
    python experiments/mnsp_trial.py --budget full --seeds 0 1 2 --arms 'MNSP' ... --out experiments/mnsp_trial_full.csv ...

Encoders of width 96 and depth 5 are pre-trained on real crops and rendered words, unlabelled, and read by small readers on
frozen and on fine-tuned features. Every arm of a seed sees the same pictures for the same number of steps; `pretrain_seconds`
says what they cost, so that arms can be compared at equal time too. An arm on features learns those of a MAE that was trained
as long before it; its seconds are in the row of that MAE. The screen chooses with one seed and a third of the steps; what is
decided is decided by `full` and three seeds or more; `few` reads the encoders of the screen, found in --keep, with a hundredth
of the labels (mnsp_trial_few.csv). Rows that are there are not measured again, and a run that was stopped
goes on from --keep. `NSP only` is the paper's naive next-scale prediction: no token of the scale that is predicted is seen.
With the guide its decoder sees every patch of the same word in another look, which is a short cut; without, it has the coarse
picture alone. `across views`: the coarse picture is the guide's, in place of the word's own and of the guide.
`masked together`: the same places are hidden at every scale, and so is the coarse context; LMIM has such masks beside it.
`found_same` and `found_other` are percent of words whose picture at a quarter of the size, in the same look or another, is most
like the word's own picture among `found_among`: read enlarged, or, `native`, by the pass of that scale.
"""
import shlex
from collections.abc import Iterator
from dataclasses import replace

import torch

from mnsp.lab.study import (
    Arm,
    Study,
    StudyData,
    _asked,
    comparison_command,
    kept_or_pretrained,
    read_rows,
    script_options,
)
from mnsp.machine import default_device, this_commit
from mnsp.nsp import mim_task, mnsp_tasks, nsp_tasks
from mnsp.pretrain import lmim, mae, mnsp
from mnsp.sources import open_source

corruptions = ('scale', 'squeeze', 'rotation', 'curve', 'perspective')
screen = Study(size='micro', words=14_000, labelled=4096, shares=(1., .1), steps=600, hidden=128, probe_steps=600,
               tune_steps=400, corruptions=corruptions)
budgets = dict(screen=screen, full=replace(screen, steps=1800), few=replace(screen, shares=(.01,), corruptions=()))


def unguided(cfg):
    "The same without guidance view and, since there is nothing to align with, without alignment"
    return replace(cfg, guide=None, align=0., decoder=replace(cfg.decoder, guided=False))


def arms(size):
    "Name -> arm"
    base = mnsp(size)
    def changed(**kwargs): return replace(base, **kwargs)
    def features(cfg): return Arm(replace(cfg, teacher='frozen'))
    nsp, masked = (changed(tasks=nsp_tasks(3, visible), align=0.) for visible in (False, True))
    both = changed(align=0.)
    return {
        'no pre-training': None,
        'MAE': mae(size),
        'LMIM': lmim(size),
        'LMIM, features': features(lmim(size)),
        'LMIM, align .1': replace(lmim(size), align=base.align),
        'NSP only': nsp, 'NSP only, unguided': unguided(nsp),
        'masked NSP only': masked, 'masked NSP only, unguided': unguided(masked),
        'MIM + NSP': both, 'MIM + NSP, unguided': unguided(both),
        'MNSP': base,
        'MNSP, features': features(base),
        'MNSP, moving average': changed(teacher='ema'),
        'MNSP, ratio 4': changed(encoder=replace(base.encoder, n_scales=2, scale_ratio=4), tasks=mnsp_tasks(2)),
        'MNSP, align variance .1': changed(align_variance=.1),
        'MNSP, columns aligned': changed(align_on='columns'),
        'MNSP, columns aligned, features': features(changed(align_on='columns')),
        'LMIM, masked together': changed(tasks=mim_task(3), mask_together=True),
        'MNSP, masked together': changed(mask_together=True),
        'MNSP, masked together, features': features(changed(mask_together=True)),
        'NSP only, across views': replace(nsp, across_views=True),
        'MNSP, across views': changed(across_views=True),
        'MNSP, across views, features': features(changed(across_views=True)),
    }


def reader_options(doc, path, arms, seeds):
    "Of a script that fine-tunes readers of the encoders that this one kept"
    parser = script_options(doc, path)
    parser.add_argument('--data', nargs='+', required=True, help='as for mnsp_trial.py')
    parser.add_argument('--keep', required=True, help='where mnsp_trial.py kept its encoders')
    parser.add_argument('--arms', nargs='+', default=arms)
    parser.add_argument('--seeds', type=int, nargs='+', default=seeds)
    return parser


def kept_encoders(parser, study: Study, given, groups=({},)) -> Iterator:
    "({arm, seed}, encoder, `StudyData`, facts of its rows) of every one asked for, unless each of its groups of rows is there"
    torch.set_num_threads(1)
    for seed in given.seeds:
        data = StudyData(study, seed, crops=[open_source(p) for p in given.data])
        for about in (dict(arm=name, seed=seed) for name in given.arms):
            if all(is_there(about | group, given.out) for group in groups): continue
            name, arm = about['arm'], arms(study.size)[about['arm']]
            encoder, *_ = kept_or_pretrained(name, arm if isinstance(arm, Arm) else Arm(arm), data, study, seed, keep=given.keep)
            facts = dict(commit=this_commit(), device=default_device().type,
                         command=f'{_asked(parser, given)} --arms {shlex.quote(name)} --seeds {seed}')
            yield about, encoder.to(default_device()), data, facts


def is_there(about: dict, path) -> bool:
    "True when a file has rows of it"
    return any(about.items() <= row.items() for row in read_rows(path))


if __name__ == '__main__':
    comparison_command(arms, __doc__, __file__, budgets, every_block=True, curves=True,
                       scales=True)
