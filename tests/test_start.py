"""Who only reads words does not wait for what trains and draws."""
import subprocess
import sys

READ = """
import sys
from mnsp import Recognizer
from mnsp.reading import samples
assert Recognizer.from_pretrained().read(samples()[0]).text == 'TANIA'
heavy = 'torch._dynamo', 'sympy', 'torchvision', 'timm', 'fastai', 'matplotlib', 'wordfreq', 'pandas', 'datasets'
print(*[name for name in (*heavy, 'mnsp.pretrain', 'mnsp.training', 'mnsp.synth') if name in sys.modules])
"""

COMMAND = """
import sys
from mnsp.cli import main
from mnsp.reading import samples
sys.argv = ['mnsp', 'read', str(samples()[0])]
try: main()
except SystemExit: print(*{'torch._dynamo', 'timm', 'fastai', 'matplotlib'} & set(sys.modules))
"""


def test_reading_loads_only_what_it_needs():
    "From Python and by the command: PyTorch, and little beside it"
    done = subprocess.run([sys.executable, '-c', READ], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ''), done.stdout + done.stderr
    done = subprocess.run([sys.executable, '-c', COMMAND], capture_output=True, text=True)
    assert done.stdout.splitlines()[0].split('\t')[1] == 'TANIA' and done.stdout.splitlines()[1:] == [''], done.stdout
