"The README's results are what the committed rows say: every figure is computed anew from experiments/*.csv"
import json
import re

import pytest

from mnsp.lab.study import paired, read_rows, spread_over_seeds


@pytest.fixture(scope='module')
def results(root):
    "command -> (what was measured, what came out), from the README's table"
    text = (root/'README.md').read_text(encoding='utf-8')
    lines = text.split('\n## Results\n')[1].split('\n## ')[0].splitlines()
    cells = [[c.strip() for c in line.strip('|').split(' | ')] for line in lines if line.startswith('| ')]
    return {command.strip('` '): (what, result) for what, result, command in cells[1:]}


@pytest.fixture
def rows(root): return lambda name: read_rows(root/'experiments'/f'{name}.csv')


def says(text, *expected):
    "Each of these is there, in this order, and beside them no other figure"
    parts = re.split('|'.join(map(re.escape, expected)), text)
    assert re.findall('|'.join(map(re.escape, expected)), text) == list(expected)
    assert not re.search(r'\d', ''.join(parts)), ''.join(parts)


def means(rows, arm, *figures): return [f'{spread_over_seeds(rows, figure)[arm][0]:.1f}' for figure in figures]


def one(rows, **wanted):
    found = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1, wanted
    return found[0]


def test_photographs(results, rows):
    command = ('python experiments/ablation.py --budget crops --data IIIT5K_train SVT_train IC15_train MLTlike_train '
               '--out ablation_crops.csv')
    (what, result), rows = results[command], rows('ablation_crops')
    arms = dict(MNSP='MNSP', LMIM='LMIM', MAE='MAE', none='no pre-training')
    says(re.sub(r'\(\[.*\)', '', result), *(f'{name} {" and ".join(means(rows, arm, "tuned_ned_crops", "tuned_ned_10_crops"))}'
                                            for name, arm in arms.items()))
    says(what, '15', '3,200')
    assert {r['steps'] for r in rows if r['arm'] in ('MAE', 'LMIM', 'MNSP')} == {3200}
    assert all(spread_over_seeds(rows, 'tuned_ned_crops')[arm][2] == 3 for arm in arms.values()) and 'three seeds' in what


def test_rendered_words(results, rows):
    what, result = results['python experiments/ablation.py --budget thorough --out ablation_thorough.csv']
    thorough, reading = rows('ablation_thorough'), ('tuned_ned', 'tuned_ned_10', 'tuned_ned_1')
    says(result, *('{} {}, {} and {}'.format(name, *means(thorough, arm, *reading))
                   for name, arm in dict(MAE='MAE', none='no pre-training').items()))
    labels, = {r['labelled'] for r in thorough}
    says(what, *(f'{round(share * labels):,}' for share in (1, .1, .01)))
    assert spread_over_seeds(thorough, 'tuned_ned')['MAE'][2] == 2 and 'two seeds' in what

    what, result = results['python experiments/ablation.py']
    short = [r for r in rows('ablation') if r['teacher_steps'] == 0]
    spreads = spread_over_seeds(short, 'tuned_ned')
    arms = dict(MNSP='MNSP', MAE='MAE', LMIM='LMIM', none='no pre-training')
    arms['next scale alone with the guide'] = 'NSP only'
    alone = spreads['NSP only, unguided']
    says(result, *('{} {:.1f} ± {:.1f}'.format(name, *spreads[arm][:2]) for name, arm in arms.items()),
         'without it {:.1f} (one seed)'.format(alone[0]) if alone[2] == 1 else 'without it {:.1f} ± {:.1f}'.format(*alone))
    says(what, f'{max(r["steps"] * r["batch_size"] for r in short):,}')
    assert all(spreads[arm][2] == 3 for arm in arms.values()) and 'three seeds' in what


def test_cost_and_speed(results, rows):
    cost = one(rows('mnsp_cost'), method='MNSP')
    says(results['python experiments/mnsp_cost.py --batch-size 16 --rounds 3'][1],
         f'{cost["gflop_to_lmim"]:.2f}', f'{cost["time_to_lmim"]:.2f}')

    command = 'python experiments/throughput.py --methods LMIM MNSP --batch-size 16 --rounds 3 --steps 1'
    measured = [r for r in rows('throughput') if r['command'] == command and r['method'] == 'LMIM' and r['threads'] == 2]
    expected = []
    for device in dict.fromkeys(r['device_name'] for r in measured):
        first, fast = (one(measured, device_name=device, variant=v) for v in ('first loop', 'fast'))
        expected += [f'{first["images_per_s"]:.1f} and {fast["images_per_s"]:.1f}', f'{fast["ratio"]:.1f}']
    says(results[command][1], *expected)

    speed = rows('reading_speed')
    fast, peer = one(speed, reader='fast, bfloat16'), one(speed, reader='PARSeq-S (earlier)')
    says(results['python experiments/reading_speed.py'][1], f'{fast["batch_1"]:.0f}', f'{fast["batch_32"]:.0f} in batches of 32',
         f'{peer["batch_1"]} and {peer["batch_32"]}')
    data = {r['what']: r['pictures_per_second'] for r in rows('data_speed')}
    says(results['python experiments/data_speed.py'][1],
         f'{data["cache on disk → batches"]:,} and {data["LMDB of JPEGs → batches"]:,}')


def test_what_the_method_section_says_of_the_study(root, rows):
    text = (root/'README.md').read_text(encoding='utf-8')
    assert 'For the same time a MAE reads as well as LMIM and MNSP or better' in text
    crops, twice = rows('ablation_crops'), rows('ablation_crops_twice')
    seconds = {(r['arm'], r['seed']): r['pretrain_seconds'] for r in crops}
    assert all(seconds['MAE', seed] < .55 * seconds['LMIM', seed] for seed in (0, 1, 2))
    both = crops + [dict(r, arm='MAE, twice as long') for r in twice]
    trial, middle, long = (rows(f'mnsp_trial{name}') for name in ('', '_middle', '_long'))
    room = trial + [dict(r, arm=f"MAE, {r['steps']} steps") for r in middle + long]
    for figure in 'tuned_ned_crops', 'tuned_ned_10_crops':
        gap, error, seeds = paired(both, figure, 'LMIM')['MAE, twice as long']
        assert gap > -.5 and seeds == 2
        for other in 'LMIM', 'MIM + NSP, unguided':
            gap, error, seeds = paired(room, figure, other)['MAE, 1300 steps']
            assert gap > 4 > 5 * error and seeds == 3
        gap, error, seeds = paired(room, figure, 'MNSP')['MAE, 2600 steps']
        assert gap > 8 and seeds == 2


def test_demo(results, root):
    runs = json.loads((root/'experiments'/'demo_runs.json').read_text(encoding='utf-8'))
    read = [f"{run['evaluation']['sets']['rendered']['waics']:.1f}" for run in runs.values()]
    says(results['make demo'][1].replace('1000 rendered', ''), *read)
