"""Find the generator in a file.

People save a whole network, its state dict, either one in a dict or tuple with others, or one state
dict of several networks. Only tensor names matter here: `families` knows which ones a generator
has. A network's moving average takes precedence over the network itself.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from probe.errors import CheckpointError, printable, shown
from probe.generators.files.families import heads, signs
from probe.generators.files.records import Array, LazyTensor, Record, damaged, module_tensors
from probe.generators.files.rosinality import AVERAGE, DISCRIMINATOR_SIGN, SIGN
from probe.generators.files.unreadable import STYLEGAN_XL, what_it_is

MOST_PARTS = 20_000  # dicts, lists and modules to search
MOST_MODULES = 100  # modules whose tensors are examined, each with up to some thousands
MOST_NAMES = 20_000  # tensor names used to describe a file
DEEPEST = 8  # nesting of dicts
LONGEST_PLACE = 200
AVERAGED = re.compile(r"(.*_)?(ema|average|averaged)(_.*)?|Gs", re.IGNORECASE)
GENERATORS = re.compile(
    r"G|(.*_)?gen(erator)?(_.*)?|net_?G|net(work)?|model|decoder|(.*_)?state_dict|params",
    re.IGNORECASE,
)
# Parts of a file that never hold a generator; they may be large, or of any kind.
OTHERS = re.compile(r"D(_.*)?|disc.*|net_?D(_.*)?|.*optim.*|.*_opt|augment.*", re.IGNORECASE)
DISCRIMINATORS = re.compile(r"D|net_?D|(.*_)?disc(riminator)?(_.*)?", re.IGNORECASE)
DISCRIMINATOR_SIGNS = ("b4.out.weight", DISCRIMINATOR_SIGN)
LEAST = 2  # rank of a part that may be a generator although its key does not say so

Keys = tuple[Any, ...]
Tensor = LazyTensor | torch.Tensor | Array


@dataclass(frozen=True, eq=False)
class FoundNetwork:
    """A network in a file.

    Attributes:
        path: the keys that lead to it, then its parent modules.
        module: its record; None for a state dict.
        tensors: by their dotted names within the network.
    """

    path: Keys
    module: Record | None
    tensors: dict[str, Any]

    @property
    def place(self) -> str:
        """The path as text, "" for the file as a whole."""
        return _in_words(self.path)

    @property
    def class_name(self) -> str:
        """The module's class, "" for a state dict."""
        return "" if self.module is None else self.module.type.name


def find_generator(content: Any) -> FoundNetwork:
    """Return a file's generator.

    Args:
        content: the file's records, dicts, lists, tensors and numbers.

    Raises:
        CheckpointError: if it holds no supported generator; says what it holds.
    """
    parts = [(path, part) for path, part in _parts(content) if not _has(OTHERS, path)]
    problem = None
    for path, part in sorted(parts, key=lambda found: _rank(found[0])):
        try:
            held = _held(path, part, signs())
        except CheckpointError as error:
            if _rank(path) < LEAST:  # a damaged generator: do not substitute another network
                raise
            problem = problem or error
            continue
        if held is not None:
            if STYLEGAN_XL.matches(list(held.tensors), [held.class_name]):
                raise CheckpointError(STYLEGAN_XL.text)
            return _with_average(held, content)
    if problem is not None:
        raise problem
    raise CheckpointError(_description(content))


def find_trained(content: Any, average: FoundNetwork) -> FoundNetwork | None:
    """Return the generator being trained, if `find_generator` returned its average."""
    for path, part in _parts(content) if _rank(average.path) == 0 else ():
        if _rank(path) == 1 and not _has(OTHERS, path):
            held = _held(path, part, signs())
            if held is not None and _rank(held.path) == 1:
                return _with_average(held, content)
    return None


def find_discriminator(content: Any) -> FoundNetwork | None:
    """Return a file's StyleGAN2 discriminator, None if there is none.

    Raises:
        CheckpointError: if it is damaged.
    """
    for path, part in _parts(content):
        if isinstance(part, dict) or _has(DISCRIMINATORS, path):
            held = _held(path, part, DISCRIMINATOR_SIGNS)
            if held is not None and _has(DISCRIMINATORS, held.path):
                return held
    return None


def passed_over(content: Any, held: FoundNetwork) -> list[str]:
    """Return what else a file holds, by the keys that lead to it."""
    names: list[str] = []
    used = AVERAGE if AVERAGE in held.tensors else None
    for depth, word in enumerate(held.path):
        if isinstance(content, dict) and word in content:
            others = [key for key in content if key not in (word, used)]
            content = content[word]
        elif isinstance(content, dict):  # a state dict of several networks
            head = ".".join(map(str, held.path[depth:])) + "."
            outside = (k for k in map(_word, content) if k != used and not k.startswith(head))
            others = list(dict.fromkeys(key.partition(".")[0] for key in outside))
            content = None
        elif isinstance(content, list | tuple):
            others = [index for index in range(len(content)) if index != word]
            content = content[word]
        else:
            break
        names += [_in_words((*held.path[:depth], other)) for other in others]
    return names


def _in_words(path: Keys) -> str:
    return printable(".".join(map(_word, path[:DEEPEST])), LONGEST_PLACE)


def _word(key: Any) -> str:
    """Return a key as text; a key that is neither text nor number by its type."""
    return key if isinstance(key, str) else shown(key)


def _parts(content: Any) -> Iterator[tuple[Keys, Any]]:
    """Yield every module, and every dict that holds tensors, with the keys that lead to it.

    Tuples are read from the end, because programs save (G, D, G_ema).
    """
    seen: set[int] = set()
    modules = 0

    def walk(value: Any, path: Keys) -> Iterator[tuple[Keys, Any]]:
        nonlocal modules
        if _is_module(value):  # one module may appear under several keys
            modules += 1
            if modules > MOST_MODULES:
                raise damaged("more networks than any file holds")
            yield path, value
            return
        if not isinstance(value, dict | list | tuple | Record) or id(value) in seen:
            return
        if len(path) > DEEPEST or len(seen) >= MOST_PARTS:
            return
        seen.add(id(value))
        if isinstance(value, dict) and any(isinstance(inner, Tensor) for inner in value.values()):
            yield path, value
        for key, inner in _items(value):
            yield from walk(inner, (*path, key))

    return walk(content, ())


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return a container's items with their keys: of a dict, an object, or a list from its end."""
    if isinstance(value, Record):
        state = value.state if isinstance(value.state, dict) else {}
        return [*state.items(), *(value.entries or {}).items()]
    if isinstance(value, dict):
        return value.items()
    return reversed(list(enumerate(value)))


def _is_module(value: Any) -> bool:
    if not isinstance(value, Record) or not isinstance(value.state, dict):
        return False
    return any(group in value.state for group in ("_parameters", "_buffers", "_modules"))


def _has(words: re.Pattern[str], path: Keys) -> bool:
    return any(words.fullmatch(_word(key)) for key in path)


def _rank(path: Keys) -> int:
    """Return 0 for a generator's average, 1 for a generator, `LEAST` for a possible one."""
    if _has(AVERAGED, path):
        return 0
    return 1 if not path or _has(GENERATORS, path) else LEAST


def _held(path: Keys, part: Any, signs: Sequence[str]) -> FoundNetwork | None:
    """Return the network with these signs in a module or dict of tensors, None if there is none.

    Raises:
        CheckpointError: if it is damaged.
    """
    if isinstance(part, Record):
        tensors: dict[str, Any] = dict(module_tensors(part))
    else:
        tensors = _named_tensors(part)
    found = [(*path, *head.split(".")[:-1]) for head in heads(tensors, signs)]
    if not found:
        return None
    best = min(found, key=_rank)
    modules = best[len(path) :]
    head = "".join(f"{word}." for word in modules)
    own = {n.removeprefix(head): t for n, t in tensors.items() if n.startswith(head)}
    return FoundNetwork(best, _inner(part, modules) if isinstance(part, Record) else None, own)


def _named_tensors(part: dict[Any, Any]) -> dict[str, Any]:
    """Return a dict's named tensors; numpy arrays count as tensors."""
    named = {n: t.tensor if isinstance(t, Array) else t for n, t in part.items()}
    return {n: t for n, t in named.items() if isinstance(n, str) and isinstance(t, Tensor)}


def _inner(module: Record, names: Keys) -> Record:
    """Return the module at the end of a path of module names."""
    for name in names:
        inside = module.state["_modules"].items()
        found = next((child for key, child in inside if str(key) == name), None)
        if not isinstance(found, Record):
            raise damaged("a module without a proper name")
        module = found
    return module


def _with_average(held: FoundNetwork, content: Any) -> FoundNetwork:
    """Return a generator with rosinality's names, plus the average latent stored next to it."""
    if SIGN not in held.tensors:
        return held
    for word in (*held.path, None):
        if not isinstance(content, dict):
            break
        average = _named_tensors({AVERAGE: content.get(AVERAGE)})
        held.tensors.update({n: t for n, t in average.items() if n not in held.tensors})
        content = content.get(word)
    return held


def _description(content: Any) -> str:
    """Describe a file that has no generator."""
    names: list[str] = []
    classes: list[str] = []
    for _, part in _parts(content):
        if isinstance(part, Record):
            classes.append(part.type.name)
        if len(names) < MOST_NAMES:
            names += _names(part)
    keys = [_word(key) for key in content] if isinstance(content, dict) else []
    return what_it_is(keys, names[:MOST_NAMES], classes)


def _names(part: Any) -> list[str]:
    """Return a part's tensor names, none if it is damaged, since it is not read anyway."""
    if not isinstance(part, Record):
        return list(_named_tensors(part))
    try:
        return list(module_tensors(part))
    except CheckpointError:
        return []
