"""How much of what a probe reads is its head's doing? The same frozen encoders, several seeds of the head, a flat start or none.

    python experiments/probe_seeds.py        # six minutes of one core

Writes experiments/probe_seeds.csv: for each of the six encoders that the study keeps (ablation_encoders.safetensors:
pre-trained on photographs, seed 2), each seed of the head and each flat start, edit similarity and WAICS of rendered
words it has not seen.
"""
from dataclasses import replace
from pathlib import Path

import torch
from ablation import arms, budgets
from ablation import main as methods
from safetensors.torch import load_file

from mnsp.encoder import Encoder
from mnsp.files import write_rows
from mnsp.lab.study import StudyData, frozen_probe, grade, script_options
from mnsp.machine import this_commit

here = Path(__file__).parent


def kept_encoders():
    "Name and encoder of each arm that is kept"
    state = load_file(here / 'ablation_encoders.safetensors')
    for name in methods[1:]:
        encoder = Encoder(arms('nano')[name].encoder).eval()
        encoder.load_state_dict({k.split('/')[1]: v.float() for k, v in state.items() if k.startswith(f'{name}/')})
        yield name, encoder


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--probe-steps', type=int, default=budgets['cpu'].probe_steps)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study, rows = replace(budgets['cpu'], words=64), [] # nothing is pre-trained
    data, facts = StudyData(study), dict(commit=this_commit(), device='cpu')
    for name, encoder in kept_encoders():
        for flat_start in (0., study.flat_start):
            for seed in range(args.seeds):
                reader = frozen_probe(encoder, data.labelled, args.probe_steps, seed, study.hidden, flat_start)
                read = grade(reader, data.held_out[''])
                rows.append(dict(encoder=name, flat_start=flat_start, probe_steps=args.probe_steps, seed=seed,
                                 ned=round(read['ned'], 2), waics=round(read['waics'], 2), loss=round(read['loss'], 4), **facts))
                print(rows[-1], flush=True)
                write_rows(args.out, rows)


if __name__ == '__main__': main()
