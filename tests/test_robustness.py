"Robustness: what does not read well in the notebook"
import json
import math

import pytest
import torch
from PIL import Image

from mnsp.labels import DataError
from mnsp.lists import FolderSource
from mnsp.robustness import Robustness, corrupt, families, load_words, robustness, show_robustness


def pictures(n=6, size=(32, 128)):
    return torch.randint(0, 256, (n, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Counts:
    "Reads whether a picture is one of those it knows, and counts what it was shown"
    def __init__(self, images): self.images, self.seen = images, 0
    def __call__(self, x):
        self.seen += len(x)
        return [(next((str(k) for k, i in enumerate(self.images) if torch.equal(i, picture)), ''), 1.) for picture in x]


@pytest.mark.parametrize('name', families)
def test_family(name):
    x = pictures()
    assert torch.equal(corrupt(x, name, 0), x) and corrupt(x, name, 0) is not x
    for severity in (.01, .5, 1):
        y = corrupt(x, name, severity, seed=3)
        assert y.shape == x.shape and y.dtype == torch.uint8 and torch.equal(y, corrupt(x, name, severity, seed=3))
    before = x.clone()
    corrupt(x, name, 1.)
    assert torch.equal(x, before)                               # what goes in is left alone


@pytest.mark.parametrize('name', families)
@pytest.mark.parametrize('size', [(32, 32), (48, 160), (8, 64)])
def test_other_sizes(name, size): assert corrupt(pictures(2, size), name, .9).shape == (2, 3, *size)


def test_constant_pictures_stay_constant():
    "Nothing is drawn in from outside the picture: no black corners"
    grey = torch.full((4, 3, 32, 128), 77, dtype=torch.uint8)
    for name in set(families) - {'noise'}:
        seen = corrupt(grey, name, 1.).int()
        assert seen.max() - seen.min() <= 1, name
        assert name == 'jpeg' or (seen - 77).abs().max() <= 1, name     # JPEG may round all of it


def test_global_randomness_is_left_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for name in families: corrupt(pictures(2), name, .5)
    assert torch.equal(state, torch.get_rng_state())


def test_exact_reader_counted_by_hand():
    "Only untouched pictures are known: everything else is wrong, every picture is shown once per severity"
    x = pictures(5)
    reader = Counts(x)
    result = robustness(reader, (x, list('01234')), severities=(.5, 1), names=('noise', 'blur'), batch_size=2, bar=False)
    assert result == Robustness(100., [.5, 1.], {'noise': [0, 0], 'blur': [0, 0]}, 5, 0)
    assert reader.seen == 5 * (1 + 2 * 2)
    assert result.groups == {'look': 0.}


def test_numbers_by_hand():
    result = Robustness(80., [.5, 1.], {'scale': [60., 20.], 'squeeze': [80., 80.], 'rotation': [40., 0.]}, 10, 0)
    assert result.numbers == {'scale': 50, 'squeeze': 100, 'rotation': 25}
    assert result.groups == {'scale': 75, 'layout': 25}
    assert Robustness.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert '100 * mean accuracy over severities 0.5, 1 / accuracy at 0' in result.table()
    assert math.isnan(Robustness(0., [1.], {'scale': [0.]}, 1, 0).numbers['scale'])


def test_results_measured_differently_are_not_compared():
    a = Robustness(80., [.5], {'scale': [60.]}, 10, 0)
    for other in (Robustness(80., [1.], {'scale': [60.]}, 10, 0), Robustness(80., [.5], {'blur': [60.]}, 10, 0),
                  Robustness(80., [.5], {'scale': [60.]}, 11, 0), Robustness(80., [.5], {'scale': [60.]}, 10, 1)):
        with pytest.raises(ValueError, match='measure them alike'): show_robustness({'a': a, 'b': other})


def test_broken_and_unlabelled_pictures_are_refused(tmp_path):
    Image.new('RGB', (40, 12)).save(tmp_path / 'a.png')
    with pytest.raises(DataError, match='no label for a.png'): load_words(FolderSource(tmp_path))
    (tmp_path / 'b.png').write_bytes(b'')
    (tmp_path / 'labels.tsv').write_text('a.png\ta\nb.png\tb\n')
    with pytest.raises(DataError, match='b.png'): load_words(FolderSource(tmp_path))
    assert len(load_words(FolderSource(tmp_path), n=1)[0]) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
@pytest.mark.parametrize('name', families)
def test_gpu_gives_nearly_the_same_pictures(name):
    x = pictures()
    change = (corrupt(x.cuda(), name, .7).cpu().int() - corrupt(x, name, .7).int()).abs()
    assert (change > 2).float().mean() < .01
