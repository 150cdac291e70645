"""MAE, LMIM, naive next-scale prediction and MNSP side by side at the size of a laptop: first evidence, no study.

    python experiments/first_evidence.py --seeds 0 1 2

A row per arm and seed, with attention figures of every block, is appended to experiments/first_evidence.csv; rows that are
there are not measured again. All arms of a seed see the same pictures for the same number of steps, and all but MAE learn
the features of the same frozen MAE. The notebook nbs/experiments/first_evidence.ipynb reads the rows.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mnsp.nsp import nsp_tasks
from mnsp.pretrain import lmim, mae, mnsp
from mnsp.study import Study, compare


def arms(size):
    "Name -> configuration"
    full = replace(mnsp(size), teacher='frozen')
    return {'no pre-training': None, 'MAE': mae(size), 'LMIM': replace(lmim(size), teacher='frozen'),
            'NSP only': replace(full, tasks=nsp_tasks(3)), 'MNSP, not aligned': replace(full, align=0.), 'MNSP': full}


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
            say=lambda row: print(row, flush=True), every_block=True)


if __name__ == '__main__': main()
