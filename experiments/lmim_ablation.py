"""LMIM's ablation table at a size a laptop can afford: what guide, alignment, target, decoder order and masks do.

    python experiments/lmim_ablation.py --seeds 0 1 2

A row per arm and seed is appended to experiments/lmim_ablation.csv; rows that are there are not measured again, so the
run can be stopped and continued. All arms of a seed see the same pictures for the same number of steps; arms with a frozen
teacher share one MAE, trained for as many steps before. The notebook nbs/experiments/lmim_ablation.ipynb reads the rows.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mnsp.pretrain import lmim, mae
from mnsp.study import Study, compare


def arms(size):
    "Name -> configuration; the first is no pre-training, the second LMIM as published, the rest change one thing"
    base = replace(lmim(size), teacher='frozen')
    def changed(**kwargs): return replace(base, **kwargs)
    return {
        'no pre-training': None,
        'LMIM': base,
        'MAE': mae(size),
        'no guide, no align': changed(guide=None, decoder=replace(base.decoder, guided=False)),
        'guide, no align': changed(align=0.),
        'views weak': changed(guide='weak'),
        'views strong': changed(guide='strong'),
        'decoder CA-SA': changed(decoder=replace(base.decoder, order='ca-sa')),
        'target pixels': changed(teacher='pixels'),
        'target random features': changed(teacher='random'),
        'target moving average': changed(teacher='ema'),
        'mask random .6': changed(mask_ratio=.6),
        'mask block .8': changed(mask='block'),
        'align stop-gradient': changed(align_stop_gradient=True),
        'align variance .1': changed(align_variance=.1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    study = Study()
    parser.add_argument('--size', default=study.size)
    parser.add_argument('--steps', type=int, default=study.steps, help='of pre-training')
    parser.add_argument('--tune-steps', type=int, default=study.tune_steps, help='of fine-tuning')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--arms', nargs='+', help='names; all when left out')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.csv'))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    chosen = arms(args.size)
    if args.arms: chosen = {name: chosen[name] for name in args.arms}
    compare(chosen, replace(study, size=args.size, steps=args.steps, tune_steps=args.tune_steps), args.out, args.seeds,
            say=lambda row: print(row, flush=True))


if __name__ == '__main__': main()
