"""Pictures per second of pre-training, end to end, and where the time goes; all beside the loop one writes first.

    python experiments/throughput.py --sizes tiny small base            # all methods, rows are appended
    python experiments/throughput.py --ladder --methods LMIM            # from the first loop to the fast one
    python experiments/throughput.py --dry                              # prints rows, writes none

Loops and methods take turns (A B A B ...), ratios are taken within a turn, and a row has their median and range, so that a
busy machine disturbs them little; on a CPU the ratio of processor time stands beside that of time. The loader is part of
every step: it decodes JPEGs, 2000 crops of rendered words or what lies at `--data`. `share_of_rate` is the arithmetic done
over what large matrix products reach on the device in the same run. `peak_mb` is memory of a step beyond model and
optimizer on a CPU, all that is allocated on a GPU. Times by part are ms per step; on a GPU they are its stream's.

On a GPU, in calls of at most four minutes (the first steps compile; rows are appended as soon as they are there):

    python experiments/throughput.py --device cuda --methods LMIM MNSP --batch-size 512 --workers 15 --rounds 5
    python experiments/throughput.py --device cuda --methods LMIM --ladder --batch-size 256 --workers 15
    python experiments/throughput.py --device cuda --methods LMIM --batch-size 512 --workers 15 --fit
    python experiments/throughput.py --device cuda --methods MAE --batch-size 512 --workers 15 --sizes tiny small base
    python experiments/throughput.py --device cuda --methods LMIM MNSP --batch-size 256 --workers 15 --sizes base
    python experiments/throughput.py --device cuda --methods LMIM --batch-size 512 --workers 15 \\
        --compile-mode max-autotune-no-cudagraphs               # or reduce-overhead, for CUDA graphs: do they pay?

Target on an H200: 4,500 pictures/s for LMIM small. The twin on a CPU: `--device cpu --sizes tiny`.
"""
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median

import torch
from data_speed import jpegs, write_lmdb
from torch.utils.data import RandomSampler

from mnsp.data import WordDataset, word_loader
from mnsp.lab.speed import Marks, Operations, build, computed, gflop, ladder, matrix_rate, train_step, watched
from mnsp.lab.study import append_rows, script_options
from mnsp.machine import this_commit
from mnsp.pretrain import lmim, mae, mnsp
from mnsp.sources import open_source
from mnsp.training import History, compile_blocks, hold_memory, pretrain

methods = dict(LMIM=lmim, MNSP=mnsp, MAE=mae)
parts = 'loader', 'views', 'masked pass', 'guide pass', 'coarse passes', 'teacher', 'decoder', 'other', 'backward', 'optimizer'
fields = ['what', 'method', 'size', 'variant', 'device', 'device_name', 'threads', 'batch_size', 'images_per_s', 'ratio',
          'ratio_low', 'ratio_high', 'cpu_ratio', 'time_to_lmim', 'gflop_per_image', 'share_of_rate', 'matrix_gflop_s', 'peak_mb',
          'operations', 'kernels', 'reads', *[f'ms {p}' for p in parts], *[f'gflop {p}' for p in parts[1:7]],
          'rounds', 'torch', 'commit', 'date', 'command']


def words(path, folder):
    "Where JPEGs of words lie: given, or 2000 crops of rendered ones"
    if path is None: write_lmdb(folder / 'words.lmdb', list(jpegs()))
    return WordDataset(open_source(path or folder / 'words.lmdb'))


def endless(data, args):
    "A loader that has no end"
    order = RandomSampler(data, replacement=True, num_samples=10**9)
    return word_loader(data, args.batch_size, sampler=order, workers=args.workers, drop_last=True)


class Arm:
    "A loop with its model and loader; `turn` takes some steps"
    def __init__(self, cfg, loop, args, data):
        self.loop, self.device = loop, torch.device(args.device)
        self.model, self.opt = build(cfg, replace(loop, compiled=False), args.device)
        if loop.compiled: compile_blocks(self.model, mode=args.compile_mode)
        self.batches, self.turns, self.cpu = iter(endless(data, args)), [], []

    def steps(self, n, mark=lambda name: None):
        "Batches from the loader, each a step"
        for _ in range(n):
            images = next(self.batches)[0]
            mark('loader')
            train_step(self.model, self.opt, images, self.loop, mark)

    def wait(self):
        if self.device.type == 'cuda': torch.cuda.synchronize()

    def turn(self, n):
        "Time n steps, after one that takes memory as this loop does"
        with computed(self.loop):
            self.steps(1)
            self.wait()
            start, cpu = time.perf_counter(), time.process_time()
            self.steps(n)
            self.wait()
            self.turns.append((time.perf_counter() - start) / n)
            self.cpu.append((time.process_time() - cpu) / n)

    def first(self, n):
        "Untimed steps; the peak of memory in MB, on a CPU beyond what the process had before"
        if self.device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
        hold_memory(False)
        peak_mb()
        before = peak_mb()
        with computed(self.loop): self.steps(n)
        self.wait()
        return torch.cuda.max_memory_allocated() / 2**20 if self.device.type == 'cuda' else peak_mb() - before

    def by_part(self, n):
        "ms of a step by part"
        with computed(self.loop), watched(self.model, Marks(self.device)) as mark:
            mark('start')
            self.steps(n, mark)
        return {f'ms {name}': round(1000 * t / n, 2) for name, t in mark.totals().items()}

    def counts(self):
        "Operations, kernels on a GPU, and reads of one step"
        images, out = next(self.batches)[0], {}
        with computed(self.loop):
            if self.device.type == 'cuda':
                with torch.profiler.profile() as p: train_step(self.model, self.opt, images, self.loop); self.wait()
                out['kernels'] = sum(e.device_type == torch.autograd.DeviceType.CUDA for e in p.events())
            if not self.loop.compiled:
                with Operations() as ops: train_step(self.model, self.opt, images, self.loop)
                out |= dict(operations=ops.total, reads=ops.reads)
        return out


def peak_mb():
    "Peak of resident memory since the last call (Linux)"
    try:
        peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
        Path('/proc/self/clear_refs').write_text('5')
        return int(peak.split()[1]) / 1024
    except OSError: return 0                                        # not known


def about(args):
    "What every row says of its run"
    name = torch.cuda.get_device_name() if args.device == 'cuda' else cpu_name()
    return dict(device=args.device, device_name=name, threads=torch.get_num_threads(), batch_size=args.batch_size,
                rounds=args.rounds, torch=torch.__version__, commit=this_commit(), date=date.today().isoformat(),
                command=' '.join(['python experiments/throughput.py', *sys.argv[1:]]))


def cpu_name():
    "The processor's name"
    try: return next(line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name'))
    except (OSError, StopIteration): return 'unknown'


def measure(size, loops, args, data):
    "Rows of a size, one for each method and loop, with their arms; the first loop is the baseline"
    blank = torch.zeros(4, 3, 32, 128, dtype=torch.uint8, device=args.device)
    arithmetic = {m: gflop(build(methods[m](size), device=args.device)[0], blank) for m in args.methods}
    arms = {(m, name): Arm(methods[m](size), loop, args, data) for m in args.methods for name, loop in loops.items()}
    peaks = {key: arm.first(3 if arm.loop.compiled else 1) for key, arm in arms.items()}
    rate = 0
    for _ in range(args.rounds):
        rate = max(rate, matrix_rate(args.device, tries=4))
        for arm in arms.values(): arm.turn(args.steps)
    for (method, name), arm in arms.items():
        base, lmims, counts = arms[method, 'first loop'], arms.get(('LMIM', name)), arithmetic[method]
        def ratios(to, of=lambda arm: arm.turns, arm=arm): return [b / a for a, b in zip(of(arm), of(to))]
        gains, per_s = ratios(base), args.batch_size / median(arm.turns)
        row = dict(what='ladder' if args.ladder else 'methods', method=method, size=size, variant=name,
                   images_per_s=round(per_s, 2), ratio=round(median(gains), 3), ratio_low=round(min(gains), 3),
                   ratio_high=round(max(gains), 3), gflop_per_image=round(counts['all'], 3),
                   share_of_rate=round(per_s * counts['all'] / rate, 3), matrix_gflop_s=round(rate),
                   peak_mb=round(peaks[method, name]) or None, **arm.counts(), **arm.by_part(args.steps),
                   **{f'gflop {part}': round(n, 3) for part, n in counts.items() if part != 'all'})
        if lmims: row['time_to_lmim'] = round(1 / median(ratios(lmims)), 3)
        if args.device == 'cpu': row['cpu_ratio'] = round(median(ratios(base, lambda arm: arm.cpu)), 3)
        yield row, arm


def by_fit(method, size, args, data, arm):
    "A row: the same model by `pretrain`, all of its loop included, and the bare fast loop in turns"
    n, took = args.steps, []
    for _ in range(args.rounds):
        history = History(n)
        with computed(arm.loop): pretrain(arm.model, endless(data, args), steps=2 * n, history=history, device=args.device)
        took.append((history.rows[1]['seconds'] - history.rows[0]['seconds']) / n)
        arm.turn(n)
    ratios = [b / a for a, b in zip(took, arm.turns[-args.rounds:])]
    return dict(what='loop', method=method, size=size, variant='pretrain(), fast loop = 1', ratio=round(median(ratios), 3),
                ratio_low=round(min(ratios), 3), ratio_high=round(max(ratios), 3),
                images_per_s=round(args.batch_size / median(took), 2))


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--methods', nargs='+', default=list(methods), choices=methods)
    parser.add_argument('--sizes', nargs='+', default=['small'])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--workers', type=int, default=0, help='processes that read and decode')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=2, help='in a turn')
    parser.add_argument('--ladder', action='store_true', help='every loop from the first to the fast one')
    parser.add_argument('--compile', action='store_true', help='one more loop: compiled, also on a CPU')
    parser.add_argument('--compile-mode', help='of torch.compile')
    parser.add_argument('--fit', action='store_true', help='also the loop of `pretrain`')
    parser.add_argument('--data', help='a source of pictures; default: rendered words')
    parser.add_argument('--dry', action='store_true', help='print rows, write none')
    args = parser.parse_args()
    loops, run = ladder(args.device), about(args)
    fast = list(loops.values())[-1]
    if not args.ladder: loops = {'first loop': loops['first loop'], 'fast': fast}
    if args.compile: loops['fast, compiled'] = replace(fast, compiled=True)
    with tempfile.TemporaryDirectory() as folder:
        data = words(args.data, Path(folder))
        for size in args.sizes:
            for row, arm in measure(size, loops, args, data):
                finish(row | run, args)
                if args.fit and arm.loop == fast: finish(by_fit(row['method'], size, args, data, arm) | run, args)


def finish(row, args):
    "Print a row, and keep it"
    print({k: v for k, v in row.items() if v not in (None, '')}, flush=True)
    if not args.dry: append_rows(args.out, [dict.fromkeys(fields) | row])


if __name__ == '__main__': main()
