"""TARGET: the user's own code, by ``module:function`` or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .linearization import InvalidTypeError, InvalidValueError, Linearization, NTKError, is_linearization, linearize
from .problems import described

FORMS = "module:function or file.py:function"


def call(target: str) -> Any:
    """Import what `target` names, relative to the current folder, and call the function without arguments.

    Raises
    ------
    InvalidValueError
        If there is no such module, file or function, or if it raises.
    """
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise InvalidValueError(f"{target!r} is not of the form {FORMS}")
    with importable(target):
        module = _module(where)
        function: Any = module
        for part in name.split("."):
            function = getattr(function, part, None)
        if function is None:
            raise InvalidValueError(f"there is no {name!r} in {where}{_others(module)}")
        if not callable(function):
            raise InvalidValueError(f"{target} is a {type(function).__name__}; a function without arguments is needed")
        try:
            return function()
        except NTKError:
            raise
        except (Exception, SystemExit) as error:
            raise InvalidValueError(f"{target} raised {described(error)}") from error


def linearized(target: str) -> Linearization:
    """What the function returns, as a linearization.

    It returns one, or ``(model, *inputs)``, or ``(f, params, *inputs)``, which then go to `ntkest.linearize`.
    """
    made = call(target)
    if is_linearization(made):
        J: Linearization = made
        return J
    if isinstance(made, tuple | list) and len(made) > 1 and callable(made[0]):
        return linearize(*made)
    if isinstance(made, tuple | list):
        what = f"a {type(made).__name__} of {', '.join(type(part).__name__ for part in made) or 'nothing'}"
    else:
        what = "nothing" if made is None else f"a {type(made).__name__}"
    raise InvalidValueError(
        f"{target} returned {what}; it should return a Linearization, (model, *inputs) or (f, params, *inputs)"
    )


@contextmanager
def importable(target: str) -> Iterator[None]:
    """Imports find what lies in the current folder, or beside the file, as they do for ``python file.py``.

    To be kept open while the model is used: it may import something when it is called.
    """
    where = target.rpartition(":")[0]
    folder = Path(where).resolve().parent if where.endswith(".py") else Path.cwd()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _module(where: str) -> ModuleType:
    if where.endswith(".py") and not Path(where).is_file():
        raise InvalidValueError(f"there is no file {where} in {Path.cwd()}")
    try:
        return _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except NTKError:
        raise
    except (Exception, SystemExit) as error:
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing == where.partition(".")[0]:
            hint = f"; for a file write {where}.py" if Path(f"{where}.py").is_file() else ""
            raise InvalidValueError(f"there is no module {where!r} here or among the installed ones{hint}") from error
        hint = f"; try: python -m pip install {missing}" if missing else ""
        raise InvalidValueError(f"cannot import {where}: {described(error)}{hint}") from error


def _from_file(path: Path) -> ModuleType:
    """The module of a file, under a name that no other module has: model.py must not answer to `import model`."""
    name = f"_ntkest_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _others(module: ModuleType) -> str:
    """What else could have been meant: the functions that the module itself defines."""
    names = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and n[0] != "_"]
    return f"; it has {', '.join(names[:8])}" if names else ""


def name_of(factory: Any) -> str:
    """What another process can find a factory by: `factory` itself if that is text, or the place of a function.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        It is neither, or a function that cannot be imported.
    """
    if isinstance(factory, str):
        where, _, own = factory.rpartition(":")
        return f"{Path(where).resolve()}:{own}" if where.endswith(".py") else factory
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", None)
    if not callable(factory) or module is None or name is None:
        raise InvalidTypeError(
            f"workers build the model themselves: give a function without arguments that does so, or its name "
            f"({FORMS}), not {type(factory).__name__}"
        )
    if module == "__main__" or "<" in name:
        raise InvalidValueError(
            f"workers cannot import {name} from {module}: put it into a module of its own, and give {FORMS}"
        )
    return f"{module}:{name}"
