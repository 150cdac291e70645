"""Cards: pages about weights and data, for the Hub."""
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, HfApi, ModelCard
from PIL import Image
from typer.testing import CliRunner

from mnsp.cli import app
from mnsp.hub import load_model
from mnsp.recognizer import Recognizer
from mnsp.runs import run_finetuning, run_pretraining


@pytest.fixture(scope='module')
def words(tmp_path_factory):
    "Nine labelled pictures, of which one is broken"
    folder = tmp_path_factory.mktemp('data') / 'my words'
    folder.mkdir()
    for k in range(8): Image.new('RGB', (40 + k, 16), (30 * k, 0, 0)).save(folder / f'{k}.png')
    (folder / '8.png').write_bytes(b'no picture')
    (folder / 'labels.tsv').write_text(''.join(f'{k}.png\tword{k}\n' for k in range(9)))
    return folder


@pytest.fixture
def pushed(monkeypatch):
    "What would have been uploaded: file -> text of the card, size of others"
    found = {}
    def upload(self, *, repo_id, folder_path, **how):
        for file in Path(folder_path).iterdir():
            found[file.name] = file.read_text() if file.suffix == '.md' else file.stat().st_size
        return f'https://huggingface.co/{repo_id}/commit/1'
    class Made: repo_id = 'me/words'
    monkeypatch.setattr(HfApi, 'create_repo', lambda self, repo_id, **how: Made())
    monkeypatch.setattr(HfApi, 'upload_folder', upload)
    return found


def test_a_reader_tells_of_its_run(words, tmp_path, pushed):
    run = run_finetuning(words, tmp_path / 'run', steps=3, batch_size=4, workers=0, bar=False, valid=[words], valid_every=2,
                         say=lambda text: None, device='cpu')
    for reader in (run.model, Recognizer.from_pretrained(tmp_path / 'run')):
        pushed.clear()
        assert reader.push_to_hub('me/words', model_card_kwargs=dict(license='mit')).endswith('me/words/commit/1')
        assert sorted(pushed) == ['README.md', 'config.json', 'model.safetensors']
        card = ModelCard(pushed['README.md'])
        assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == ('mnsp', 'image-to-text', 'mit')
        assert card.data.language is None and 'ocr' in card.data.tags
        for said in ('my words (9 pictures)', '3 steps of 4 pictures', 'held-out words', 'exact', 'parameters', 'from_pretrained',
                     reader.charset.chars):
            assert said in card.text, said
        assert str(words.parent) not in card.text                   # where it lies is nobody's business


def test_an_encoder_tells_of_its_run(words, tmp_path, pushed):
    run = run_pretraining(words, tmp_path / 'run', 'mae', 'nano', steps=2, batch_size=4, workers=0, bar=False,
                          say=lambda text: None, device='cpu')
    for encoder in (run.model.encoder, load_model(tmp_path / 'run' / 'encoder')):
        pushed.clear()
        encoder.push_to_hub('me/words', license='mit')
        card = ModelCard(pushed['README.md'])
        assert (card.data.pipeline_tag, card.data.license) == ('image-feature-extraction', 'mit')
        for said in ('| method | mae |', '2 steps of 4 pictures', 'my words (9 pictures)', 'load_model'):
            assert said in card.text, said


def test_nothing_is_made_up(tmp_path):
    Recognizer.from_pretrained().save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / 'README.md')
    assert 'How it was trained' not in card.text and 'A small reader of single English words' in card.text
    load_model(tmp_path, 'Recognizer')


def test_a_card_of_data(words, tmp_path):
    done = CliRunner().invoke(app, ['data', 'check', str(words), '--workers', '0', '--card', str(tmp_path / 'README.md')])
    assert done.exit_code == 1 and 'a card of the data is in' in done.output  # a broken picture
    card = DatasetCard.load(tmp_path / 'README.md')
    assert card.data.size_categories == ['n<1K'] and card.data.task_categories == ['image-to-text']
    for said in ('| pictures | 9 |', '1 (1 unreadable)', '| 8.png | unreadable |', '40 to 47 pixels', '5 to 5 characters',
                 'word012345678'):
        assert said in card.text, said
    done = CliRunner().invoke(app, ['data', 'check', str(words), '--card', str(tmp_path)])
    assert '--card' in str(done.exception) and 'is a folder' in str(done.exception)
