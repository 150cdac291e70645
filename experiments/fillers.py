"""Four small models whose answers can be looked at: plain pixels of rendered words, filled in by each method.

    python experiments/fillers.py --out nbs/fillers --run runs/fillers      # an hour of a core

MAE, LMIM, naive next-scale prediction and MNSP, alike but for what they ask and are told, see the same words of
`clear_world`, in fonts that come with matplotlib, so that every machine makes the same ones and pictures of them may be shown. An
encoder of width 64 on patches of 4 x 8 pixels; weights are stored in half precision. Words that were held out
(`split='valid'`) are for showing. A run that was stopped goes on when it is called again.
"""
import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mnsp.checkpoints import Checkpoints
from mnsp.data import Cached, WordDataset, word_loader
from mnsp.hub import save_model
from mnsp.nsp import nsp_tasks
from mnsp.pretrain import Pretrainer, lmim, mae, mnsp
from mnsp.synth import SynthWords, clear_world
from mnsp.training import History, pretrain


def methods():
    "Name -> configuration: plain pixels as targets, 4 x 8 patches"
    def small(cfg):
        return replace(cfg, encoder=replace(cfg.encoder, patch_size=(4, 8)), teacher='plain pixels')
    naive = small(mnsp('nano'))
    return dict(mae=small(mae('nano')), lmim=small(lmim('nano')), mnsp=small(mnsp('nano')),
                nsp=replace(naive, tasks=nsp_tasks(3), guide=None, align=0., decoder=replace(naive.decoder, guided=False)))

def main():
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder of the models')
    parser.add_argument('--run', type=Path, required=True, help='folder of checkpoints and logs')
    parser.add_argument('--methods', nargs='+', choices=methods(), default=[*methods()])
    parser.add_argument('--steps', type=int, default=3000)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--words', type=int, default=12_000, help='rendered; every pass over them is the same')
    a = parser.parse_args()
    words = Cached(WordDataset(SynthWords(clear_world(), a.words, seed=0, split='train')))
    for name in a.methods:
        torch.manual_seed(0)
        model, loader = Pretrainer(methods()[name]), word_loader(words, a.batch_size, shuffle=True, drop_last=True)
        folder = a.run/name
        folder.mkdir(parents=True, exist_ok=True)
        settings = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr, words=a.words)
        learn = pretrain(model, loader, lr=a.lr, optimizer='muon', steps=a.steps, clip=1., bar=name,
                         history=History(50, folder/'log.csv'),
                         cbs=[Checkpoints(folder/'checkpoints', 250, resume=True, settings=dict(**settings, method=name))])
        row = learn.history.rows[-1]
        print(save_model(model, a.out/name, dict(**settings, loss=row['loss'], seconds=row['seconds']), half=True))

if __name__ == '__main__': main()
