"""Tables and pictures of a comparison's rows, for the notebooks that tell the study."""
from mnsp.lab.study import paired, show_comparison, spread_over_seeds

reading = dict(frozen_ned='frozen 100 %', frozen_ned_10='10 %', frozen_ned_1='1 %',
               tuned_ned='tuned 100 %', tuned_ned_10='10 %', tuned_ned_1='1 %')
some = {k: v for k, v in reading.items() if not k.endswith('_1')}
on_crops = dict(frozen_ned_crops='frozen 100 %', tuned_ned_crops='tuned 100 %', tuned_ned_10_crops='10 %',
                tuned_waics_crops='words read', tuned_waics_10_crops='10 %')


def with_error(mean, error, digits=1, sign='-'): # 13 characters; one seed has no error
    return f'{mean:{sign}6.{digits}f} ± ' + (f'{error:4.{digits}f}' if error == error else '  – ')


def head(what, figures, wide=13): return f'{what:29}' + ''.join(f'{t:>{wide}}' for t in figures.values()) + '  seeds'


def table(figures, rows, among=None, digits=1):
    "Arms by figures: mean ± standard deviation, and how many seeds"
    print(head('arm', figures, 13 + (digits > 2)))
    spreads = [spread_over_seeds(rows, figure) for figure in figures]
    for arm in [a for a in among or dict.fromkeys(r['arm'] for r in rows) if a in spreads[0]]:
        cells = [s.get(arm, (float('nan'),) * 2)[:2] for s in spreads]
        print(f'{arm:29}' + ''.join(with_error(*cell, digits) for cell in cells) + f'{spreads[0][arm][2]:>7}')


def differences(baseline, figures, rows, among=None):
    "Mean difference to a baseline within seeds, its standard error, and how many seeds"
    print(head(f'minus {baseline}', figures))
    gaps = [paired(rows, figure, baseline) for figure in figures]
    for arm in [a for a in among or gaps[0] if a in gaps[0]]:
        print(f'{arm:29}' + ''.join(with_error(*g[arm][:2], sign='+') for g in gaps) + f'{gaps[0][arm][2]:>7}')


def compared(among, figures, rows, baseline='MAE'):
    "Means and seeds of some arms, in their order"
    own = sorted((r for r in rows if r['arm'] in among), key=lambda r: among.index(r['arm']))
    return show_comparison(own, figures, baseline)


def gap(rows, arm, baseline, figures=('tuned_ned_crops', 'tuned_ned_10_crops')):
    "An arm less another within seeds as a cell: all labels; a tenth. '' where one of them has no row"
    if baseline not in {r['arm'] for r in rows}: return ''
    gaps = [paired(rows, figure, baseline).get(arm) for figure in figures]
    if None in gaps: return ''
    few = {1: ' (one seed)', 2: ' (two seeds)'}.get(gaps[0][2], '')
    cells = [f'{mean:+.1f}' + (f' ± {error:.1f}' if error == error else '') for mean, error, _ in gaps]
    return '; '.join(cells).replace('-', '−') + few


def called(rows, name): return [dict(r, arm=name) for r in rows]
