"""MAE, LMIM, naive next-scale prediction and MNSP side by side at the size of a laptop: first evidence, no study.

    python experiments/first_evidence.py --seeds 0 1 2

A row per arm and seed, with attention figures of every block, is appended to experiments/first_evidence.csv; rows that are
there are not measured again. All arms of a seed see the same pictures for the same number of steps, and all but MAE learn
the features of the same frozen MAE. The notebook nbs/experiments/first_evidence.ipynb reads the rows.
"""
from dataclasses import replace

from ablation import halves

from mnsp.lab.study import Study, comparison_command
from mnsp.nsp import nsp_tasks
from mnsp.pretrain import lmim, mae, mnsp


def arms(size):
    "Name -> configuration"
    def learnt(cfg, **kwargs): return replace(cfg, teacher='frozen', decoder=replace(cfg.decoder, depth=1), **kwargs)
    full = learnt(mnsp(size), align=1., tasks=halves(3))
    return {'no pre-training': None, 'MAE': mae(size), 'LMIM': learnt(lmim(size)),
            'NSP only': replace(full, tasks=nsp_tasks(3)), 'MNSP': full}


if __name__ == '__main__': # decoders, tasks and the probe are as they were when the rows were measured
    comparison_command(arms, __doc__, __file__, dict(cpu=Study(flat_start=0.)),
                       every_block=True)
