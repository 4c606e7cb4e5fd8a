"""Import a user's file with the modules beside it, as Python would if it ran that file alone.

Each model's file has a `Scope` of its own: the modules found in its folder and in the working
directory. The code of a scope always imports through it: in a constructor, a forward, a hook or a
thread. So an import inside ``forward`` finds the same modules as one at the file's head, and two
models that each have a ``helper.py`` never get each other's. The process keeps its own
``sys.path``, and its own modules of the same names.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, all_suffixes
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

# One of its own would break what already runs.
_SHARED = frozenset({"layerbench", "torch", "torchvision", "timm", "transformers", "numpy"})

_lock = threading.RLock()
_scopes: dict[tuple[Path, ...], Scope] = {}


def scope_of(place: str) -> Scope:
    """The scope of ``path/to/file.py`` or ``package.module``; a new one once a file has changed."""
    path = _path(place)
    roots: list[Path] = []
    if path is not None:
        package = _package_of(path)
        roots = [path.parent, *([] if package is None else [package[1]])]
    key = tuple(dict.fromkeys([*roots, Path.cwd()]))
    with _lock:
        scope = _scopes.get(key)
        if scope is None or scope.changed():
            scope = _scopes[key] = Scope(key)
    return scope


def import_root(file: Path) -> Path:
    """The folder that a file's imports begin in: its own, or the one that its package lies in."""
    package = _package_of(file)
    return file.parent if package is None else package[1]


def forget(place: str) -> None:
    """Let the next `scope_of` import everything again; running code keeps its modules."""
    with _lock:
        forgotten = scope_of(place)
        _scopes.pop(forgotten.roots, None)
        forgotten.leave()


class Scope:
    """The modules that a model's file, and the modules beside it, import from their folders.

    Args:
        roots: folders, the first before the others.
    """

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self.roots = roots
        self._modules: dict[str, ModuleType] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._owned: dict[str, bool] = {}
        self._depth = 0
        self._displaced: dict[str, ModuleType] = {}
        self.builtins = {**vars(builtins), "__import__": self._import}

    def module(self, place: str) -> ModuleType:
        """Import ``path/to/file.py`` or ``package.module``, once.

        Raises:
            FileNotFoundError: there is no such file.
            Exception: whatever the module raises.
        """
        path = _path(place)
        with self.entered():
            if path is None:
                return self._by_name(place)
            package = _package_of(path)
            return self._by_path(path) if package is None else self._by_name(package[0])

    @contextmanager
    def offered(self) -> Iterator[None]:
        """In the block, imports without an ``import`` statement find the scope's modules, too."""
        with self.entered():
            pass  # its modules are in their places
        with self._finding():
            yield

    @contextmanager
    def _finding(self) -> Iterator[None]:
        """In the block this scope's finder comes before all others."""
        finder = _Finder(lambda: (self,))
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """In the block this scope's modules are those that ``sys.modules`` holds."""
        with _lock:
            displaced = self._take_places()
            self._depth += 1
            try:
                with self._finding():
                    yield
            finally:
                self._depth -= 1
                self._note_new()
                # What the process had under such a name is again there; another model's is not.
                sys.modules.update(displaced)

    def leave(self) -> None:
        """Take this scope's modules out of ``sys.modules``."""
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    def changed(self) -> bool:
        """Whether a file has changed since it was imported."""
        return any(_stamp(path) != stamp for path, stamp in self._stamps.items())

    def owns(self, top: str) -> bool:
        """Whether the scope's folders provide a module of this name."""
        if top not in self._owned:
            self._owned[top] = self._is_beside(top)
        return self._owned[top]

    def find(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Where a module of the scope lies."""
        if not self.owns(name.partition(".")[0]):
            return None
        folders = [str(root) for root in self.roots]
        spec = PathFinder.find_spec(name, folders if path is None else path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(self, name, spec.loader.path)
        return spec

    def loading(self, module: ModuleType, file: Path) -> None:
        """Note a module that is about to run."""
        self._modules[module.__name__] = module
        self._stamps[file] = _stamp(file)
        module.__dict__["__builtins__"] = self.builtins

    # --- importing -----------------------------------------------------------------------------

    def _import(
        self,
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:  # noqa: ANN401 - a module, or what is there in its place
        """What an ``import`` statement in this scope's modules calls."""
        arguments = (globals, locals, fromlist, level)
        if level == 0:
            if not self.owns(name.partition(".")[0]):
                return builtins.__import__(name, *arguments)
            at_hand = self._modules.get(name)
            if at_hand is not None and all(hasattr(at_hand, part) for part in fromlist or ()):
                return at_hand if fromlist else self._modules[name.partition(".")[0]]
        with self.entered():
            self._hide_others(name if level == 0 else "")
            return builtins.__import__(name, *arguments)

    def _by_name(self, name: str) -> ModuleType:
        importlib.invalidate_caches()
        self._hide_others(name)
        return importlib.import_module(name)

    def _by_path(self, path: Path) -> ModuleType:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        stamp = f"{path}:{_stamp(path)}"
        name = f"{path.stem}_{sha256(stamp.encode()).hexdigest()[:12]}"
        if name in self._modules:
            return self._modules[name]
        loader = _Loader(self, name, str(path))
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        if spec is None:
            raise ImportError(f"{path.name} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        # Classes of the file look themselves up by their module's name, dataclasses for one; and a
        # module beside it may import it in turn.
        names = [name, *([path.stem] if self.owns(path.stem) else [])]
        before = {alias: sys.modules.get(alias) for alias in names}
        sys.modules.update(dict.fromkeys(names, module))
        self._modules.update(dict.fromkeys(names, module))
        try:
            loader.exec_module(module)
        except BaseException:
            for alias in names:
                self._modules.pop(alias, None)
                _put(alias, before[alias])
            raise
        return module

    # --- sys.modules ---------------------------------------------------------------------------

    def _take_places(self) -> dict[str, ModuleType]:
        """Put this scope's modules into ``sys.modules``; gives the process's own of these names.

        Later imports may add to it.
        """
        if self._depth:
            return {}
        displaced: dict[str, ModuleType] = {}
        for name, module in self._modules.items():
            present = sys.modules.get(name)
            if present is not module:
                if present is not None and not _of_a_scope(present):
                    displaced[name] = present
                sys.modules[name] = module
        self._displaced = displaced
        return displaced

    def _hide_others(self, name: str) -> None:
        """Take modules of the same name that are not this scope's out of ``sys.modules``."""
        top = name.partition(".")[0]
        if not top or not self.owns(top):
            return
        for full_name, present in list(sys.modules.items()):
            if full_name.partition(".")[0] == top and self._modules.get(full_name) is not present:
                if not _of_a_scope(present):
                    self._displaced[full_name] = present
                del sys.modules[full_name]

    def _note_new(self) -> None:
        """Note modules that are no Python file: an extension, a folder of packages."""
        for name, module in list(sys.modules.items()):
            if name not in self._modules and self._owned.get(name.partition(".")[0]):
                self._modules[name] = module
        for name in [name for name in self._modules if name not in sys.modules]:
            del self._modules[name]  # it failed to import

    def _is_beside(self, top: str) -> bool:
        if top in _SHARED or top in sys.builtin_module_names:
            return False
        present = sys.modules.get(top)
        foreign = present is not None and not _of_a_scope(present)
        if foreign and (top in sys.stdlib_module_names or self._lies_here(present)):
            return False
        return any(_holds(root, top) for root in self.roots)

    def _lies_here(self, module: ModuleType | None) -> bool:
        """Whether the process itself has imported a module of these folders."""
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        return any(
            place is not None and Path(place).resolve().is_relative_to(root)
            for place in places
            for root in self.roots
        )


class _Finder:
    """Finds modules of scopes.

    Args:
        scopes: the first that has a module gives it.
    """

    def __init__(self, scopes: Callable[[], Iterable[Scope]]) -> None:
        self._scopes = scopes

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: object = None
    ) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder` has it."""
        del target
        specs = (scope.find(name, path) for scope in self._scopes())
        return next((spec for spec in specs if spec is not None), None)


# After all other finders: for imports without an ``import`` statement, such as ``pickle``'s and
# those of `importlib.import_module` in a forward.
sys.meta_path.append(_Finder(lambda: reversed(list(_scopes.values()))))


class _Loader(SourceFileLoader):
    """Runs a file's present source in its scope, and writes no compiled copy."""

    def __init__(self, scope: Scope, name: str, path: str) -> None:
        super().__init__(name, path)
        self._scope = scope

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        """Run the file with its scope's imports."""
        self._scope.loading(module, Path(self.path))
        super().exec_module(module)


def _of_a_scope(module: ModuleType) -> bool:
    names = getattr(module, "__dict__", {}).get("__builtins__")
    return isinstance(names, dict) and isinstance(
        getattr(names.get("__import__"), "__self__", None), Scope
    )


def _put(name: str, module: ModuleType | None) -> None:
    if module is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = module


def _path(place: str) -> Path | None:
    """The file that a place names; ``None`` for ``package.module``."""
    return Path(place).expanduser().resolve() if place.endswith(".py") else None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return (0, 0)
    return state.st_mtime_ns, state.st_size


def _holds(root: Path, top: str) -> bool:
    """Whether a folder has a module of this name, before one that is installed."""
    if any((root / f"{top}{suffix}").is_file() for suffix in all_suffixes()):
        return True
    folder = root / top
    if not folder.is_dir():
        return False
    if any((folder / f"__init__{suffix}").is_file() for suffix in all_suffixes()):
        return True
    # Any folder is a package of last resort: what is installed under its name comes first.
    installed = PathFinder.find_spec(top, sys.path)
    return installed is None or installed.loader is None


def _package_of(path: Path) -> tuple[str, Path] | None:
    """For a file with relative imports: its name with its packages, and their folder."""
    levels = _relative_levels(path)
    parts, folder, above = [path.stem], path.parent, levels
    while folder.name.isidentifier() and (above > 0 or (folder / "__init__.py").is_file()):
        parts.insert(0, folder.name)
        folder, above = folder.parent, above - 1
    return (".".join(parts), folder) if levels else None


def _relative_levels(path: Path) -> int:
    """The most leading dots of an import in the file; 0 if it cannot be read."""
    return _levels(path, _stamp(path))


@lru_cache(maxsize=64)
def _levels(path: Path, stamp: tuple[int, int]) -> int:  # noqa: ARG001 - part of the cache's key
    # A file is asked for several times a run, and to parse it takes longer than a small model does.
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return 0
    return max((n.level for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)), default=0)
