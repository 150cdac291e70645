"""What a training step of MNSP costs beside LMIM's and MAE's: arithmetic counted, time measured.

    python experiments/mnsp_cost.py --size small --batch-size 8 --rounds 5
    python experiments/mnsp_cost.py --size micro --batch-size 64 --rounds 9 --out experiments/mnsp_trial_cost.csv \\
        --arms MAE LMIM 'NSP only, unguided' 'MIM + NSP, unguided' MNSP     # of mnsp_trial.py, which predict pixels

Forward and backward pass with guidance views and, without --arms, a frozen teacher; no data loading, no optimizer. Each
round runs every method once, and ratios are taken within a round, so that a busy machine disturbs them little; on a CPU it
is the process's own time on one thread. Rows go to experiments/mnsp_cost.csv unless --out says otherwise. `guide at the
finest scale alone`, a row of an earlier run there, was a switch that commit c7069e0 had last.
"""
import time
from dataclasses import replace
from statistics import median

import torch
from mnsp_trial import arms

from mnsp.files import write_rows
from mnsp.lab.speed import build, gflop
from mnsp.lab.study import script_options
from mnsp.machine import autocast
from mnsp.nsp import mim_task, nsp_tasks
from mnsp.pretrain import Pretrainer, lmim, mae, mnsp


def methods(size):
    "Name -> configuration"
    base = mnsp(size)
    return {'LMIM': lmim(size), 'MNSP': base, 'MAE': mae(size),
            'MNSP, every picture asked everything': replace(base, tasks=mim_task(3) + nsp_tasks(3, visible=True))}


def pixels(cfg, device):
    torch.manual_seed(0)
    return Pretrainer(cfg, generator=torch.Generator(device).manual_seed(0)).to(device).train()


def seconds(model, images):
    "One forward and backward pass"
    device = images.device
    now = time.process_time if device.type == 'cpu' else time.perf_counter
    if device.type == 'cuda': torch.cuda.synchronize()
    start = now()
    with autocast(device): loss = model(images)['loss']
    loss.backward()
    if device.type == 'cuda': torch.cuda.synchronize()
    return now() - start


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--size', default='small')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--arms', nargs='+', help='of mnsp_trial.py, LMIM among them')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    if args.device == 'cpu': torch.set_num_threads(1)
    images = torch.randint(0, 256, (args.batch_size, 3, 32, 128), dtype=torch.uint8, device=args.device)
    if args.arms: models = {name: pixels(arms(args.size)[name], args.device) for name in args.arms}
    else: models = {name: build(cfg, device=args.device)[0] for name, cfg in methods(args.size).items()}
    counted = {name: gflop(model, images)['all'] for name, model in models.items()}
    times = {name: [] for name in models}
    for _ in range(args.rounds + 1):
        for name, model in models.items(): times[name].append(seconds(model, images))
    rows = []
    for name in models:
        rounds = list(zip(times[name], times['LMIM'], strict=True))[1:]                 # the first round warms up
        ratio = median(own / lmims for own, lmims in rounds)
        per_second = args.batch_size / median(times[name][1:])
        rows.append(dict(method=name, size=args.size, device=args.device, batch_size=args.batch_size,
                         gflop_per_picture=round(counted[name], 2), gflop_to_lmim=round(counted[name] / counted['LMIM'], 3),
                         time_to_lmim=round(ratio, 3), pictures_per_second=round(per_second, 2)))
        print(rows[-1], flush=True)
    write_rows(args.out, rows)


if __name__ == '__main__': main()
