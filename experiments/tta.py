"""What test-time augmentation is worth: `python experiments/tta.py --data FOLDER`, minutes; a table, and a CSV of all choices.

Every validation picture (of the training sets, by the rule of reader.py) is read as it is and in several views. For each
bound on the confidence per character, and one or two views: the words below the bound take the surest of the readings.
`waics` is the share of words that are then right, `readings` what it costs, in readings per picture.
"""
import argparse
from itertools import combinations
from pathlib import Path

import torch
from reader import Crops

from mnsp.data import WordDataset, word_loader
from mnsp.decoding import framed
from mnsp.evaluate import waics_text
from mnsp.files import write_rows
from mnsp.reading import Reading, Recognizer

SETS = ["IIIT5K_train", "SVT_train", "IC15_train", "MLTlike_train"]
BOUNDS = .7, .8, .9, .95, .98, .99, 1.01  # the last: all words


VIEWS = {"negative": lambda x: 255 - x,
         **{f"{'crop' if share > 0 else 'pad'} {abs(share):.0%}": lambda x, s=share: framed(x, s)
            for share in (.03, .05, -.03, -.05, -.08)}}


def read_all(reader, data):
    "Labels, and by view's name (text, confidence per character) of every picture"
    labels, answers = [], {name: [] for name in ("plain", *VIEWS)}
    for name in SETS:
        source = Crops([Path(data) / name], True)
        for images, _ in word_loader(WordDataset(source, on_broken="blank"), 64):
            for view, answer in answers.items():
                answer += [(text, Reading(text, p).per_character) for text, p in
                           reader.read_batch(VIEWS[view](images) if view in VIEWS else images)]
        labels += [source.label(i) for i in range(len(source))]
    return labels, answers


def row(labels, answers, views, bound):
    "Share of words read right, and the readings per picture"
    right = looks = 0
    for i, label in enumerate(labels):
        unsure = answers["plain"][i][1] < bound
        tried = [answers[view][i] for view in ("plain", *(views if unsure else ()))]
        right += waics_text(max(tried, key=lambda a: a[1])[0]) == waics_text(label)
        looks += len(tried)
    return dict(views=" + ".join(views), bound=bound, waics=round(100 * right / len(labels), 2),
                readings=round(looks / len(labels), 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help=f"folder with {', '.join(SETS)}")
    parser.add_argument("--weights", help="left out: the packaged ones")
    parser.add_argument("--out", default="experiments/tta.csv")
    given = parser.parse_args()
    torch.set_num_threads(1)
    labels, answers = read_all(Recognizer.from_pretrained(given.weights), given.data)
    several = [views for n in (1, 2) for views in combinations(VIEWS, n)]
    rows = [row(labels, answers, (), 0.)] + [row(labels, answers, views, b) for views in several for b in BOUNDS]
    for r in sorted(rows, key=lambda r: -r["waics"])[:25]: print(*r.values(), sep="\t")
    print(f"{len(labels)} words")
    write_rows(given.out, rows)


if __name__ == "__main__": main()
