"""A small English reader, from fonts and crops to weights; called again, every step goes on where it stopped.

    reader.py fonts    RUN --fonts FOLDER                       which of the fonts there are text fonts: RUN/fonts.txt
    reader.py render   RUN --fonts RUN/fonts.txt --words 120000 words in these fonts, resized, in memory maps
    reader.py crops    RUN --data FOLDER                        real training crops the same way, validation apart
    reader.py pretrain RUN --steps 2000                         MNSP on both, labels unused
    reader.py finetune RUN --steps 6000 [--scratch]             reading, from the pre-trained encoder or from nothing
    reader.py package  RUN --out mnsp/weights/english           half precision
    reader.py pack     RUN --out FOLDER / unpack                JPEG in files of 60 MB, to be carried to another machine

`RUN/<step>/plan.json` holds how many optimizer steps there are and from which on the learning rate falls to nought; it
may be edited while the step runs. What one step draws depends on the seed and its number alone.
"""
import argparse
import copy
import csv
import io
import json
import os
import re
import string
import zlib
from dataclasses import replace
from pathlib import Path
from time import monotonic, process_time

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from mnsp import reading
from mnsp.charset import english
from mnsp.data import CacheSource, Source
from mnsp.encoder import Encoder, EncoderConfig
from mnsp.evaluate import score
from mnsp.finetune import CharacterLoss
from mnsp.guidance import FinetuneAugment
from mnsp.hub import save_model
from mnsp.pretrain import Pretrainer, mnsp
from mnsp.recognizer import Recognizer, RecognizerConfig, finest_encoder
from mnsp.stores import cache
from mnsp.study import columns
from mnsp.synth import SynthWords, font_chars, font_files, not_text, street_world
from mnsp.training import autocast, make_optimizer

sizes = dict(
    nano=dict(patch_size=(8, 8), dim=64, depth=2, heads=2, stem=(16, 32)), # for tests
    mini=dict(patch_size=(8, 8), dim=192, depth=6, heads=3, stem=(32, 64)), # a CPU, an hour
    medium=dict(patch_size=(8, 4), dim=256, depth=8, heads=4, stem=(32, 64)), # a GPU, minutes; 15 MB in half precision
    small=dict(patch_size=(4, 8), dim=384, depth=12, heads=6)) # ViT-S
alphabet = string.digits+string.ascii_lowercase
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

# ---------------------------------------------------------------------------------------------------------------- data

def letters(text): return ''.join(c for c in text.lower() if c in alphabet)

class Pool:
    "Pictures and words of several caches; a batch is drawn by step number, so that a resumed run draws the same"
    def __init__(self, folders, max_len):
        sources = [CacheSource(f) for f in folders]
        self.images, texts = [s.images for s in sources], [letters(t) for s in sources for t in s.labels()]
        self.ends, lengths = np.cumsum([len(i) for i in self.images]), np.array([len(t) for t in texts])
        self.order = np.argsort(lengths, kind='stable')
        self.order = self.order[(lengths[self.order] > 0) & (lengths[self.order] < max_len)]
        self.lengths, self.texts = lengths[self.order], texts
        if device.type == 'cuda': # a million pictures take 12 GB there
            self.images = torch.cat([torch.from_numpy(np.array(i)).to(device) for i in self.images])

    def draw(self, n, longest, rng):
        "uint8 [n, 3, H, W] on the device and n words of at most `longest` characters"
        at = self.order[rng.integers(max(1, np.searchsorted(self.lengths, longest, 'right')), size=n)]
        return self.pictures(at), [self.texts[i] for i in at]

    def pictures(self, at):
        if device.type == 'cuda': return self.images[torch.from_numpy(at).to(device)]
        part = np.searchsorted(self.ends, at, 'right')
        return torch.from_numpy(np.stack([self.images[p][i-(self.ends[p-1] if p else 0)] for p, i in zip(part, at)]))

class Data:
    "Real crops and rendered words, mixed"
    def __init__(self, run, real=.35, max_len=24):
        self.real, self.drawn = Pool([run/'real'], max_len), Pool(sorted(run.glob('street*[0-9]')), max_len)
        self.share = real
        self.rough, self.mild = FinetuneAugment(.6, .6, .4, .5), FinetuneAugment(.5, .15, .3, .1)

    def batch(self, n, step, longest=99, seed=0, augment=True):
        "Pictures on the device, and their words"
        rng, k = np.random.default_rng((seed, step)), round(n*self.share)
        (a, real), (b, drawn) = self.real.draw(k, longest, rng), self.drawn.draw(n-k, longest, rng)
        if augment:
            generator = torch.Generator(device).manual_seed(1_000_003*seed+step)
            a, b = self.rough(a, generator), self.mild(b, generator)
            a = torch.where(torch.rand(k, 1, 1, 1, device=device, generator=generator) < .15, 255-a, a)
        return torch.cat([a, b]), real+drawn

# ------------------------------------------------------------------------------------------------------------- training

class Run:
    "One training in a folder: plan, checkpoint, log"
    def __init__(self, folder, model, opt, measures=(), **plan):
        self.folder, self.model, self.opt, self.measures, self.step, self.seconds = Path(folder), model, opt, measures, 0, 0.
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rates = [g['lr'] for g in opt.param_groups]
        self.average = {k: v.clone() for k, v in model.state_dict().items()}
        file = self.folder/'plan.json'
        if not file.exists(): file.write_text(json.dumps(plan))
        if (self.folder/'last.pt').exists(): self.load()

    @property
    def plan(self):
        "What plan.json says; what it said before, while somebody is writing it"
        try: self.known = json.loads((self.folder/'plan.json').read_text())
        except ValueError:
            if not hasattr(self, 'known'): raise
        return self.known

    def load(self):
        state = torch.load(self.folder/'last.pt', map_location=device, weights_only=True)
        self.model.load_state_dict(state['model']); self.average = state['average']
        for part, s in zip(self.opt.parts, state['opt']): part.load_state_dict(s)
        self.step, self.seconds = state['step'], state['seconds']

    def save(self, name='last.pt'):
        new = self.folder/'new.pt'
        torch.save(dict(model=self.model.state_dict(), average=self.average, opt=self.opt.state_dict(), step=self.step,
                        seconds=self.seconds), new)
        os.replace(new, self.folder/name)

    def rate(self, plan):
        "Factor on the learning rate: up over `warmup` steps, constant, down to nought from `cool_from` on"
        left = (plan['steps']-self.step)/max(1, plan['steps']-plan['cool_from'])
        return min(1., (self.step+1)/plan['warmup'], max(0., left))

    def log(self, **row):
        file = self.folder/'log.csv'
        row, new = dict(step=self.step, seconds=round(self.seconds, 1), **row), not file.exists()
        with open(file, 'a', newline='') as f:
            writer = csv.DictWriter(f, ['step', 'seconds', 'loss', *self.measures])
            if new: writer.writeheader()
            writer.writerow(row)
        print(*[f'{k} {v}' for k, v in row.items()], flush=True)

    def go(self, loss_of, check=lambda run: {}, every=50, check_every=250, minutes=None):
        "Train until the plan is fulfilled or the minutes are over"
        used, began, losses = process_time, monotonic(), []
        while self.step < (plan := self.plan)['steps'] and not (minutes and monotonic()-began > 60*minutes):
            start, rate = used(), self.rate(plan)
            for group, r in zip(self.opt.param_groups, self.rates): group['lr'] = r*rate
            with autocast(device): loss = loss_of(self.step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.)
            self.opt.step(); self.opt.zero_grad()
            self.step += 1
            decay = min(plan['average'], self.step/(self.step+20))
            torch._foreach_lerp_(*[[d[k] for k, v in self.average.items() if v.is_floating_point()]
                                   for d in (self.average, self.model.state_dict())], 1-decay)
            losses.append(loss.detach())
            self.seconds += used()-start
            if self.step % every == 0 or self.step == plan['steps']:
                self.save()
                self.log(loss=round(torch.stack(losses[-every:]).mean().item(), 4),
                         **(check(self) if self.step % check_every == 0 or self.step == plan['steps'] else {}))
                losses = []
        self.save()

# ---------------------------------------------------------------------------------------------------------- pre-training

def pretrain(run, size, steps, batch_size, lr, minutes):
    "MNSP with pixels as targets"
    torch.manual_seed(0)
    cfg = mnsp('tiny')
    encoder = EncoderConfig(**sizes[size], n_scales=3)
    decoder = replace(cfg.decoder, dim=encoder.dim, heads=encoder.heads, ffn_dim=2*encoder.dim)
    model = Pretrainer(replace(cfg, encoder=encoder, decoder=decoder, teacher='pixels')).to(device).train()
    opt = make_optimizer(model, lr, 'muon').opt
    data = Data(run, max_len=99)
    r = Run(run/'pretrain', model, opt, steps=steps, cool_from=steps*2//3, warmup=100, average=.99)
    def loss_of(step):
        images, _ = data.batch(batch_size, step, augment=False)
        model.generator = torch.Generator(device).manual_seed(step)
        torch.manual_seed(step)
        return model(images)['loss']
    r.go(loss_of, minutes=minutes)
    torch.save(model.encoder.state_dict(), run/'pretrain'/'encoder.pt')

# ----------------------------------------------------------------------------------------------------------- fine-tuning

class Spelling(nn.Module):
    """The recogniser, and beside its decoder two linear layers on the encoder's columns that learn sooner: one spells by
    CTC, one takes all letters of a word to be equally wide (the flat start of speech recognition)"""
    def __init__(self, recognizer):
        super().__init__()
        self.recognizer, (rows, _) = recognizer, recognizer.cfg.encoder.grid()
        self.column_classifier = nn.Linear(rows*recognizer.cfg.encoder.dim, recognizer.charset.n_classes)
        self.flat_classifier = nn.Linear(rows*recognizer.cfg.encoder.dim, recognizer.charset.n_classes)
        self.reading = CharacterLoss(recognizer.charset)
        recognizer.encoder.register_forward_hook(lambda m, args, out: setattr(self, 'features', out))
        if device.type == 'cpu': # the residual stream in half precision: 1.15 times as fast
            recognizer.encoder.blocks.register_forward_pre_hook(lambda m, args: self.training and (args[0].bfloat16(),) or None)

    def forward(self, images, ids):
        "The three losses"
        read = self.reading(self.recognizer(images, ids), ids)
        features = columns(self.features, self.recognizer.cfg.encoder.grid())
        spelt, n = self.column_classifier(features).float().log_softmax(2), features.shape[1]
        lengths = (ids < self.recognizer.charset.eos).sum(1)
        ctc = nn.functional.ctc_loss(spelt.transpose(0, 1), ids+1, torch.full_like(lengths, n), lengths, zero_infinity=True)
        place = ((torch.arange(n, device=ids.device)+.5)/n*lengths[:, None]).long()
        return read, ctc, self.reading(self.flat_classifier(features), ids.gather(1, place))

def recipe(size):
    "The reader's configuration"
    encoder = EncoderConfig(**sizes[size])
    return RecognizerConfig(encoder, dim=encoder.dim, depth=1, heads=encoder.heads, ffn_dim=4*encoder.dim, dropout=0.,
                            charset=alphabet)

def validation(run, model, batch_size=256):
    "Words read in each validation set, and in all of them, in percent"
    out, right, ned, total = {}, 0, 0, 0
    for folder in sorted(run.glob('valid_*')):
        source = CacheSource(folder)
        texts = [t for s in torch.from_numpy(np.array(source.images)).split(batch_size)
                 for t, _ in model.recognizer.read_batch(s.to(device))]
        words = score(texts, [letters(t) for t in source.labels()])
        out[folder.name[6:]], n = round(words['waics'], 2), len(texts)
        right, ned, total = right+words['waics']*n, ned+words['ned']*n, total+n
    return dict(all=round(right/total, 2), ned=round(ned/total, 2), **out)

def finetune(run, name, size, steps, batch_size, lr, scratch, grow, start, real, minutes):
    "Learn to read"
    torch.manual_seed(0)
    model = Spelling(Recognizer(recipe(size)).to(device)).to(device)
    if not scratch:
        encoder = Encoder(EncoderConfig(**sizes[size], n_scales=3))
        encoder.load_state_dict(torch.load(run/'pretrain'/'encoder.pt', weights_only=True, map_location='cpu'))
        model.recognizer.encoder.load_state_dict(finest_encoder(encoder).state_dict())
    data, charset, cfg = Data(run, real), model.recognizer.charset, model.recognizer.cfg
    names = ['all', 'ned', *(f.name[6:] for f in sorted(run.glob('valid_*')))]
    r = Run(run/name, model, make_optimizer(model, lr, 'muon').opt, names, steps=steps, cool_from=steps*7//10, warmup=100,
            average=.995)
    average, parts = copy.deepcopy(model), []
    def loss_of(step):
        images, words = data.batch(batch_size, step, longest=4+20*step/max(1, grow))
        ids = charset.encode_batch(words, cfg.max_len)[:, :1+max(map(len, words))].to(device)
        read, ctc, flat = model.train()(images, ids)
        parts.append(torch.stack([read, ctc, flat]).detach())
        if len(parts) == 50: print('read, ctc, flat:', *(f'{v:.3f}' for v in torch.stack(parts).mean(0))); parts.clear()
        return read+.5*ctc+max(0., 1-step/start)*flat
    def check(r):
        average.load_state_dict(r.average)
        return validation(run, average.eval())
    r.go(loss_of, check, minutes=minutes)

# ------------------------------------------------------------------------------------------------- from fonts and crops

def read_fonts(path):
    "Font files: those named in a text file (repeated ones are drawn more often), or all in a folder"
    path = Path(path)
    if path.is_file(): return tuple(path.read_text(encoding='utf-8').split('\n'))
    return tuple(sorted(str(p) for p in path.rglob('*.[ot]tf')))

def glyph(font, char):
    "A character cut out, 16 x 16, centred and of length 1; None when nothing is drawn"
    left, top, right, bottom = font.getbbox(char)
    im = Image.new('L', (max(1, right-left), max(1, bottom-top)))
    ImageDraw.Draw(im).text((-left, -top), char, fill=255, font=font)
    if im.getbbox() is None: return None
    v = np.asarray(im.crop(im.getbbox()).resize((16, 16)), np.float32).ravel()
    return (v-v.mean())/max(np.linalg.norm(v-v.mean()), 1e-6)

def choose_fonts(run, folder, least=.5, plain=.7, per_family=4):
    """Fonts whose letters look like letters, into RUN/fonts.txt: mean correlation of each with its nearest likeness in
    six fonts that come with matplotlib, capitals allowed; few of a family, plain ones three times"""
    names = 'DejaVuSans DejaVuSerif DejaVuSans-BoldOblique STIXGeneral STIXGeneralItalic DejaVuSansMono'.split()
    chars = 'abcdefghkmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789'
    known = {Path(p).stem: ImageFont.truetype(p, 40) for p in font_files(False)}
    likenesses = {c: np.stack([glyph(known[n], d) for n in names for d in (c, c.upper())]) for c in chars}
    families, rng = {}, np.random.default_rng(0)
    for path in sorted(Path(folder).rglob('*.[ot]tf')):
        if not_text.search(path.name) or not set(map(ord, english.chars)) <= font_chars(str(path)): continue
        try: drawn = {c: glyph(ImageFont.truetype(str(path), 40), c) for c in chars}
        except OSError: continue
        score = np.mean([-1 if v is None else (likenesses[c]@v).max() for c, v in drawn.items()])
        family = re.split('[-_]|(?=Bold|Ital|Light|Medium|Regular|Black|Cond|Extra|Semi|Thin)', path.stem)[0]
        if score >= least: families.setdefault(family, []).append([str(path)]*(3 if score > plain else 1))
    kept = [line for files in families.values() for k in rng.permutation(len(files))[:per_family] for line in files[k]]
    (run/'fonts.txt').write_text('\n'.join(kept), encoding='utf-8')
    print(f'{len(set(kept))} fonts of {len(families)} families')

def render(run, fonts, words, per_part, workers, seed=100):
    "Caches street0, street1, … of rendered words"
    world = street_world(fonts=read_fonts(fonts) if fonts else 'system')
    for k in range(-(-words//per_part)):
        if not (run/f'street{k}').exists():
            n = min(per_part, words-k*per_part)
            print(cache(SynthWords(world, n, seed=seed+k), run/f'street{k}', (32, 128), workers), flush=True)

class Crops(Source):
    "Crops of several folders; one side of the split by CRC-32 of their file names"
    labelled = True
    def __init__(self, folders, valid):
        self.rows = []
        for folder in folders:
            labels = folder/'labels_casesensitive.tsv'
            for line in (labels if labels.exists() else folder/'labels.tsv').read_text(encoding='utf-8').splitlines():
                name, _, text = line.partition('\t')
                if text and (zlib.crc32(name.encode()) % 10 == 0) == valid:
                    self.rows.append((folder/'images'/name, text))
    def __len__(self): return len(self.rows)
    def name(self, i): return f'{self.rows[i][0].parent.parent.name}/{self.rows[i][0].name}'
    def label(self, i): return self.rows[i][1]
    def data(self, i): return self.rows[i][0].read_bytes()

def crops(run, data, sets):
    "Caches `real` and `valid_<set>`"
    folders = [Path(data)/s for s in sets]
    if not (run/'real').exists(): print(cache(Crops(folders, False), run/'real'))
    for folder in folders:
        if not (run/f'valid_{folder.name}').exists():
            print(cache(Crops([folder], True), run/f'valid_{folder.name}'))

def pack(run, out, megabytes, quality):
    "Caches as JPEG: `<cache>-<k>.npz` of at most so many megabytes, with the texts"
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(f.parent for f in run.glob('*/cache.json')):
        source = CacheSource(folder)
        texts, files = list(source.labels()), [jpeg_bytes(source.image(i), quality) for i in range(len(source))]
        parts = np.cumsum([len(f)+50 for f in files])//int(1e6*megabytes)
        for k in range(parts[-1]+1):
            own = np.flatnonzero(parts == k)
            np.savez(out/f'{folder.name}-{k}.npz', jpeg=np.frombuffer(b''.join(files[i] for i in own), np.uint8),
                     lengths=np.array([len(files[i]) for i in own]), texts=np.array(json.dumps([texts[i] for i in own])))

def jpeg_bytes(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, 'jpeg', quality=quality)
    return buffer.getvalue()

class Packed(Source):
    "What `pack` wrote"
    labelled = True
    def __init__(self, files):
        self.items = []
        for file in files:
            with np.load(file, allow_pickle=False) as z:
                ends, data = np.cumsum(z['lengths']), z['jpeg'].tobytes()
                self.items += [(data[e-n:e], t) for e, n, t in zip(ends, z['lengths'], json.loads(str(z['texts'])))]
    def __len__(self): return len(self.items)
    def name(self, i): return f'packed-{i}'
    def label(self, i): return self.items[i][1]
    def data(self, i): return self.items[i][0]

def unpack(run, out, workers):
    "Caches from what `pack` wrote"
    for name in sorted({f.stem.rsplit('-', 1)[0] for f in out.glob('*-*.npz')}):
        files = sorted(out.glob(f'{name}-*.npz'), key=lambda f: int(f.stem.rsplit('-', 1)[1]))
        if not (run/name).exists(): print(cache(Packed(files), run/name, (32, 128), workers), flush=True)

# ------------------------------------------------------------------------------------------------------------- packaging

def package(run, name, size, out, note):
    "The averaged weights in half precision, and ten words by which they can be known again"
    model = Spelling(Recognizer(recipe(size)))
    state = torch.load(run/name/'last.pt', map_location='cpu', weights_only=True)
    model.load_state_dict(state['average'])
    print(validation(run, model.to(device).eval()))
    print(save_model(model.recognizer.cpu(), out, dict(note=note, steps=state['step']), half=True))
    (out/'fingerprint.json').write_text(json.dumps(fingerprint(reading.Recognizer.from_pretrained(out)), indent=1)+'\n')

def fingerprint(reader, seed=0):
    "Ten rendered words that are read right and without doubt, so that rounding on another machine changes nothing"
    words, found = SynthWords(street_world(fonts='own'), 1000, seed=seed), {}
    for i in range(len(words)):
        r = reader.read(words[i][0])
        if r.text == letters(words.label(i)) and min(r.confidences, default=0) > .9: found.setdefault(r.text, i)
        if len(found) == 10: break
    return dict(seed=seed, words=list(found.values()), readings=list(found))

def main(args=None):
    "The command line"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', choices=['fonts', 'render', 'crops', 'pretrain', 'finetune', 'package', 'pack', 'unpack'])
    parser.add_argument('run', type=Path, help='folder of caches, checkpoints and logs')
    parser.add_argument('--fonts', help='folder of font files, or a text file that names them; left out: the system\'s')
    parser.add_argument('--words', type=int, default=120_000, help='to render')
    parser.add_argument('--per-part', type=int, default=30_000, help='words per cache')
    parser.add_argument('--workers', type=int, default=0, help='processes that render or decode')
    parser.add_argument('--data', default='../shared/data', help='folder of the sets of crops')
    parser.add_argument('--sets', nargs='+', default=['IIIT5K_train', 'SVT_train', 'IC15_train', 'MLTlike_train'])
    parser.add_argument('--size', choices=sizes, default='mini', help='of the encoder')
    parser.add_argument('--steps', type=int, default=4000, help='of the optimizer; a plan.json that is there counts')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--grow', type=int, default=500, help='steps over which words grow to full length')
    parser.add_argument('--start', type=int, default=1000, help='steps over which the flat start fades')
    parser.add_argument('--real', type=float, default=.35, help='share of real crops')
    parser.add_argument('--minutes', type=float, help='stop after so many; the next call goes on')
    parser.add_argument('--name', default='finetune', help='folder of this fine-tuning within the run')
    parser.add_argument('--scratch', action='store_true', help='without the pre-trained encoder')
    parser.add_argument('--out', type=Path, help='folder of the weights or of the packs')
    parser.add_argument('--note', default='', help='what users should know, kept with the weights')
    parser.add_argument('--megabytes', type=float, default=60, help='of a pack')
    parser.add_argument('--quality', type=int, default=88, help='of its JPEG')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    a = parser.parse_args(args)
    torch.set_num_threads(a.threads)
    a.run.mkdir(parents=True, exist_ok=True)
    steps = dict(
        fonts=lambda: choose_fonts(a.run, a.fonts),
        render=lambda: render(a.run, a.fonts, a.words, a.per_part, a.workers),
        crops=lambda: crops(a.run, a.data, a.sets),
        pretrain=lambda: pretrain(a.run, a.size, a.steps, a.batch_size, a.lr, a.minutes),
        finetune=lambda: finetune(a.run, a.name, a.size, a.steps, a.batch_size, a.lr, a.scratch, a.grow, a.start, a.real,
                                  a.minutes),
        package=lambda: package(a.run, a.name, a.size, a.out, a.note),
        pack=lambda: pack(a.run, a.out, a.megabytes, a.quality), unpack=lambda: unpack(a.run, a.out, a.workers))
    steps[a.step]()

if __name__ == '__main__': main()
