"""A small English reader, from fonts and crops to weights; called again, every step goes on where it stopped.

    reader.py fonts    RUN --fonts FOLDER                       which of the fonts there are text fonts: RUN/fonts.txt
    reader.py render   RUN --fonts RUN/fonts.txt --words 450000 words in these fonts, resized, in memory maps
    reader.py crops    RUN --data FOLDER                        real training crops the same way, validation apart
    reader.py more     RUN --data FOLDER [--own FOLDER]         words with a machine's and our labels, receipts, plates, …
    reader.py pretrain RUN --steps 2000 [--start-from FOLDER]   MNSP on both, labels unused: RUN/pretrain/encoder
    reader.py finetune RUN --steps 6000 [--start-from FOLDER]   reading, from a pre-trained encoder, a reader or nothing
    reader.py package  RUN --out mnsp/weights/english           half precision
    reader.py pack     RUN --out FOLDER / unpack                JPEG in files of 60 MB, to be carried to another machine

A run that was stopped (Ctrl-C, SIGTERM, a crash) goes on when its command is given again; with more `--steps` it becomes
longer: the learning rate is constant for most of the way and falls at the end. What one step draws depends on its number
alone. The averaged reader that was best on validation lies in RUN/<name>/reader, losses and validation in log.csv and
validation.csv beside it.
"""
import argparse
import io
import json
import re
import unicodedata
import zlib
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from timm.layers import resample_patch_embed

from mnsp import reading, training
from mnsp.augment import FinetuneAugment
from mnsp.charset import english
from mnsp.checkpoints import Checkpoints
from mnsp.diagnosis import by_length, groups_table, trusted
from mnsp.encoder import EncoderConfig, position_table
from mnsp.evaluate import evaluate, score
from mnsp.finetune import Validation
from mnsp.finetune import finetune as train
from mnsp.graph import link_graph
from mnsp.guidance import GuidanceView
from mnsp.hub import load_model, read_config, save_model
from mnsp.images import Source, all_labels
from mnsp.lmdb_source import CacheSource
from mnsp.machine import has_bf16
from mnsp.pretrain import Pretrainer, lmim, mae, mnsp
from mnsp.recognizer import Recognizer, RecognizerConfig
from mnsp.sources import open_source
from mnsp.stores import cache
from mnsp.surgery import encoder_of_scales, finest_encoder, with_charset
from mnsp.synth import SynthWords, background, degrade, font_chars, font_files, not_text, street_world
from mnsp.training import History, Recipe
from mnsp.unions import Relabelled, Subset

sizes = dict(
    nano=dict(patch_size=(8, 8), dim=64, depth=2, heads=2, stem=(16, 32)), # for tests
    mini=dict(patch_size=(8, 8), dim=192, depth=6, heads=3, stem=(32, 64)), # a CPU, two hours
    conv=dict(patch_size=(8, 8), dim=192, depth=6, heads=3, stem=(32, 64, 128)), # more convolution in front
    wide=dict(patch_size=(8, 8), dim=256, depth=8, heads=4, stem=(32, 64)), # `medium` with patches twice as wide
    fine=dict(patch_size=(8, 4), dim=192, depth=6, heads=3, stem=(32, 64), stored_positions=True), # two thirds as fast
    deep=dict(patch_size=(8, 4), dim=192, depth=9, heads=3, stem=(32, 64), stored_positions=True), # `fine`, grown
    medium=dict(patch_size=(8, 4), dim=256, depth=8, heads=4, stem=(32, 64)), # a GPU, minutes; 15 MB in half precision
    small=dict(patch_size=(4, 8), dim=384, depth=12, heads=6)) # ViT-S
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

# ---------------------------------------------------------------------------------------------------------------- data

def plain(text): return unicodedata.normalize('NFKC', text).replace(' ', '')

class Pool:
    "Pictures and words of several caches; a batch is drawn by step number, so that a resumed run draws the same"
    def __init__(self, folders, max_len):
        sources = [CacheSource(f) for f in folders]
        self.images, texts = [s.images for s in sources], [plain(t) for s in sources for t in s.labels()]
        self.ends, lengths = np.cumsum([len(i) for i in self.images]), np.array([len(t) for t in texts])
        self.order = np.argsort(lengths, kind='stable')
        fine = np.concatenate([s.codes == 0 for s in sources])
        fine &= np.array([set(t) <= set(english.chars) for t in texts]) & (lengths < max_len)
        self.order = self.order[fine[self.order]]
        if not fine.all(): print(f'{(~fine).sum()} pictures left out: broken, too long, or with other characters')
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

shares = {'real*': .52, 'machine*': .36, 'own*': .02, 'season*': .1, # of the real crops of a batch, where there are
          'self*': .36, # our own readings alone, in place of 'machine*' and 'own*' where asked for
          'all*': .48}  # crops that no one has labelled, for `pretrain`
usual_kinds = tuple(shares)[:4]
blank = .012 # share of a batch on which nothing is written
every = 400 # steps between two validations

class Data:
    "Real crops and rendered words, mixed; real ones are changed more, since they are few"
    def __init__(self, run, real=.35, max_len=24, kinds=usual_kinds):
        self.rough, self.mild = FinetuneAugment(.8, .7, .4, .5), FinetuneAugment(.5, .15, .3, .1)
        self.other_look = GuidanceView('medium')
        whole = sum(shares[k] for k in kinds)
        kinds = [*((real*shares[k]/whole, k, self.roughly) for k in kinds),
                 (1-real, 'street*[0-9]', self.mildly), (blank, 'blank*[0-9]', self.mildly)]
        kinds = [(share, sorted(f.parent for f in run.glob(f'{name}/cache.json')), change)
                 for share, name, change in kinds if share]
        total = sum(share for share, folders, _ in kinds if folders)
        self.pools = [(share/total, Pool(folders, max_len), change) for share, folders, change in kinds if folders]

    def batch(self, n, step, longest=99, seed=0, augment=True):
        "Pictures on the device, and their words"
        rng, generator = np.random.default_rng((seed, step)), torch.Generator(device).manual_seed(1_000_003*seed+step)
        images, words, ends = [], [], np.round(n*np.cumsum([0., *(share for share, *_ in self.pools)])).astype(int)
        for (_, pool, change), k in zip(self.pools, np.diff(ends)):
            if not k: continue                                      # a small share of a small batch
            pictures, texts = pool.draw(k, longest, rng)
            if augment: pictures, texts = change(pictures, texts, generator)
            images.append(pictures); words += texts
        return torch.cat(images), words

    def mildly(self, images, words, generator): return self.mild(images, generator), words

    def roughly(self, images, words, generator):
        "Some in pairs, half of all as guidance views, some inverted"
        images, words = joined(images, words)
        def chance(p): return torch.rand(len(images), 1, 1, 1, device=device, generator=generator) < p
        images = torch.where(chance(.5), self.other_look(images, generator), self.rough(images, generator))
        return torch.where(chance(.15), 255-images, images), words

def joined(images, words, share=.15, most=7):
    "A share of pictures shows two short words side by side, squeezed: longer words, of which there are few"
    short = [i for i, word in enumerate(words) if len(word) <= most][:int(share*len(words))]
    if len(short) < 2: return images, words
    half = images[short].float().unflatten(3, (-1, 2)).mean(4).to(images.dtype)
    images = images.clone()
    images[short] = torch.cat([half, half.roll(-1, 0)], 3)
    longer = {i: words[i]+words[j] for i, j in zip(short, short[1:]+short[:1])}
    return images, [longer.get(i, word) for i, word in enumerate(words)]

class Batches:
    "A loader for `fit`: mixed pictures and their characters; its position is the number of the step"
    drop_last = True
    def __init__(self, data, batch_size, charset, grow=0, **options):
        self.data, self.batch_size, self.charset, self.grow, self.options, self.step = data, batch_size, charset, grow, options, 0
    def __len__(self): return 1000 # a pass; there is no other meaning in it
    def __iter__(self):
        for _ in range(len(self)):
            self.step += 1
            yield self.batch(self.step-1)
    def batch(self, step):
        "Words grow from 4 letters to full length over the first `grow` steps"
        longest = 4+20*step/self.grow if self.grow else 99
        images, words = self.data.batch(self.batch_size, step, longest=longest, **self.options)
        return images, self.charset.encode_batch(words, 1+max(map(len, words)))
    def state_dict(self): return dict(step=self.step)
    def load_state_dict(self, state): self.step = state['step']

# ---------------------------------------------------------------------------------------------------------- pre-training

methods = dict(mae=mae, lmim=lmim, mnsp=mnsp)

def pretrain(run, method, size, steps, batch_size, lr, name, seed=0, start_from=None, real=.35, kinds=usual_kinds):
    "Pixels are the targets, so that no other model is needed; what starts from a reader becomes one again"
    torch.manual_seed(seed)
    cfg, origin = methods[method]('tiny'), load_model(start_from) if start_from else None
    encoder = EncoderConfig(**sizes[size], n_scales=cfg.encoder.n_scales)
    decoder = replace(cfg.decoder, dim=encoder.dim, heads=encoder.heads, ffn_dim=2*encoder.dim)
    begun = encoder_of_scales(getattr(origin, 'encoder', origin), encoder.n_scales) if origin else None
    model = Pretrainer(replace(cfg, encoder=encoder, decoder=decoder, teacher='pixels'), encoder=begun)
    loader = Batches(Data(run, real, max_len=99, kinds=kinds), batch_size, english, seed=seed, augment=False)
    training.pretrain(model, loader, lr=lr, optimizer='muon', steps=steps, warmup=.05, hold=.6, clip=1.,
                      **kept(run/name, method=method, size=size, batch_size=batch_size, lr=lr, seed=seed))
    print(save_model(model.encoder, run/name/'encoder', dict(method=method, steps=steps)))
    if isinstance(origin, Recognizer):
        origin.encoder.load_state_dict(finest_encoder(model.encoder).state_dict())
        print(save_model(origin, run/name/'reader', dict(method=method, steps=steps)))

def kept(folder, **settings):
    "Log and checkpoints of a run, for `fit`"
    folder.mkdir(parents=True, exist_ok=True)
    return dict(history=History(50, folder/'log.csv'), bar=folder.name,
                cbs=[Checkpoints(folder/'checkpoints', 250, resume=True, settings=settings)])

# ----------------------------------------------------------------------------------------------------------- fine-tuning

def recipe(size, dropout=0.):
    "The reader's configuration; `dropout` is the decoder's"
    encoder = EncoderConfig(**sizes[size])
    return RecognizerConfig(encoder, dim=encoder.dim, depth=1, heads=encoder.heads, ffn_dim=4*encoder.dim, dropout=dropout,
                            charset=english.chars)

def validation_words(run): return {f.name[6:]: CacheSource(f) for f in sorted(run.glob('valid_*'))}

def validation(run, recognizer):
    "WAICS of all validation words and exact words of those with case and marks, in percent; their mean decides"
    found = evaluate(recognizer.read_batch, validation_words(run), batch_size=256, bar=False)
    cased = [r for r in found.readings if 'MLT' not in r.set] # whose labels have case and marks
    exact = score([plain(r.pred) for r in cased], [plain(r.true) for r in cased])['exact']
    sets = {name: figures['waics'] for name, figures in found.sets.items()}
    return {k: round(v, 2) for k, v in dict(mean=(found.w_avg+exact)/2, waics=found.w_avg, exact=exact, **sets).items()}

def starting_point(folder, cfg):
    "A recogniser: what a folder holds of it, the encoder or all, and the rest new"
    recognizer = Recognizer(cfg)
    if folder is None: return recognizer
    model = load_model(folder)
    whole = isinstance(model, Recognizer)
    if whole: model = with_charset(model, cfg.charset)
    encoder = model.encoder if whole else finest_encoder(getattr(model, 'encoder', model))
    weights = refitted(encoder, cfg.encoder)
    if whole: weights = recognizer.state_dict() | model.state_dict() | {f'encoder.{k}': v for k, v in weights.items()}
    (recognizer if whole else recognizer.encoder).load_state_dict(weights)
    return recognizer

def refitted(encoder, cfg):
    """Weights of an encoder for more blocks and for patches of another size: the projection resampled, positions in the
    unit it learnt them in"""
    weights, stride = deepened(encoder.state_dict(), encoder.cfg.depth, cfg.depth), 2**len(cfg.stem)
    if encoder.cfg.patch_size == cfg.patch_size: return weights
    kernel = [side//stride for side in cfg.patch_size]
    weights['patch_embed.proj.weight'] = resample_patch_embed(weights['patch_embed.proj.weight'], kernel)
    if cfg.stored_positions: weights['positions0'] = position_table(cfg.grid(), encoder.cfg.grid(), cfg.dim)
    return weights

def deepened(weights, depth, deeper):
    "More blocks, spread evenly: each is a copy of the one before it that adds nothing yet, so features stay what they were"
    grown, origins = {k: w for k, w in weights.items() if not k.startswith('blocks.')}, [k*depth//deeper for k in range(deeper)]
    for k, origin in enumerate(origins):
        copied = k > 0 and origins[k-1] == origin
        for name, w in weights.items():
            if not name.startswith(f'blocks.{origin}.'): continue
            part = name.split('.', 2)[2]
            silent = copied and part.startswith(('attn.proj.', 'mlp.fc2.'))
            grown[f'blocks.{k}.{part}'] = torch.zeros_like(w) if silent else w.clone()
    return grown

def finetune(run, name, size, steps, batch_size, lr, hold, start_from, grow, start, real, average, dropout, seed, kinds):
    "Learn to read; the averaged reader is validated, and saved when it is the best"
    torch.manual_seed(seed)
    reader = starting_point(start_from, recipe(size, dropout)).to(device)
    if device.type == 'cpu' and has_bf16(device): # the residual stream in half precision: 1.15 times as fast
        reader.encoder.blocks.register_forward_pre_hook(lambda m, args: m.training and (args[0].bfloat16(),) or None)
    best = Validation(lambda reader: validation(run, reader.eval()), every, run/name/'validation.csv', tell=print,
                      keep=lambda reader: save_model(reader, run/name/'reader', dict(steps=best.rows[-1]['step'])))
    options = kept(run/name, batch_size=batch_size, lr=lr, real=real, dropout=dropout, seed=seed, size=size, grow=grow,
                   start=start, average=average, kinds=sorted(kinds))
    options['cbs'].append(best)
    loader = Batches(Data(run, real, kinds=kinds), batch_size, reader.charset, grow, seed=seed)
    train(reader, loader, lr, optimizer='muon', ctc=.5, flat_start=start, average=average, recipe=Recipe(), steps=steps,
          warmup=min(.1, 100/steps), hold=hold, clip=1., device=device, **options)

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

def choose_fonts(run, fonts, alike=.5, plain=.7, per_family=4):
    """Fonts whose letters look like letters, into RUN/fonts.txt: mean correlation of each with its nearest likeness in
    six fonts that come with matplotlib, capitals allowed; few of a family, plain ones three times"""
    names = 'DejaVuSans DejaVuSerif DejaVuSans-BoldOblique STIXGeneral STIXGeneralItalic DejaVuSansMono'.split()
    chars = 'abcdefghkmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789'
    known = {Path(p).stem: ImageFont.truetype(p, 40) for p in font_files(False)}
    likenesses = {c: np.stack([glyph(known[n], d) for n in names for d in (c, c.upper())]) for c in chars}
    families, rng = {}, np.random.default_rng(0)
    for path in sorted(Path(fonts).rglob('*.[ot]tf')):
        if not_text.search(path.name) or not set(map(ord, english.chars)) <= font_chars(str(path)): continue
        try: drawn = {c: glyph(ImageFont.truetype(str(path), 40), c) for c in chars}
        except OSError: continue
        score = np.mean([-1 if v is None else (likenesses[c]@v).max() for c, v in drawn.items()])
        family = re.split('[-_]|(?=Bold|Ital|Light|Medium|Regular|Black|Cond|Extra|Semi|Thin)', path.stem)[0]
        if score >= alike: families.setdefault(family, []).append([str(path)]*(3 if score > plain else 1))
    kept = [line for files in families.values() for k in rng.permutation(len(files))[:per_family] for line in files[k]]
    (run/'fonts.txt').write_text('\n'.join(kept), encoding='utf-8')
    print(f'{len(set(kept))} fonts of {len(families)} families')

class Blanks(Source):
    "Backgrounds on which nothing is written"
    labelled = True
    def __init__(self, n): self.n = n
    def name(self, i): return f'blank-{i}'
    def label(self, i): return ''
    def image(self, i, size=None):
        rng = np.random.default_rng((7, i))
        picture = background((32, 128), rng.uniform(.02, .98), 0. if rng.random() < .3 else rng.uniform(0, .4), rng)
        return degrade(picture, float(rng.random() < .8), rng)

def stored(folder, workers, source, *args, **how):
    "A cache of a source, unless it is there"
    if not folder.exists(): print(cache(source(*args, **how), folder, (32, 128), workers), flush=True)

def render(run, fonts, words, per_part, workers, first_seed=100):
    "Caches street0, street1, … of rendered words, in turn as street_world has them, rare ones as often, and codes"
    world = replace(street_world(fonts=read_fonts(fonts) if fonts else 'system'), turned=.12)
    rarer = replace(world, dictionary=200_000, common=1.)
    codes = replace(rarer, words=.35, numbers=.3, strings=.35, punctuation=.3, max_len=22)
    stored(run/'blank0', workers, Blanks, max(words//30, 20))
    for k in range(-(-words//per_part)):
        n = min(per_part, words-k*per_part)
        stored(run/f'street{k}', workers, SynthWords, (world, rarer, codes)[k % 3], n, seed=first_seed+k)

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
    stored(run/'real', 0, Crops, folders, False)
    for folder in folders: stored(run/f'valid_{folder.name}', 0, Crops, [folder], True)

def table(path): return [row.split('\t') for row in path.read_text(encoding='utf-8').splitlines()]

def one_side(folder, texts, valid):
    "Those words of a set that have a text and whose photograph is on one side of the split"
    side = {int(row): zlib.crc32(photograph.encode()) % 10 == 0 for row, photograph in table(folder/'origin.tsv')}
    rows = [i for i, text in enumerate(texts) if text and side[i] == valid]
    return Subset(Relabelled(open_source(folder), texts), rows)

def machine_labels(folder, least, readings=None):
    """A public recogniser's readings of at least so high a score, None for the others; with the readings that `mnsp data
    label` wrote instead: for those others, what our own reader is as sure of or reads the same way"""
    texts = []
    for row, text, sure in table(folder/'machine.tsv'):
        own = readings and readings[int(row)]
        if not own: texts.append(text if float(sure) >= least else None)
        elif float(sure) >= least or 'error' in own or own['rotation']: texts.append(None)
        else: texts.append(own['text'] if own['confidence'] >= least or own['text'] == plain(text) else None)
    return texts

def own_labels(readings, least):
    "What our own reader is sure of, whatever the machine says; None for the others"
    return [r['text'] if 'error' not in r and not r['rotation'] and r['confidence'] >= least else None for r in readings]

def read_by_us(folder): return [json.loads(row) for row in (folder/'readings.jsonl').read_text(encoding='utf-8').splitlines()]

def more(run, data, least, own):
    "Caches of labelled words, of words with a machine's labels and with our own, of all without labels, and of seasoning"
    sets = [(name, folder, valid, list(all_labels(open_source(Path(data)/folder)))) for name, folder, valid in (
        ('real_IC03', 'IC03_train', False), ('valid_IC03_train', 'IC03_train', True),
        ('season_WIRES', 'WIRES', False), ('season_PLATES', 'PLATES', False), ('season_SROIE', 'SROIE_words', False))]
    for folder in ('TEXTMASK', 'POSTERS'):
        sets.append((f'machine_{folder}', folder, False, machine_labels(Path(data)/folder, least)))
        sets.append((f'all_{folder}', folder, False, ['-']*len(sets[-1][3]))) # the text is never read
        if own:
            readings = read_by_us(own/folder)
            sets.append((f'own_{folder}', folder, False, machine_labels(Path(data)/folder, least, readings)))
            sets.append((f'self_{folder}', folder, False, own_labels(readings, least)))
    for name, folder, valid, texts in sets: stored(run/name, 0, one_side, Path(data)/folder, texts, valid)

def pack(run, out, megabytes, quality):
    "Caches as JPEG: `<cache>-<k>.npz` of at most so many megabytes, with the texts"
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(f.parent for f in run.glob('*/cache.json')):
        source = CacheSource(folder)
        fine, texts = np.flatnonzero(source.codes == 0), list(source.labels())
        texts, files = [texts[i] for i in fine], [jpeg_bytes(source.image(i), quality) for i in fine]
        if len(fine) < len(source): print(f'{folder.name}: {len(source)-len(fine)} broken pictures left out')
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
        stored(run/name, workers, Packed, files)

# ------------------------------------------------------------------------------------------------------------- packaging

def package(run, name, out, note, mean_with):
    "The averaged weights in half precision, the graph that reads with them, and ten words by which they can be known again"
    recognizer = load_model(run/name/'reader', 'Recognizer')
    if mean_with: halfway(recognizer, starting_point(mean_with, recognizer.cfg)) # grown, if the other has fewer blocks
    found = evaluate(recognizer.to(device).read_batch, validation_words(run), bar=False)
    print(found.table(), strengths(found.readings), sep='\n')
    steps = read_config(run/name/'reader')['steps']
    print(save_model(recognizer.cpu(), out, dict(note=note, steps=steps), half=True), link_graph(out))
    (out/'fingerprint.json').write_text(json.dumps(fingerprint(reading.Recognizer.from_pretrained(out)), indent=1)+'\n')

def halfway(recognizer, other):
    "Bring weights to the mean with those of another turn: two readings of the same lesson (model soups, Wortsman et al. 2022)"
    with torch.no_grad():
        for own, its in zip(recognizer.parameters(), other.parameters(), strict=True): own.lerp_(its, .5)

def strengths(readings):
    "Words read right by their length, and what confidence is worth"
    share, right = trusted(readings, .9)
    return (groups_table(by_length(readings, (0, 4, 7, 10, 13)), 'characters') +
            f'\nconfidence from .9: {share:.1f}% of words, {right:.1f}% of them right')

def fingerprint(reader, seed=0, most=1000):
    "Ten rendered words that are read right and without doubt, so that rounding on another machine changes nothing"
    words, found = SynthWords(street_world(fonts='own'), most, seed=seed), {}
    for i in range(len(words)):
        r = reader.read(words[i][0])
        if r.text == plain(words.label(i)) and min(r.confidences, default=0) > .9: found.setdefault(r.text, i)
        if len(found) == 10: break
    return dict(seed=seed, words=list(found.values()), readings=list(found))

steps = dict(fonts=choose_fonts, render=render, crops=crops, more=more, pretrain=pretrain, finetune=finetune, package=package,
             pack=pack, unpack=unpack)

def main(args=None):
    "The command line: a step is told the options that it has parameters for"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', choices=steps)
    parser.add_argument('run', type=Path, help='folder of caches, checkpoints and logs')
    parser.add_argument('--fonts', help='folder of font files, or a text file that names them; left out: the system\'s')
    parser.add_argument('--words', type=int, default=120_000, help='to render')
    parser.add_argument('--per-part', type=int, default=30_000, help='words per cache')
    parser.add_argument('--workers', type=int, default=0, help='processes that render or decode')
    parser.add_argument('--data', default='../shared/data', help='folder of the sets of crops')
    parser.add_argument('--sets', nargs='+', default=['IIIT5K_train', 'SVT_train', 'IC15_train', 'MLTlike_train'])
    parser.add_argument('--least', type=float, default=.9, help="score from which a machine's label counts")
    parser.add_argument('--own', type=Path, help='folder into which `mnsp data label SET --out FOLDER/SET` wrote, for `more`')
    parser.add_argument('--size', choices=sizes, default='mini', help='of the encoder')
    parser.add_argument('--method', choices=methods, default='mnsp', help='of pre-training')
    parser.add_argument('--steps', type=int, default=4000, help='of the optimizer, in all')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--hold', type=float, default=.6, help='share of the steps at the full learning rate')
    parser.add_argument('--grow', type=int, default=500, help='steps over which words grow to full length')
    parser.add_argument('--start', type=float, default=.1, help='share of the steps over which the flat start fades')
    parser.add_argument('--real', type=float, default=.35, help='share of real crops')
    parser.add_argument('--dropout', type=float, default=0., help='in the decoder')
    parser.add_argument('--kinds', nargs='+', choices=shares, default=usual_kinds, help='of real crops')
    parser.add_argument('--average', type=float, default=.998, help='decay of the averaged weights')
    parser.add_argument('--seed', type=int, default=0, help='of new weights and of what each step draws')
    parser.add_argument('--name', help='folder within the run; left out: the name of the step')
    parser.add_argument('--start-from', type=Path, help='folder of a pre-trained encoder or of a reader')
    parser.add_argument('--out', type=Path, help='folder of the weights or of the packs')
    parser.add_argument('--note', default='', help='what users should know, kept with the weights')
    parser.add_argument('--mean-with', type=Path, help='folder of an earlier turn\'s reader, whose weights are averaged with')
    parser.add_argument('--megabytes', type=float, default=60, help='of a pack')
    parser.add_argument('--quality', type=int, default=88, help='of its JPEG')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    a = parser.parse_args(args)
    torch.set_num_threads(a.threads)
    a.run.mkdir(parents=True, exist_ok=True)
    a.name = a.name or dict(package='finetune').get(a.step, a.step)
    step = steps[a.step]
    step(**{name: value for name, value in vars(a).items() if name in signature(step).parameters})

if __name__ == '__main__': main()
