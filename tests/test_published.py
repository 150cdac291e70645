"""Published checkpoints: the same numbers as the released code, and clear words about files that are none.

The outputs of the released code lie outside the project (`MNSP_FIXTURES`, or ../shared/fixtures beside the checkout); what
needs them is skipped where they are missing. The other tests make their own small files.
"""
import argparse
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mnsp.decoder import DecoderConfig
from mnsp.encoder import Encoder, EncoderConfig
from mnsp.hub import WeightsError, load_model, save_model
from mnsp.pretrain import PretrainConfig, Pretrainer, mae, mnsp
from mnsp.published import export_encoder, from_published, layouts, published_name
from mnsp.recognizer import Recognizer, recognizer_fast, recognizer_tiny

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


# ---- the way out ---------------------------------------------------------------------------------------------------

def drawn(model):
    "Every weight that begins at nothing drawn, so that none can be forgotten"
    for p in model.parameters():
        if not p.any(): torch.nn.init.normal_(p, std=.1)
    return model.eval()


@pytest.fixture(scope='module')
def encoders():
    "Models with an encoder: of three scales, a reader's, of wide patches, of other numbers for the pictures"
    torch.manual_seed(0)
    fast = replace(recognizer_fast().encoder, depth=2)
    odd = EncoderConfig(patch_size=(8, 8), dim=96, depth=2, heads=4, mlp_ratio=2., mean=(120., 110., 100.),
                        std=(60., 55., 50.), stored_positions=True)
    return dict(pretrained=drawn(Pretrainer(mnsp('tiny'))), reader=drawn(Recognizer(recognizer_tiny())),
                wide=drawn(Encoder(fast)), odd=drawn(Encoder(odd)))


def pictures(n=2): return torch.randint(0, 256, (n, 3, 32, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def features(model): return getattr(model, 'encoder', model)(pictures())


def said(folder):
    "config.json, and the pictures as it says they must be"
    config = json.loads((folder / 'config.json').read_text())
    mean, std = (torch.tensor(config['pretrained_cfg'][k]).view(3, 1, 1) for k in ('mean', 'std'))
    return config, (pictures() / 255 - mean) / std


@pytest.mark.parametrize('to', layouts)
@pytest.mark.parametrize('name', ['pretrained', 'reader', 'wide', 'odd'])
def test_an_exported_encoder_comes_back_and_is_timms(tmp_path, encoders, to, name):
    from timm.models import VisionTransformer
    ours = features(encoders[name])
    folder = export_encoder(encoders[name], tmp_path / 'new' / to, to, finest=True)
    file = folder / ('model.safetensors' if to == 'timm' else 'model.pth')
    assert sorted(p.name for p in folder.iterdir()) == sorted(['config.json', file.name])
    for path in folder, file: close(features(load_model(path, 'Encoder')), ours, 1e-5)
    close(features(load_model(save_model(load_model(folder), tmp_path / 'own'))), ours, 1e-5)
    config, x = said(folder)
    state = load_file(file) if to == 'timm' else torch.load(file, weights_only=True)['model']
    if to == 'lmim': state = {name.removeprefix('model_maeenc.'): t for name, t in state.items()}
    theirs = VisionTransformer(**config['model_args']).eval()
    theirs.load_state_dict(state, strict=True)
    close(theirs.forward_features(x), ours, 1e-5)


def test_timm_opens_the_folder(tmp_path, encoders):
    import timm
    for name, model in encoders.items():
        folder = export_encoder(model, tmp_path / name, finest=True)
        theirs = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        close(theirs.forward_features(said(folder)[1]), features(model), 1e-5)
        close(theirs(said(folder)[1]), features(model)[:, 0], 1e-5)                     # pooled: [cls]
        wanted = timm.data.resolve_model_data_config(theirs)
        assert (wanted['input_size'], wanted['crop_mode'], wanted['crop_pct']) == ((3, 32, 128), 'squash', 1.)


@pytest.mark.parametrize('size', [(32, 128), (48, 160)])
def test_a_model_of_timms_is_read(tmp_path, size):
    import timm
    torch.manual_seed(0)
    theirs = drawn(timm.create_model('vit_tiny_patch16_224', img_size=size, patch_size=8, depth=2, num_classes=7))
    timm.models.save_for_hf(theirs, tmp_path, safe_serialization='both', data_config=dict(mean=(.4, .5, .6), std=(.2, .3, .1)))
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    for path in tmp_path, tmp_path / 'model.safetensors', tmp_path / 'pytorch_model.bin':
        ours = load_model(path, 'Encoder')
        assert ours.cfg.img_size == size and ours.cfg.heads == 3
        mean, std = (torch.tensor(t).view(3, 1, 1) for t in ((.4, .5, .6), (.2, .3, .1)))
        close(ours(x), theirs.forward_features((x / 255 - mean) / std), 1e-5)


def test_what_a_layout_cannot_say(tmp_path, encoders):
    stem = Encoder(EncoderConfig(patch_size=(8, 8), dim=64, depth=1, heads=2, stem=(8,)))
    for to in layouts:
        with pytest.raises(WeightsError, match='convolutions.*ONNX'): export_encoder(stem, tmp_path / 'x', to)
        with pytest.raises(WeightsError, match='3 scales.*finest=True'):
            export_encoder(encoders['pretrained'], tmp_path / 'x', to)
    with pytest.raises(ValueError, match='must be one of timm, maerec, lmim, facebook-mae'):
        export_encoder(encoders['odd'], tmp_path / 'x', 'keras')
    assert not (tmp_path / 'x').exists()
    before = {p: p.read_bytes() for p in save_model(encoders['odd'], tmp_path / 'own').iterdir()}
    with pytest.raises(WeightsError, match='a folder of its own'): export_encoder(encoders['odd'], tmp_path / 'own')
    assert before == {p: p.read_bytes() for p in (tmp_path / 'own').iterdir()}
    export_encoder(encoders['odd'], tmp_path / 'again'); export_encoder(encoders['wide'], tmp_path / 'again')
    with pytest.raises(WeightsError, match='a folder of its own'): export_encoder(encoders['odd'], tmp_path / 'again', 'maerec')
    close(features(load_model(tmp_path / 'again')), features(encoders['wide']), 1e-5)


odd_values = None, 0, -1, 2**70, 1.5, float('nan'), '3', [], [1, 2], [0, 0, 0], ['a'] * 3, [float('inf')] * 3, [-3, -32, -128], {}


@pytest.mark.parametrize('name', ['num_heads', 'input_size', 'mean', 'std', 'model_args', 'pretrained_cfg'])
def test_a_config_of_odd_values_is_refused_or_harmless(tmp_path, encoders, name):
    folder = export_encoder(encoders['odd'], tmp_path / 'x', 'maerec')
    whole = json.loads((folder / 'config.json').read_text())
    for value in odd_values:
        config = json.loads(json.dumps(whole))
        place = config['model_args'] if name == 'num_heads' else config['pretrained_cfg']
        (config if name in config else place)[name] = value
        (folder / 'config.json').write_text(json.dumps(config))
        try: assert features(load_model(folder / 'model.pth')).isfinite().all()
        except WeightsError as e: assert '\n' not in str(e) and str(folder) in str(e)
    for text in '', '[]', '{' * 10**5:
        (folder / 'config.json').write_text(text)
        with pytest.raises(WeightsError, match='encoder_heads='): load_model(folder / 'model.pth')


# ---- a recogniser has its methods, however it was come by ----------------------------------------------------------

def alone(code, *args):
    done = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_class_alone_spells():
    alone("import torch; from mnsp.recognizer import Recognizer, recognizer_tiny; r = Recognizer(recognizer_tiny())\n"
          "x = torch.zeros(1, 3, 32, 128, dtype=torch.uint8); r.generate(x, max_len=2); assert len(r.read_batch(x)) == 1")


@pytest.mark.parametrize('kind', ['pretrained', 'reader', 'odd'])
def test_loading_may_be_the_first_thing_that_is_done(tmp_path, encoders, as_published, kind):
    "Rooms that are imported on the way compute something, and want numbers for it"
    alone("import sys; from mnsp import load_model; load_model(sys.argv[1])", save_model(encoders[kind], tmp_path))
    cfg = mae('tiny')
    whole = Pretrainer(replace(cfg, encoder=replace(cfg.encoder, stored_positions=True)))
    torch.save(dict(model=as_published(whole, 'mae')), tmp_path / 'mae.pth')
    alone("import sys; from mnsp import from_published; from_published(sys.argv[1], 2, 2)", tmp_path / 'mae.pth')


def test_so_does_one_that_was_pickled_or_saved(tmp_path):
    reader = Recognizer(recognizer_tiny())
    (tmp_path / 'reader').write_bytes(pickle.dumps(reader))
    alone("import pickle, sys, torch; r = pickle.load(open(sys.argv[1], 'rb'))\n"
          "r.generate(torch.zeros(1, 3, 32, 128, dtype=torch.uint8), max_len=2)", tmp_path / 'reader')
    save_model(reader, tmp_path / 'folder')
    alone("import sys, torch; from mnsp import hub; r = hub.load_model(sys.argv[1])\n"
          "x = torch.zeros(1, 3, 32, 128, dtype=torch.uint8)\n"
          "r.generate(x, max_len=2); assert r.read(x[0]).text == r.read_batch(x, tta=True)[0][0].replace(' ', '')",
          tmp_path / 'folder')
