"""How recognisers stand corruption: the suite of `mnsp.robustness` on several models, side by side.

    make demo                                                   # or any other recogniser
    python experiments/robustness.py demo=demo_out --out robustness.json --picture robustness.png

Models are given as name=folder. Without --data the words are the demo's held-out ones. The JSON holds a result per
model (`Robustness.to_dict`), with amounts, units and the convention.
"""
import argparse
import json
from pathlib import Path

from mnsp.demo import held_out_words
from mnsp.evaluate import named_sources
from mnsp.hub import load_model
from mnsp.robustness import families, robustness, show_robustness


def named(text):
    "name=folder -> (name, folder)"
    name, equals, folder = text.partition('=')
    if not (name and equals and folder): raise argparse.ArgumentTypeError(f'{text!r} is not name=folder')
    return name, Path(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', type=named, metavar='name=folder')
    parser.add_argument('--data', type=Path, help='labelled folder or LMDB; left out: the held-out words of the demo')
    parser.add_argument('--n', type=int, default=500, help='words at most')
    parser.add_argument('--families', nargs='+', choices=families, default=list(families))
    parser.add_argument('--severities', nargs='+', type=float, default=[.2, .4, .6, .8, 1.])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path)
    parser.add_argument('--picture', type=Path)
    args = parser.parse_args()
    source, = (named_sources([args.data]) if args.data else held_out_words()).values()
    results = {}
    for name, folder in args.models:
        model = load_model(folder, 'Recognizer')
        results[name] = robustness(model.read_batch, source, args.severities, args.families, args.seed, args.n,
                                   size=model.cfg.encoder.img_size)
        print(f'{name}\n{results[name].table()}\n', flush=True)
    if args.out: args.out.write_text(json.dumps({k: r.to_dict() for k, r in results.items()}, indent=1) + '\n')
    if args.picture: show_robustness(results).savefig(args.picture, dpi=110)


if __name__ == '__main__':
    main()
