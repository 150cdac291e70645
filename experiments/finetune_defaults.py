"""Fine-tuning on a few hundred labels: does the reader get better, whatever was chosen?

    python experiments/finetune_defaults.py --data SET --valid SET ... --reader packaged --steps 150 --seeds 0 1 2

For each seed 545 labelled words are drawn for training and 300 for validation, from --valid or, left out, from other
photographs (or files) of --data. `mnsp finetune` is run as a user would type it, once for each choice. A row per seed goes to
experiments/finetune_defaults.csv: held-out words before the first step, after the last one, and of the weights that were kept.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from mnsp.lab.study import append_rows, read_rows, script_options
from mnsp.sources import open_source
from mnsp.stores import convert
from mnsp.unions import Concat, Subset, split_source

choices = { # how a run differs from the command's defaults
    'defaults': [],
    'AdamW 2.5e-5': ['--optimizer', 'adamw', '--lr', '2.5e-5'],
    'AdamW 1e-4': ['--optimizer', 'adamw', '--lr', '1e-4'],
    'AdamW 4e-4': ['--optimizer', 'adamw', '--lr', '4e-4'], 'Muon 1e-4': ['--optimizer', 'muon', '--lr', '1e-4'],
    'Muon 2e-4': ['--optimizer', 'muon', '--lr', '2e-4'],
    'Muon 4e-4': ['--optimizer', 'muon', '--lr', '4e-4'],
    'Muon 2e-3': ['--optimizer', 'muon', '--lr', '2e-3'],
    'Muon 2e-3, short words first': ['--optimizer', 'muon', '--lr', '2e-3', '--short-first', '.6']}

def drawn(source, n, seed):
    "So many labelled words"
    labelled = [i for i in np.random.default_rng(seed).permutation(len(source)) if source.label(int(i))]
    return Subset(source, [int(i) for i in labelled[:n]])

def measure(command, work):
    "Validation's rows of one run of `mnsp finetune`"
    out = work/'run'
    subprocess.run([sys.executable, '-m', 'mnsp', 'finetune', '--data', work/'train', '--valid', work/'valid',
                    '--valid-every', '100000', '--out', out, '--workers', '0', *command], check=True)
    return read_rows(out/'validation.csv')

def row_of(name, seed, start, found):
    "What is kept of a run"
    first, last = (found[0] if found[0]['step'] == 0 else {}), found[-1]
    best = max(reversed(found), key=lambda row: row['mean'])
    return dict(choice=name, start=start, steps=last['step'], seed=seed,
                **{f'{when}_{k}': row.get(k, '') for when, row in dict(before=first, after=last, kept=best).items()
                   for k in ('exact', 'waics')}, seconds=last['seconds'])

def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--data', required=True, help='labelled set to draw words from')
    parser.add_argument('--valid', nargs='+', help='sets to draw held-out words from')
    parser.add_argument('--steps', type=int, default=150)
    parser.add_argument('--reader', help='to go on from')
    parser.add_argument('--encoder', help='to start from')
    parser.add_argument('--name', help='of the start, for the rows')
    parser.add_argument('--words', type=int, default=545)
    parser.add_argument('--held-out', type=int, default=300)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--choices', nargs='+', choices=choices, default=list(choices))
    a = parser.parse_args()
    begin = ['--reader', a.reader] if a.reader else ['--encoder', a.encoder] if a.encoder else []
    train, valid = open_source(a.data), Concat([open_source(p) for p in a.valid or [a.data]])
    if not a.valid: train, valid = split_source(train)
    for seed in a.seeds:
        for name in a.choices:
            with tempfile.TemporaryDirectory() as work:
                work = Path(work)
                convert(drawn(train, a.words, seed), work/'train', bar=False)
                convert(drawn(valid, a.held_out, seed), work/'valid', bar=False)
                row = row_of(name, seed, a.name or a.reader or 'nothing',
                             measure([*begin, *choices[name], '--steps', str(a.steps), '--seed', str(seed)], work))
            print(row, flush=True)
            append_rows(a.out, [row])

if __name__ == '__main__': main()
