"""Published checkpoints: the same numbers as the released code, and clear words about files that are none.

The outputs of the released code lie outside the project (`MNSP_FIXTURES`, or ../shared/fixtures beside the checkout); what
needs them is skipped where they are missing. The other tests make their own small files.
"""
import argparse
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mnsp.decoder import DecoderConfig
from mnsp.encoder import EncoderConfig
from mnsp.hub import WeightsError, from_published, load_model, published_name, save_model
from mnsp.pretrain import PretrainConfig, Pretrainer, mae
from mnsp.recognizer import Recognizer

fixtures = Path(os.environ.get('MNSP_FIXTURES', Path(__file__).parents[2] / 'shared' / 'fixtures'))
needs_fixtures = pytest.mark.skipif(not (fixtures / 'lmim_pretrain.npz').is_file(),
                                    reason=f'outputs of the released code not found in {fixtures}; set MNSP_FIXTURES')


def close(ours, theirs, eps=1e-4):
    "Largest difference of two arrays below `eps`, shapes equal"
    ours, theirs = ours.detach().float(), torch.as_tensor(np.asarray(theirs)).float()
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < eps


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad(): yield


def load(name, tmp_path):
    "A fixture's model, straight and after a round through our own format, and its arrays as tensors"
    arrays = {k: torch.from_numpy(v) if v.dtype.kind in 'uif' else v for k, v in np.load(fixtures / f'{name}.npz').items()}
    model = from_published(fixtures / f'{name}.pth', encoder_heads=3, decoder_heads=4)
    assert not model.training
    return (model, load_model(save_model(model, tmp_path))), arrays


def in_row_order(latent, ids_restore):
    "The released encoder keeps visible tokens shuffled; ours keeps them in the picture's order"
    visible = latent.shape[1] - 1
    order = ids_restore.argsort(1)[:, :visible].argsort(1)
    return torch.cat([latent[:, :1], latent[:, 1:].gather(1, order[..., None].expand(-1, -1, latent.shape[2]))], 1)


def visible(mask):
    "Places that a mask (1 = hidden, equally many in every row) leaves visible"
    return (mask == 0).nonzero()[:, 1].view(len(mask), -1)


@needs_fixtures
def test_maerec_pretraining(tmp_path):
    models, z = load('maerec_pretrain', tmp_path)
    for m in models:
        assert isinstance(m, Pretrainer) and m.cfg.mask_ratio == .75
        close(m.encoder(z['images_u8']), z['features'])
        close(m.encoder(z['images_u8'], visible(z['mask'])), in_row_order(z['latent_masked'], z['ids_restore']))
        out = m(z['images_u8'], keep=visible(z['mask']))
        close(out['fills'][0]['pred'], z['pred']); close(out['mim'], z['loss']); close(out['loss'], z['loss'])


@needs_fixtures
def test_lmim_pretraining(tmp_path):
    models, z = load('lmim_pretrain', tmp_path)
    for m in models:
        close(m.encoder(z['images_u8'], visible(z['mask'])), in_row_order(z['latent_masked'], z['ids_restore']))
        close(m.encoder(z['guide_u8']), z['latent_guide'])
        out = m(z['images_u8'], guide=z['guide_u8'], keep=visible(z['mask']))
        for what in 'target', 'pred': close(out['fills'][0][what], z[what])
        for ours, theirs in (('mim', 'loss_recon'), ('align', 'loss_align'), ('loss', 'loss')): close(out[ours], z[theirs])


@needs_fixtures
def test_lmim_recognizer(tmp_path):
    models, z = load('lmim_recognizer', tmp_path)
    for r in models:
        assert isinstance(r, Recognizer) and r.cfg.max_len == 25 and r.charset.n_classes == 97 and r.charset.bos == 97
        close(r.encoder(z['images_u8']), z['features'])
        ids, probs = r.generate(z['images_u8'], max_len=25, stop_early=False)
        assert torch.equal(ids, z['greedy_ids'])
        close(probs, z['greedy_probs'])
        assert torch.equal(r.charset.encode_batch(z['words'].tolist()), z['teacher_forced_targets'])
        logits = r(z['images_u8'], z['teacher_forced_targets'])
        for row, n in enumerate(z['teacher_forced_lengths'].tolist()):
            close(logits[row, :n], z['teacher_forced_logits'][row, :n])


@needs_fixtures
def test_maerec_recognizer(tmp_path):
    models, z = load('maerec_recognizer', tmp_path)
    for r in models:
        assert r.charset.chars == str(z['charset']) and r.cfg.max_len == 48
        assert [r.charset.eos, r.charset.pad, r.charset.unknown] == z['special'].tolist() and r.charset.bos == r.charset.eos
        close(r.encoder(z['images_u8']), z['features'])
        ids, probs = r.generate(z['images_u8'], max_len=48, stop_early=False)
        assert torch.equal(ids, z['greedy_ids'])
        close(probs, z['greedy_probs'])


@needs_fixtures
def test_heads_are_never_guessed():
    with pytest.raises(WeightsError, match='encoder_heads='): from_published(fixtures / 'lmim_pretrain.pth')


# ---- without the fixtures ------------------------------------------------------------------------------------------

@pytest.fixture
def checkpoint(as_published):
    "The contents of a small MAE checkpoint in the published layout, with positions of its own"
    cfg = mae('tiny')
    torch.manual_seed(0)
    state = as_published(Pretrainer(replace(cfg, encoder=replace(cfg.encoder, stored_positions=True))), 'mae')
    state['pos_embed'].normal_()
    state['decoder_pos_embed'][:, 1:].normal_()
    return dict(model=state, args=argparse.Namespace(mask_ratio=.7), epoch=19, optimizer={}, scaler={})


def refused(path, content, **heads):
    "The error's text for a file of such content"
    if isinstance(content, bytes): path.write_bytes(content)
    else: torch.save(content, path)
    with pytest.raises(WeightsError) as e: from_published(path, **(heads or dict(encoder_heads=2, decoder_heads=2)))
    assert path.name in str(e.value) and '\n' not in str(e.value)
    return str(e.value)


def test_names_are_the_published_ones():
    assert published_name('encoder.blocks.3.attn.qkv.weight', 'lmim') == 'model_maeenc.blocks.3.attn.qkv.weight'
    assert published_name('teacher.encoder.cls_token', 'lmim') == 'model_maeenc_momentum.cls_token'
    assert published_name('encoder.positions0', 'maerec recognizer') == 'backbone.pos_embed'
    assert published_name('decoder.positions0', 'mae') == 'decoder_pos_embed'
    assert published_name('layers.2.enc_attn.key.weight', 'lmim recognizer') == 'decoder.layer_stack.2.enc_attn.linear_k.weight'
    assert published_name('layers.0.mlp.3.bias', 'lmim recognizer') == 'decoder.layer_stack.0.mlp.w_2.bias'
    assert published_name('char_emb.weight', 'maerec recognizer') == 'decoder.trg_word_emb.weight'


def test_checkpoints_keep_their_positions(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / 'c.pth')
    m = from_published(tmp_path / 'c.pth', 2, 2)
    state = checkpoint['model']
    assert torch.equal(m.encoder.positions0, state['pos_embed'][0, 1:])
    assert torch.equal(m.encoder.cls_token, state['cls_token'] + state['pos_embed'][:, :1])
    assert m.cfg.mask_ratio == .7 and m.cfg.encoder.img_size == (32, 128)


def test_wrong_files(tmp_path, checkpoint):
    path = tmp_path / 'c.pth'
    assert 'the published layouts' in refused(path, dict(model={'conv.weight': torch.zeros(2)}))
    assert 'holds no weights' in refused(path, dict(model=dict(a=1)))
    assert 'truncated' in refused(path, b'')
    assert 'truncated' in refused(path, b'hello')
    torch.save(checkpoint, path)
    whole = path.read_bytes()
    for part in (.1, .5, .9, .999): assert 'truncated' in refused(path, whole[:int(len(whole) * part)])
    with pytest.raises(WeightsError, match='no file'): from_published(tmp_path / 'nowhere.pth')


def test_wrong_tensors(tmp_path, checkpoint):
    path, state = tmp_path / 'c.pth', checkpoint['model']
    for name in ('blocks.2.norm1.bias', 'patch_embed.proj.weight', 'pos_embed', 'decoder_embed.weight', 'decoder_pos_embed',
                 'decoder_norm.bias', 'cls_token'):
        kept = state.pop(name)
        told = refused(path, checkpoint)
        assert name in told and ('lacks' in told or 'missing' in told)
        state[name] = kept
    assert 'unknown extra.bias' in refused(path, dict(checkpoint, model=state | {'extra.bias': torch.zeros(1)}))
    state['norm.bias'] = torch.zeros(3)
    assert 'norm.bias is [3], expected [128]' in refused(path, checkpoint)


def test_heads_that_do_not_divide_or_are_not_known(tmp_path, checkpoint):
    assert 'encoder_heads=' in refused(tmp_path / 'c.pth', checkpoint, decoder_heads=2)
    assert 'encoder_heads=5' in refused(tmp_path / 'c.pth', checkpoint, encoder_heads=5, decoder_heads=2)
    assert 'decoder_heads=' in refused(tmp_path / 'c.pth', checkpoint, encoder_heads=2)


class Evil:
    "Writes a file when unpickled"
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('save', [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_code_is_not_run(tmp_path, checkpoint, save):
    save(dict(checkpoint, meta=Evil(tmp_path / 'was_here')), tmp_path / 'c.pth')
    with pytest.raises(WeightsError): from_published(tmp_path / 'c.pth', 2, 2)
    assert not (tmp_path / 'was_here').exists()
    torch.save(dict(checkpoint, meta=Evil(tmp_path / 'was_here')), tmp_path / 'c.pth')
    with pytest.raises(WeightsError, match='could run code'): from_published(tmp_path / 'c.pth', 2, 2)


def test_a_published_width_needs_only_its_path(tmp_path, as_published):
    cfg = PretrainConfig(EncoderConfig(depth=1, stored_positions=True), DecoderConfig(512, 1, 16, guided=False),
                         teacher='pixels', guide=None, mask_ratio=.75)
    torch.save(dict(model=as_published(Pretrainer(cfg), 'mae')), tmp_path / 'vit.pth')
    assert load_model(tmp_path / 'vit.pth', 'Pretrainer').cfg == cfg
    with pytest.raises(WeightsError, match='Recognizer is needed'): load_model(tmp_path / 'vit.pth', 'Recognizer')
