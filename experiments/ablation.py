"""Does next-scale prediction help people read? MNSP, its parts, its ancestors and its switches at equal steps.

    python experiments/ablation.py                                      # about two hours of one core per seed
    python experiments/ablation.py --arms MAE LMIM MNSP --seeds 0 1 2   # some of it
    python experiments/ablation.py --budget crops --data SET... --out experiments/ablation_crops.csv --arms MAE ...
    python experiments/ablation.py --budget thorough --out experiments/ablation_thorough.csv --arms 'no pre-training' MAE ...
    python experiments/ablation.py --budget gpu --data SET... --test SET... --keep runs/ablation --out ablation_gpu.csv

Every arm of a seed sees the same pictures for the same number of steps. Where features of a MAE are learnt, that MAE takes
three quarters of the steps, and the method goes on from its weights. A row per arm and seed is appended to
experiments/ablation.csv with its losses, the health of [cls], attention of every block, and what small readers make of
frozen and of fine-tuned features with 100, 10 and 1 % of the labels, on held-out words and on corrupted ones (and, with --data
and --test, on real crops); the losses on the way go to ablation_curves.csv. Rows that are there are not measured again, so
the script can be stopped and called again. `crops` pre-trains four times as long, on photographs, and fine-tunes ten times
as long; `thorough` is the same on rendered words; `gpu` is ViT-S/4 for a million pictures per arm. The notebook
nbs/experiments/mnsp_study.ipynb reads the rows. Those of commits up to 33981fe were measured under other names (LMIM was
'LMIM, pixels', 'MNSP, halves' was 'align weight .1', and up to 3de2b4d it was MNSP), and those of ablation_features.csv with
guided decoders of one block; the command that ends a row, with the script of the commit before it, measures it again.
Switches that lost are gone after commit c7069e0, the last that can measure the rows of `gone` again.
"""
from dataclasses import replace

from mnsp.lab.study import Arm, Study, comparison_command
from mnsp.nsp import mim_task, mnsp_tasks, nsp_tasks
from mnsp.pretrain import lmim, mae, mnsp

corruptions = ('scale', 'squeeze', 'rotation', 'curve', 'perspective')
cpu = Study(labelled=4096, shares=(1., .1, .01), steps=800, hidden=128, probe_steps=600, tune_steps=60, corruptions=corruptions)
budgets = {
    'cpu': cpu,
    'crops': replace(cpu, shares=(1., .1), steps=3200, tune_steps=600),
    'thorough': replace(cpu, words=32_768, steps=3200, tune_steps=600),
    'gpu': Study(size='small', words=250_000, labelled=10_000, held_out=2000, shares=(1., .1, .01), steps=2000, hidden=128,
                 probe_steps=1000, tune_steps=1000, batch_size=512, lr=1e-3, corruptions=corruptions, workers=16),
}
main = 'no pre-training', 'MAE', 'LMIM', 'NSP only', 'MIM + NSP', 'MNSP, halves', 'MNSP'
gone = 'guided at the finest', 'filled in, nsp weight 1 to 0', 'coarse tokens as memory', 'two decoders' # have rows still


def halves(n_scales, weight=1.):
    "MNSP's tasks as they were first: half of a batch is filled in, half predicted from the coarser scale, with full weight"
    mim, nsp, *coarser = mnsp_tasks(n_scales, weight)
    return replace(mim, share=.5), replace(nsp, share=.5), *coarser


def arms(size):
    "Name -> arm: the methods, what LMIM differs from MAE by, the methods on a MAE's features, changes to the halves"
    base = replace(mnsp(size), tasks=halves(3))
    def changed(**kwargs): return replace(base, **kwargs)
    def decoder(**kwargs): return dict(decoder=replace(base.decoder, **kwargs))
    def scales(n, ratio=2): return dict(encoder=replace(base.encoder, n_scales=n, scale_ratio=ratio), tasks=halves(n))
    def filled(weight=1.): return changed(tasks=mim_task(3) + halves(3, weight)[1:])
    def features(cfg): return Arm(replace(cfg, teacher='frozen'), mae_share=.75, continued=True)
    return {
        'no pre-training': None,
        'MAE': mae(size),
        'LMIM': lmim(size),
        'NSP only': changed(tasks=nsp_tasks(3), align=0.),
        'NSP only, unguided': changed(tasks=nsp_tasks(3), align=0., guide=None, **decoder(guided=False)),
        'MIM + NSP': changed(align=0.),
        'MNSP, halves': base,
        'MNSP': mnsp(size),
        'MAE, mask .8': replace(mae(size), mask_ratio=.8),
        'LMIM, unaligned': replace(lmim(size), align=0.),
        'the first MAE alone': Arm(None, mae_share=.75, continued=True),
        'LMIM, features': features(lmim(size)),
        'NSP only, features': features(changed(tasks=nsp_tasks(3), align=1.)),
        'MIM + NSP, features': features(changed(align=0.)),
        'MNSP, features': features(changed(align=1.)),
        'moving average': changed(teacher='ema'),
        'unguided': changed(guide=None, **decoder(guided=False)),
        'strong guide': changed(guide='strong'),
        'whole alignment': changed(align=1.),
        'align variance .1': changed(align_variance=.1),
        'align stop-gradient': changed(align_stop_gradient=True),
        'two scales': changed(**scales(2)),
        'two scales, ratio 4': changed(**scales(2, 4)),
        'every picture filled in': filled(), # not half of them
        'filled in, nsp weight .25': filled(.25),
        'nsp weight .5': changed(tasks=halves(3, .5)),
        'nsp weight 2': changed(tasks=halves(3, 2.)),
        'coarse mask .5': changed(mask_ratio=(.5, .5, .8)),
        'fine mask .75': changed(mask_ratio=(.8, .8, .75)),
        'fine mask .9': changed(mask_ratio=(.8, .8, .9)),
        'coarse tokens as queries': changed(**decoder(coarse_as='queries')),
    }


if __name__ == '__main__':
    comparison_command(arms, __doc__, __file__, budgets, every_block=True, curves=True)
