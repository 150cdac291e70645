"""Masked next-scale prediction: learn to read scene text from pictures of words that nobody has labelled"""
__version__ = "0.0.1"

from importlib import import_module as _import_module

# What `from mnsp import …` gives besides the rooms themselves: room -> names. None of them is called like a room, since a
# room, once it is imported, takes its name; `from mnsp.training import pretrain` and the like name both.
_offered = dict(
    charset=['Charset'], synth=['SynthWords'], labels=['DataError'], sources=['open_source'],
    data=['WordDataset', 'word_loader'], streams=['open_words'],
    encoder=['Encoder'], pretrain=['Pretrainer', 'lmim', 'mae'],
    recognizer=['recognizer_small', 'recognizer_tiny'], surgery=['recognizer_from', 'with_charset'],
    hub=['WeightsError', 'load_model', 'save_model'], published=['export_encoder', 'from_published'],
    reading=['Reading', 'Recognizer', 'samples', 'show_readings'], graph=['export_onnx'], onnx=['OnnxReader'],
    runs=['run_finetuning', 'run_pretraining'])
_rooms = {name: room for room, names in _offered.items() for name in names}
__all__ = sorted(_rooms)


def __getattr__(name):
    "An offered name, imported when it is first asked for: `import mnsp` alone stays quick"
    if name not in _rooms: raise AttributeError(f"module 'mnsp' has no attribute {name!r}")
    globals()[name] = found = getattr(_import_module(f'mnsp.{_rooms[name]}'), name)
    return found


def __dir__(): return sorted({*globals(), *__all__})
