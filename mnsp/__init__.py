"""Masked next-scale prediction: learn to read scene text from pictures of words that nobody has labelled"""
__version__ = "0.0.1"

__all__ = ['Recognizer', 'Reading']


def __getattr__(name):
    "`Recognizer` and `Reading`, imported when they are first asked for: `import mnsp` alone stays quick"
    if name not in __all__: raise AttributeError(f"module 'mnsp' has no attribute {name!r}")
    from . import reading
    return getattr(reading, name)


def __dir__(): return sorted([*globals(), *__all__])
