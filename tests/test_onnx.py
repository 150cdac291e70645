"""Reading with an exported file, where there is no PyTorch."""
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip('onnxscript'); pytest.importorskip('onnxruntime')

BLOCKED = """
import sys
for name in ('torch', 'torchvision', 'timm', 'fastai', 'huggingface_hub', 'safetensors', 'pandas', 'matplotlib', 'datasets',
             'wordfreq', 'scipy', 'pyarrow', 'fasttransform'): sys.modules[name] = None  # importing it is an error
"""
FROM_PYTHON = BLOCKED + """
from mnsp.onnx import OnnxReader
reader = OnnxReader(sys.argv[1])
for reading in reader.read(sys.argv[2:]): print(reading.text, *reading.positions[0], sep='\\t')
"""
COMMAND = BLOCKED + "from mnsp.cli import main; sys.argv[0] = 'mnsp'; main()"


def blocked(program, *args):
    "Exit code, lines and errors of a program without PyTorch"
    done = subprocess.run([sys.executable, '-c', program, *map(str, args)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    "The packaged reader, exported"
    from mnsp.graph import export_onnx
    from mnsp.recognizer import Recognizer
    return export_onnx(Recognizer.from_pretrained(), tmp_path_factory.mktemp('onnx') / 'reader.onnx')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Two words rendered by Pillow, one of which runs upwards"
    folder, font = tmp_path_factory.mktemp('words'), ImageFont.truetype(f'{get_data_path()}/fonts/ttf/DejaVuSans.ttf', 40)
    for word in 'street', 'garden':
        im = Image.new('RGB', (round(font.getlength(word)) + 24, 56), 'white')
        ImageDraw.Draw(im).text((12, 4), word, 'black', font)
        if word == 'garden': im = im.transpose(Image.Transpose.ROTATE_90)
        im.save(folder / f'{word}.png')
    return [folder / 'street.png', folder / 'garden.png']


def test_words_are_read_without_torch(file, pictures):
    "The same words, at the same places, as with PyTorch"
    from mnsp.recognizer import Recognizer
    code, lines, err = blocked(FROM_PYTHON, file, *pictures)
    assert code == 0, err
    found = [line.split('\t') for line in lines]
    assert [text for text, *_ in found] == ['street', 'garden']
    for (_, *place), reading in zip(found, Recognizer.from_pretrained().read(pictures)):
        assert np.abs(np.array(place, float) - reading.positions[0]).max() < 2


def test_the_command_reads_without_torch(file, pictures):
    code, lines, err = blocked(COMMAND, 'read', *pictures, '--weights', file)
    assert code == 0 and [line.split('\t')[1] for line in lines] == ['street', 'garden'], err
    for option, value in (('--beams', 4), ('--device', 'cpu')):
        code, _, err = blocked(COMMAND, 'read', *pictures, '--weights', file, option, value)
        assert code == 1 and f'not made for {option}' in err and 'Traceback' not in err, err
    code, _, err = blocked(COMMAND, 'read', *pictures, '--weights', file.with_name('nowhere.onnx'))
    assert code == 1 and 'nowhere.onnx: no such file' in err and 'Traceback' not in err


def test_a_photograph_without_torch(pictures, tmp_path):
    "Words in their boxes are read and drawn in, with the packaged weights"
    photo = Image.new('RGB', (400, 300), (90, 110, 130))
    word = Image.open(pictures[0])
    photo.paste(word, (50, 80)); photo.save(tmp_path / 'photo.png')
    left, top, right, low = 50, 80, 50 + word.width, 80 + word.height
    (tmp_path / 'gt_photo.txt').write_text(f'{left},{top},{right},{top},{right},{low},{left},{low},street\n')
    code, lines, err = blocked(COMMAND, 'read', tmp_path / 'photo.png', '--boxes', tmp_path / 'gt_photo.txt',
                               '--draw', tmp_path / 'read.png')
    assert code == 0 and [line.split('\t')[1] for line in lines] == ['street'], err
    assert (np.asarray(Image.open(tmp_path / 'read.png')) == (230, 90, 0)).all(-1).sum() > 300


def test_a_lexicon_without_torch(file, pictures, tmp_path):
    "The same words with the same confidence as with PyTorch, by the packaged graph and by an exported file"
    from mnsp.recognizer import Recognizer
    (tmp_path / 'words.txt').write_text('\n'.join(['streets', 'Street', 'garden', 'gardens', *(f'{n}' for n in range(300))]))
    readings = Recognizer.from_pretrained().read(pictures, lexicon=(tmp_path / 'words.txt').read_text().split())
    assert [r.text for r in readings] == ['Street', 'garden']
    for weights in [], ['--weights', file]:
        code, lines, err = blocked(COMMAND, 'read', *pictures, *weights, '--lexicon', tmp_path / 'words.txt')
        assert code == 0, err
        for line, reading in zip(lines, readings, strict=True):
            text, confidence = line.split('\t')[1:]
            assert text == reading.text and abs(float(confidence) - reading.confidence) < .03  # PyTorch's may be bfloat16
    (tmp_path / 'empty.txt').write_text('')
    code, _, err = blocked(COMMAND, 'read', *pictures, '--lexicon', tmp_path / 'empty.txt')
    assert code == 1 and 'empty.txt holds no word' in err and 'Traceback' not in err


def test_whole_numbers_read_nearly_the_same(file, tmp_path):
    "int8: two thirds of the size, and of 100 rendered words nearly all as with the file in floating point"
    from mnsp.graph import export_onnx
    from mnsp.onnx import OnnxReader
    from mnsp.recognizer import Recognizer
    from mnsp.synth import SynthWords, street_world
    light = export_onnx(Recognizer.from_pretrained(), tmp_path / 'light.onnx', int8=True)
    assert light.stat().st_size < .67 * file.stat().st_size
    words = SynthWords(street_world(fonts='own'), 100, seed=3)
    texts = [[r.text for r in OnnxReader(f).read([words[i][0] for i in range(100)])] for f in (file, light)]
    assert sum(a == b for a, b in zip(*texts)) >= 95


def test_an_exported_file_is_no_weights(file):
    from mnsp.hub import WeightsError, load_model
    with pytest.raises(WeightsError, match='give the weights it was made from'): load_model(file)


def test_both_readers_are_shown_the_same():
    "To the grey level, whatever the shape of the picture"
    from mnsp.data import to_tensor
    from mnsp.images import to_array
    noise = np.random.default_rng(0)
    for height, width in ((32, 128), (1, 1), (7, 300), (200, 20), (64, 256)):
        im = Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))
        assert (to_tensor(im).numpy() == to_array(im)).all() and to_array(im).shape == (3, 32, 128)
