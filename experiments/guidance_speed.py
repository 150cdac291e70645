"""Views per second on one core, and the share of a pre-training step that making them takes.

    python experiments/guidance_speed.py

Batched views stand beside the same kinds of operation done image by image with torchvision, timed in the same run, in
turns, best of several rounds, in processor time, since a machine is seldom quiet. Rows go to experiments/guidance_speed.csv.
(The imgaug pipeline of LMIM's release made 160 images/s on one core, measured elsewhere: imgaug does not run on
current NumPy, so it is not timed here.)
"""
import random
import time
from functools import partial

import numpy as np
import torch

from mnsp.augment import FinetuneAugment
from mnsp.files import write_rows
from mnsp.guidance import Draws, GuidanceView, levels
from mnsp.lab.speed import one_by_one
from mnsp.lab.study import script_options
from mnsp.machine import autocast
from mnsp.pretrain import Pretrainer, lmim
from mnsp.synth import SynthWords, varied_world
from mnsp.training import make_optimizer


def in_turns(makers, images, rounds):
    "Seconds of processor time of every maker, best of the rounds"
    best = dict.fromkeys(makers, float('inf'))
    for _ in range(rounds):
        for name, (make, n) in makers.items():
            start = time.process_time()
            make(images[:n])
            best[name] = min(best[name], time.process_time() - start)
    return best


def views_per_second(images, rounds):
    "Rows of images/s"
    medium, whole = GuidanceView(), len(images)
    def unsplit(x): return medium.view(x, Draws(len(x), None, x.device))
    makers = {'torchvision, one by one': (one_by_one(), 8)}
    makers |= {level: (GuidanceView(level), whole) for level in levels}
    makers |= {'medium, not in parts': (torch.no_grad()(unsplit), whole), 'FinetuneAugment': (FinetuneAugment(), whole)}
    seconds = in_turns(makers, images, rounds)
    rates = {name: n / seconds[name] for name, (_, n) in makers.items()}
    slow = rates['torchvision, one by one']
    for name, rate in rates.items():
        yield dict(what=name, batch=makers[name][1], images_per_s=round(rate), ratio=round(rate / slow, 1))


def timed_step(model, opt, images):
    "One optimiser step; seconds of processor time of the whole and of the view within"
    clock = []
    def note(*_): clock.append(time.process_time())
    hooks = model.guidance.register_forward_pre_hook(note), model.guidance.register_forward_hook(note)
    start = time.process_time()
    with autocast('cpu'): loss = model(images)['loss']
    loss.backward()
    opt.step()
    opt.zero_grad()
    model.update_teacher()
    end = time.process_time()
    for hook in hooks: hook.remove()
    return end - start, clock[1] - clock[0]


def step_share(name, cfg, images, rounds):
    "A row: the fastest step, and the view's share of it"
    torch.manual_seed(0)
    model = Pretrainer(cfg)
    step = partial(timed_step, model, make_optimizer(model, 1e-4), images)
    step()  # the first allocates
    whole, view = min(step() for _ in range(rounds))
    return dict(what=f'{name} step', batch=len(images), images_per_s=round(len(images) / whole, 1),
                view_share=round(view / whole, 5))


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--rounds', type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    words = SynthWords(varied_world(), n=256, seed=1)
    images = torch.from_numpy(np.stack([np.asarray(words[i][0]) for i in range(256)])).permute(0, 3, 1, 2).contiguous()
    rows = list(views_per_second(images, args.rounds))
    rows.append(step_share('lmim_tiny', lmim('tiny'), images[:64], 6))
    rows.append(step_share('lmim_small', lmim('small'), images[:4], 2))
    for row in rows: print(row)
    columns = dict.fromkeys(('what', 'batch', 'images_per_s', 'ratio', 'view_share'))
    write_rows(args.out, [columns | row for row in rows])


if __name__ == '__main__': main()
