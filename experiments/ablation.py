"""Does next-scale prediction help people read? MNSP, its parts, its ancestors and its switches at equal steps.

    python experiments/ablation.py                                      # about an hour of one core per seed
    python experiments/ablation.py --arms MAE LMIM MNSP --seeds 0 1 2   # some of it
    python experiments/ablation.py --budget long --out experiments/ablation_long.csv --arms MAE 'LMIM, pixels' ...
    python experiments/ablation.py --budget thorough --out experiments/ablation_thorough.csv --arms 'no pre-training' MAE ...
    python experiments/ablation.py --budget crops --data SET... --out experiments/ablation_crops.csv --arms MAE ...
    python experiments/ablation.py --budget gpu --data SET... --test SET... --keep runs/ablation --out ablation_gpu.csv

Every arm of a seed sees the same pictures for the same number of steps. Where features of a MAE are learnt, that MAE takes
three quarters of the steps, and the method goes on from its weights. A row per arm and seed is appended to
experiments/ablation.csv with its losses, the health of [cls], attention of every block, and what small readers make of
frozen and of fine-tuned features with 100, 10 and 1 % of the labels, on held-out words and on worn ones (and, with --data
and --test, on real crops); the losses on the way go to ablation_curves.csv. Rows that are there are not measured again, so
the script can be stopped and called again. `long` pre-trains four times as long, on four times the words; `thorough` fine-tunes
ten times as long after that; `crops` is as thorough, with photographs; `gpu` is ViT-S/4 for a million pictures per arm.
The notebook nbs/experiments/mnsp_study.ipynb reads the rows. Those of ablation_ctc.csv (a probe without flat start) and
ablation_features.csv are older, with guided decoders of one block; the commit that a row names measures it again.
"""
from dataclasses import replace
from pathlib import Path

from mnsp.nsp import mnsp_tasks, nsp_tasks
from mnsp.pretrain import lmim, mae, mnsp
from mnsp.study import Arm, Study, comparison_command

wear = ('scale', 'squeeze', 'rotation', 'curve', 'perspective')
cpu = Study(labelled=4096, shares=(1., .1, .01), steps=800, hidden=128, probe_steps=600, tune_steps=60, wear=wear)
long = replace(cpu, words=32_768, steps=3200)
budgets = {
    'cpu': cpu,
    'long': long,
    'thorough': replace(long, tune_steps=600),
    'crops': replace(cpu, shares=(1., .1), steps=3200, tune_steps=600),
    'gpu': Study(size='small', words=250_000, labelled=10_000, held_out=2000, shares=(1., .1, .01), steps=2000, hidden=128,
                 probe_steps=1000, tune_steps=1000, batch_size=512, lr=1e-3, wear=wear, workers=16),
}
main = 'no pre-training', 'MAE', 'LMIM', 'NSP only', 'MIM + NSP', 'MNSP'
photographed = 'no pre-training', 'MAE', 'LMIM, pixels', 'NSP only, pixels', 'MIM + NSP, pixels', 'align weight .1' # crops too
one_block = ('LMIM, one block', 'NSP only, one block', 'MIM + NSP, one block', 'MNSP, one block',
             'MNSP, whole alignment, one block', 'MIM + NSP, unguided, one block')
on_pixels = 'MAE', 'LMIM, pixels', 'NSP only, pixels, unaligned', 'NSP only, pixels', 'MIM + NSP, pixels', 'MNSP, pixels'


def arms(size):
    "Name -> arm: methods that learn a MAE's features, the same on pixels, then one change to MNSP on pixels each"
    base = replace(mnsp(size), teacher='frozen', align=1.)
    pixels = replace(base, teacher='pixels')
    def learnt(cfg, **kwargs): return Arm(replace(cfg, teacher='frozen'), **dict(mae_share=.75, continued=True) | kwargs)
    def changed(**kwargs): return replace(pixels, **kwargs)
    def scales(n, ratio=2): return dict(encoder=replace(base.encoder, n_scales=n, scale_ratio=ratio), tasks=mnsp_tasks(n))
    blind = dict(guide=None, decoder=replace(base.decoder, guided=False))
    def shallow(cfg, **kwargs): return replace(cfg, decoder=replace(cfg.decoder, depth=1), teacher='pixels', **kwargs)
    return {
        'no pre-training': None,
        'MAE': mae(size),
        'LMIM': learnt(lmim(size)),
        'NSP only': learnt(replace(base, tasks=nsp_tasks(3))),
        'MIM + NSP': learnt(replace(base, align=0.)),
        'MNSP': learnt(base),
        'the first MAE alone': Arm(None, mae_share=.75, continued=True),
        'MNSP, not continued': learnt(base, continued=False),
        'MNSP, moving average': replace(base, teacher='ema'),
        'LMIM, pixels': replace(lmim(size), teacher='pixels'),
        'LMIM, unaligned': replace(lmim(size), teacher='pixels', align=0.),
        'MAE, mask .8': replace(mae(size), mask_ratio=.8), # LMIM without guide
        'MAE, one block': shallow(mae(size)),
        'MAE, mask .8, one block': shallow(mae(size), mask_ratio=.8),
        'LMIM, one block': shallow(lmim(size)),
        'NSP only, one block': shallow(base, tasks=nsp_tasks(3)),
        'MIM + NSP, one block': shallow(base, align=0.),
        'MNSP, one block': shallow(base, align=.1),
        'MNSP, whole alignment, one block': shallow(base),
        'MIM + NSP, unguided, one block': shallow(replace(base, **blind)),
        'NSP only, pixels': changed(tasks=nsp_tasks(3)),
        'NSP only, pixels, unaligned': changed(tasks=nsp_tasks(3), align=0.),
        'MIM + NSP, pixels': changed(align=0.),
        'MNSP, pixels': pixels,
        'unguided': changed(**blind),
        'guided at the finest': changed(guide_at='finest'),
        'strong guide': changed(guide='strong'),
        'align weight .1': changed(align=.1),
        'align variance .1': changed(align_variance=.1),
        'align variance 1': changed(align_variance=1.),
        'align stop-gradient': changed(align_stop_gradient=True),
        'two scales': changed(**scales(2)),
        'two scales, ratio 4': changed(**scales(2, 4)),
        'nsp weight .5': changed(tasks=mnsp_tasks(3, .5)),
        'nsp weight 2': changed(tasks=mnsp_tasks(3, 2.)),
        'coarse mask .5': changed(mask_ratio=(.5, .5, .8)),
        'fine mask .75': changed(mask_ratio=(.8, .8, .75)),
        'fine mask .9': changed(mask_ratio=(.8, .8, .9)),
        'coarse tokens as memory': changed(decoder=replace(base.decoder, coarse_as='memory')),
        'coarse tokens as queries': changed(decoder=replace(base.decoder, coarse_as='queries')),
        'queries, align weight .1': changed(align=.1, decoder=replace(base.decoder, coarse_as='queries')),
        'coarse view in the encoder': changed(decoder=replace(base.decoder, coarse_as='encoder')),
        'two decoders': changed(split_decoder=True),
        'nsp weight 2 to 0': changed(tasks=mnsp_tasks(3, (2., 0.))),
        'nsp weight 0 to 2': changed(tasks=mnsp_tasks(3, (0., 2.))),
        'align weight 1 to 0': changed(align=(1., 0.)),
        'align weight .1, coarse mask .5': changed(align=.1, mask_ratio=(.5, .5, .8)),
        'align weight .1, two scales': changed(align=.1, **scales(2)),
        'moving average, own targets': replace(base, teacher='ema', coarse_target='own'),
    }


if __name__ == '__main__':
    comparison_command(arms, __doc__, Path(__file__).with_suffix('.csv'), budgets=budgets, every_block=True, curves=True)
