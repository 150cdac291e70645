"""`from mnsp import …`: what it offers, and that it costs nothing until it is asked for."""
import ast
import json
import re
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest

import mnsp


def test_the_package_itself_is_light():
    "Neither PyTorch nor NumPy nor any room is loaded by `import mnsp`, nor by asking what there is"
    heavy = "('torch', 'numpy', 'fastcore', 'mnsp.')"
    code = f"import mnsp, sys; dir(mnsp); print(*[m for m in sys.modules if m.startswith({heavy})])"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ''), done.stdout + done.stderr


@pytest.mark.parametrize('name', mnsp.__all__)
def test_every_name_imports_and_says_what_it_is(name):
    found = getattr(mnsp, name)
    assert found.__name__ == name and found.__doc__ and name in dir(mnsp)
    assert not found.__doc__.startswith(f'{name}('), 'the docstring that a dataclass gets when it has none'
    assert getattr(mnsp, name) is found


def test_no_name_means_two_things():
    "A room that is imported takes its name, so no name is offered that a room has"
    assert not {room.name for room in iter_modules(mnsp.__path__)} & {*mnsp.__all__, 'mnsp'}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"): _ = mnsp.nothing
    for room in 'pretrain', 'finetune', 'evaluate':
        import_module(f'mnsp.{room}')
        assert isinstance(getattr(mnsp, room), ModuleType)


def test_the_front_page_lists_every_name(root):
    "And what to write where a room has the name"
    cells = json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells']
    section, = [text for c in cells if (text := ''.join(c['source'])).startswith('## From Python')]
    table = [row.split('|')[2] for row in section.splitlines() if row.startswith('| ') and '`' in row]
    assert sorted(re.findall(r'`(\w+)`', ' '.join(table))) == mnsp.__all__
    for module, name in re.findall(r'`from (mnsp\.\w+) import (\w+)`', section):
        assert callable(getattr(import_module(module), name))
    assert len(re.findall(r'`from mnsp\.\w+ import \w+`', section)) == 4


def test_the_class_that_is_offered_reads():
    assert 'read' in vars(mnsp.Recognizer) and 'read' in vars(mnsp.OnnxReader)


def test_rooms_build_on_rooms_before_them(root):
    number = {}
    for path in (root/'nbs').glob('[0-9]*.ipynb'):
        exported = re.search(r'#\| default_exp ([\w.]+)', path.read_text(encoding='utf-8'))
        if exported: number[exported[1]] = path.name[:2]
    assert len(set(number.values())) == len(number) > 40
    for module in number:
        file = (root/'mnsp'/module.replace('.', '/')).with_suffix('.py')
        for node in ast.parse(file.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.ImportFrom) and node.level and node.module in number:
                assert number[node.module] < number[module], f'{module} imports {node.module}'


def test_nobody_needs_the_lab_that_is_not_installed(root):
    rooms = [path for path in (root/'mnsp').glob('*.py') if path.name != '_modidx.py']
    assert not [path.name for path in rooms if re.search(r'(mnsp|from )\.lab\b', path.read_text(encoding='utf-8'))]
