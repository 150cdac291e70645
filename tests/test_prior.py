"A list of words has a say where a reader is unsure: everywhere alike, and only there"
import copy

import numpy as np
import pytest
from typer.testing import CliRunner

from mnsp.cli import app
from mnsp.decoding import unsure_below
from mnsp.graph import export_onnx
from mnsp.hub import load_model, save_model
from mnsp.onnx import OnnxReader
from mnsp.prior import WordPrior
from mnsp.reading import samples
from mnsp.recognizer import Recognizer
from mnsp.surgery import with_charset
from mnsp.synth import SynthWords, street_world


@pytest.fixture(scope='module')
def reader(): return Recognizer.from_pretrained()


@pytest.fixture(scope='module')
def blurred():
    words = SynthWords(street_world(fonts='own'), 60, seed=11, split='valid')
    return [words[i][0].resize((48, 14)) for i in range(60)], [words[i][1] for i in range(60)]


def test_only_unsure_words_change_and_more_are_right(reader, blurred):
    pictures, texts = blurred
    for how in dict(tta=False), dict(tta=True):
        plain, helped = reader.read(pictures, prior=False, **how), reader.read(pictures, **how, attention=True)
        for once, again in zip(reader.read(pictures, tta=False, prior=False), helped):
            if once.per_character > unsure_below+.01: assert again.text == once.text
            assert len(again.text) == len(again.positions) == len(again.looks) == len(again.confidences)
            assert 0 <= again.confidence <= 1
        right = [sum(r.text.lower() == t.lower() for r, t in zip(readings, texts)) for readings in (plain, helped)]
        assert right[1] > right[0]


def test_a_list_of_one_s_own(reader, blurred):
    "Given, the words of the pictures are read more often; a weight of nothing changes nothing"
    pictures, texts = blurred
    def right(**how): return sum(r.text.lower() == t.lower() for r, t in zip(reader.read(pictures, **how), texts))
    assert right(prior=WordPrior(texts, weight=1.)) > right() > right(prior=False)
    with pytest.raises(ValueError, match='not both'): reader.read(pictures, lexicon=texts, prior=WordPrior(texts))
    assert {r.text for r in reader.read(pictures[:20], lexicon=texts)} <= set(texts)  # its own list steps back


def test_without_pytorch_the_same(reader, blurred, tmp_path):
    "By the packaged graph and by an exported file, which carries its list"
    pictures, _ = blurred
    whole = [r.text for r in reader.float().read(pictures)]
    for graph in OnnxReader(), OnnxReader(export_onnx(reader, tmp_path/'reader.onnx')):
        assert graph.prior.words == reader.prior.words
        assert np.mean([r.text == text for r, text in zip(graph.read(pictures), whole)]) >= .95
    few = copy.deepcopy(reader)
    few.prior = None
    assert OnnxReader(export_onnx(few, tmp_path/'few.onnx')).prior is None


def test_it_is_kept_with_the_reader(reader, tmp_path):
    "Saved and loaded; other characters are another language, fewer are not"
    save_model(reader, tmp_path/'kept')
    assert load_model(tmp_path/'kept').prior.words == reader.prior.words
    assert with_charset(reader, 'abcdefgh').prior is reader.prior
    assert with_charset(reader, 'abcdefghäöü').prior is None


def test_the_command(tmp_path):
    run, picture = CliRunner().invoke, str(samples()[0])
    (tmp_path/'mine.txt').write_text('ale\nbeer\n')
    texts = [run(app, ['read', picture, '--prior', how]).stdout for how in ('none', str(tmp_path/'mine.txt'))]
    assert texts[0].split('\t')[1] == texts[1].split('\t')[1]          # a clear picture needs none
    (tmp_path/'none.txt').write_text('\n')
    for wrong, why in ((['none.txt'], 'none.txt holds no word'), (['nowhere.txt'], 'nowhere.txt'),
                       (['mine.txt', '--lexicon', str(tmp_path/'mine.txt')], 'not both')):
        failed = run(app, ['read', picture, '--prior', str(tmp_path/wrong[0]), *wrong[1:]])
        assert failed.exit_code and why in str(failed.exception)
