"""What the global options say, and the application and the store that they name."""

from __future__ import annotations

import importlib
import re
import traceback
from pathlib import Path
from types import ModuleType

import msgspec

from journeyman.app import App
from journeyman.errors import DefinitionError, JourneymanError, NotReady

#: The application when nobody names one: the example.
APP_DEFAULT = "journeyman.examples.blog.app:app"


class ProjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `[tool.journeyman]` in the pyproject.toml of the current directory may say."""

    app: str | None = None
    store: str | None = None


class Settings(msgspec.Struct, frozen=True):
    """The global options, each from the command line or the environment; None where neither says it.

    After those comes pyproject.toml, then, for the store, what the application itself says.
    """

    app: str | None
    store: str | None

    @property
    def app_name(self) -> str:
        return self.app or read_project().app or APP_DEFAULT

    def load_app(self) -> App:
        """Import the application.

        Raises:
            DefinitionError: there is no such module or attribute, it can't be imported, or it is no App.
        """
        name = self.app_name.partition(":")[2] or "app"
        module = self.load_module()
        app = getattr(module, name, None)
        if not isinstance(app, App):
            raise DefinitionError(f"{module.__name__} has no App named {name!r}: say --app MODULE:ATTRIBUTE.")
        return app

    def load_module(self) -> ModuleType:
        """Import the application's module.

        Raises:
            DefinitionError: there is none, or it can't be imported.
        """
        return _import(self.app_name.partition(":")[0])

    def store_url(self) -> str:
        """The URL of the store. The application is loaded only when nobody else says it."""
        return self.store or read_project().store or self.load_app().store_url()

    def existing_store_url(self) -> str:
        """The URL of the store, for commands that read: they create none.

        Raises:
            NotReady: it is a file that is not there.
        """
        url = self.store_url()
        path = url.removeprefix("sqlite:///")
        if path not in ("", url) and not Path(path).exists():
            raise NotReady(f"There is no store {url} yet: check --store, or record something first.")
        return url


def without_password(url: str) -> str:
    """A store's URL as it may be shown."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1@", url)


def read_project() -> ProjectSettings:
    """The settings in the pyproject.toml of the current directory; empty where there are none.

    Raises:
        DefinitionError: it can't be read, or says something else under [tool.journeyman].
    """
    try:
        data = Path("pyproject.toml").read_bytes()
    except FileNotFoundError:
        return ProjectSettings()
    except OSError as error:
        raise DefinitionError(f"pyproject.toml can't be read: {error}") from error
    import tomllib

    try:
        found = tomllib.loads(data.decode()).get("tool", {}).get("journeyman", {})
        return msgspec.convert(found, ProjectSettings)
    except (ValueError, AttributeError) as error:
        raise DefinitionError(f"pyproject.toml, [tool.journeyman]: {error}. It may say app and store.") from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except JourneymanError:
        raise
    except Exception as error:
        is_missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        if is_missing or not name or name.startswith("."):
            problem = f"There is no module {name!r} to take the application from: check --app."
        else:
            problem = f"{name} can't be imported: {_told(error)}."
        raise DefinitionError(problem) from error


def _told(error: Exception) -> str:
    """An error while importing in one line, with the place where it happened."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return text  # It says file and line itself.
    place = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in place if not frame.filename.startswith("<frozen") and "importlib" not in frame.filename]
    return f"{text} ({own[-1].filename}, line {own[-1].lineno})" if own else text
