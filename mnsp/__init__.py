__version__ = "0.0.1"

import warnings

# importing fastai 2.8 uses torch.jit.script, which newer torch deprecates; nothing a user of this package can act on
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
