"The README's results are what the committed rows say: every figure is computed anew from experiments/*.csv"
import json
import re

import pytest

from mnsp.lab.study import paired, read_rows, spread_over_seeds


@pytest.fixture(scope='module')
def section(root): return (root/'README.md').read_text(encoding='utf-8').split('\n## Results\n')[1].split('\n## ')[0]


def cells(lines): return [[c.strip() for c in line.strip().strip('|').split('|')] for line in lines if line.startswith('|')]


@pytest.fixture(scope='module')
def results(section):
    "command -> (what was measured, what came out), from the README's first table"
    table = cells(section.split('**What pre-training')[0].splitlines())
    return {command.strip('` '): (what, result) for what, result, command in table[2:]}


@pytest.fixture(scope='module')
def pretraining(section):
    "arm of the rows -> what stands in its line of the README's second table; and command -> how that was measured"
    names = {'nothing': 'no pre-training', 'NSP with the guide': 'NSP only', 'NSP without the guide': 'NSP only, unguided'}
    text = section.split('**What pre-training')[1]
    how = re.findall(r'^- (.*) `(.*)`$', text, re.MULTILINE)
    return ({names.get(arm, arm): figures for arm, *figures in cells(text.splitlines())[2:]},
            {command: what for what, command in how})


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


def test_beside_other_readers(root, rows):
    text = (root/'README.md').read_text(encoding='utf-8').split('In the average it reads')[1].split('\n\n')[0]
    average = {r['reader']: r for r in rows('peers') if r['set'] == 'average'}
    speed = {r['reader']: r['median'] for r in rows('peers_speed') if r['batch'] == 32}
    ours, theirs = 'mnsp', 'PP-OCRv6 small'
    assert abs(average[ours]['waics']-average[theirs]['waics']) < .1
    text = text.replace(theirs, '')
    says(text.replace('one core', ''), f"{average[theirs]['exact']-average[ours]['exact']:.1f}", f'{speed[ours]:.0f}', '32',
         f'{speed[theirs]:.0f}', '22')
    card = (root/'mnsp/weights/english/README.md').read_text(encoding='utf-8')
    assert '22,238 crops of photographs and posters with **machine labels**, readings of a public recogniser (PP-OCRv6' in card


def test_photographs(pretraining, rows):
    table, how = pretraining
    what = how['python experiments/ablation.py --budget crops --data IIIT5K_train SVT_train IC15_train MLTlike_train '
               '--out ablation_crops.csv']
    rows = rows('ablation_crops')
    measured = {arm for arm, figures in table.items() if figures[0]}
    assert measured == {'MNSP', 'LMIM', 'MAE', 'no pre-training', 'NSP only'}
    assert all(table[arm][:2] == means(rows, arm, 'tuned_ned_crops', 'tuned_ned_10_crops') for arm in measured)
    says(what, '3,200', '15 thousand', '8 thousand')
    assert {r['steps'] for r in rows if r['arm'] in ('MAE', 'LMIM', 'MNSP')} == {3200}
    assert all(spread_over_seeds(rows, 'tuned_ned_crops')[arm][2] == 3 for arm in measured) and 'three seeds' in what


def test_rendered_words(pretraining, rows):
    table, how = pretraining
    what = how['python experiments/ablation.py --budget thorough --out ablation_thorough.csv']
    thorough, reading = rows('ablation_thorough'), ('tuned_ned', 'tuned_ned_10', 'tuned_ned_1')
    measured = {arm for arm, figures in table.items() if figures[2]}
    assert measured == {'MAE', 'no pre-training'}
    assert all(table[arm][2:5] == means(thorough, arm, *reading) for arm in measured)
    labels, = {r['labelled'] for r in thorough}
    says(what, *(f'{round(share * labels):,}' for share in (1, .1, .01)))
    assert spread_over_seeds(thorough, 'tuned_ned')['MAE'][2] == 2 and 'two seeds' in what

    what = how['python experiments/ablation.py']
    short = [r for r in rows('ablation') if r['teacher_steps'] == 0]
    spreads = spread_over_seeds(short, 'tuned_ned')
    for arm, figures in table.items():
        mean, deviation, seeds = spreads[arm]
        assert figures[5] == (f'{mean:.1f}' if seeds == 1 else f'{mean:.1f} ± {deviation:.1f}')
        assert seeds == (1 if arm == 'NSP only, unguided' else 3)
    says(what, f'{max(r["steps"] * r["batch_size"] for r in short):,}')
    assert 'three seeds; NSP without the guide has one' in what


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
    assert 'For the same time MAE reads as well as LMIM and MNSP, or better' in text
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


def test_what_the_method_section_says_of_the_larger_network(root, rows):
    text, full, early = (root/'README.md').read_text(encoding='utf-8'), rows('mnsp_trial_full'), rows('mnsp_trial')
    assert {r['steps'] for r in full} == {1800}
    def ahead(among, arm, baseline):
        (gap, error, seeds), (few, few_error, _) = (paired(among, figure, baseline)[arm]
                                                    for figure in ('tuned_ned_crops', 'tuned_ned_10_crops'))
        return gap, few, seeds, f'{gap:.1f} ± {error:.1f}', f'{few:.1f} ± {few_error:.1f}'
    (*_, seeds, first, first_few), (*_, later, later_few) = (ahead(among, 'MNSP', 'MAE') for among in (early, full))
    assert f'after 600 by {first} points with all labels and {first_few} with a tenth, after 1,800 by {later} with all ' \
           f'labels and {later_few} with a tenth (three seeds)' in text and seeds == 3
    gap, few, seeds, *_ = ahead(full + [dict(r, arm='MAE, its time') for r in rows('mnsp_trial_longer')], 'MAE, its time', 'MNSP')
    assert f'A MAE that trains for the time of these 1,800 steps reads {gap:.0f} points more, and {few:.0f} with a tenth (two ' \
           'seeds)' in text and seeds == 2
    seconds = {r['method']: r['time_to_lmim'] for r in rows('mnsp_trial_cost')}
    ratio, large = seconds['MNSP']/seconds['MAE'], {r['method']: r['time_to_lmim'] for r in rows('mnsp_cost')}
    assert all(.97 < r['steps']/(ratio*1800) < 1.03 for r in rows('mnsp_trial_longer'))
    assert f"a step of MNSP takes {ratio:.1f} times as long as one of MAE. At the papers' size it is " \
           f"{large['MNSP']/large['MAE']:.1f} times" in text
    naive, error, seeds = paired(full, 'tuned_ned_crops', 'MAE')['NSP only, unguided']
    assert f'reads {-naive:.1f} ± {error:.1f} points less than MAE' in text and seeds == 3
    def mean(rows, arm): return spread_over_seeds(rows, 'tuned_ned_10_crops')[arm][0]
    assert mean(full, 'NSP only, unguided') < mean(early, 'no pre-training') < mean(full, 'MIM + NSP, unguided')
    for block in 3, 4:
        even = spread_over_seeds(full, f'patch_entropy_relative_{block}')
        assert even['NSP only, unguided'][0] > .95 > max(even[arm][0] for arm in ('MAE', 'MIM + NSP, unguided', 'MNSP'))


def test_demo(results, root):
    runs = json.loads((root/'experiments'/'demo_runs.json').read_text(encoding='utf-8'))
    read = [f"{run['evaluation']['sets']['rendered']['waics']:.1f}" for run in runs.values()]
    says(results['make demo'][1].replace('1000 rendered', ''), *read)
