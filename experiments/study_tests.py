"""What the study's encoders read of the test sets: the kept ones, fine-tuned with several seeds, all labels and a tenth.

    python experiments/study_tests.py --data IIIT5K_train SVT_train IC15_train MLTlike_train \\
        --test IIIT5K_test SVT_test IC13_test IC15_test     # two hours of one core; --seeds 2 is a third of it

Writes experiments/study_tests.csv: for each of the six encoders that the study keeps (ablation_encoders.safetensors:
pre-trained on photographs, seed 2) and one without pre-training, and each seed of head, fine-tuning and tenth of the labels,
what the study's small reader makes of held-out crops and of each test set, with the labels, heads and steps of
ablation.py's budget `crops`. Rows that are there are not measured again.
"""
import time
from dataclasses import replace
from pathlib import Path

import torch
from ablation import arms, budgets
from probe_seeds import kept_encoders

from mnsp.encoder import Encoder
from mnsp.lab.study import StudyData, _asked, append_rows, probe, read_rows, script_options
from mnsp.machine import this_commit
from mnsp.sources import open_source
from mnsp.surgery import finest_encoder


def encoders(seed):
    "Name and encoder: without pre-training, then the kept ones"
    torch.manual_seed(seed)
    yield 'no pre-training', Encoder(arms('nano')['LMIM'].encoder).eval()
    yield from kept_encoders()


def main():
    parser = script_options(__doc__, __file__)
    parser.add_argument('--data', nargs='+', required=True, help='folders or LMDBs of real crops, to learn from')
    parser.add_argument('--test', nargs='+', required=True, help='labelled folders or LMDBs, to be read')
    parser.add_argument('--seeds', type=int, nargs='+', default=[2, 0, 1])
    parser.add_argument('--steps', type=int, default=budgets['crops'].tune_steps, help='of fine-tuning')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study = replace(budgets['crops'], words=64, corruptions=(), tune_steps=args.steps) # nothing is pre-trained
    tests = {Path(p).name: open_source(p) for p in args.test}
    data = StudyData(study, 2, crops=[open_source(p) for p in args.data], tests=tests)
    facts = dict(commit=this_commit(), device='cpu')
    for seed in args.seeds:
        for name, encoder in encoders(seed):
            if (name, seed) in {(r['encoder'], r['seed']) for r in read_rows(args.out)}: continue
            start = time.monotonic()
            read = probe(finest_encoder(encoder), data, study, seed)
            row = {k: round(v, 2) for k, v in read.items() if 'loss' not in k}
            append_rows(args.out, [dict(encoder=name, seed=seed, tune_steps=study.tune_steps, **row,
                                        seconds=round(time.monotonic() - start), **facts,
                                        command=f'{_asked(parser, args)} --seeds {seed}')])
            print(name, seed, {k: v for k, v in row.items() if k.startswith('tuned_ned')}, flush=True)


if __name__ == '__main__': main()
