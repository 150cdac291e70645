"""LMIM's ablation table at a size a laptop can afford: what guide, alignment, target, decoder order and masks do.

    python experiments/lmim_ablation.py --seeds 0 1 2

A row per arm and seed is appended to experiments/lmim_ablation.csv; rows that are there are not measured again, so the
run can be stopped and continued. All arms of a seed see the same pictures for the same number of steps; arms with a frozen
teacher share one MAE, trained for as many steps before. The notebook nbs/experiments/lmim_ablation.ipynb reads the rows.
"""
from dataclasses import replace

from mnsp.lab.study import Study, comparison_command
from mnsp.pretrain import lmim, mae


def arms(size):
    "Name -> configuration; the first is no pre-training, the second LMIM as published, the rest change one thing"
    base = replace(lmim(size), teacher='frozen', decoder=replace(lmim(size).decoder, depth=1))
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


if __name__ == '__main__': # the decoders above and the probe here are as they were when the rows were measured
    comparison_command(arms, __doc__, __file__, dict(cpu=Study(flat_start=0.)))
